"""A long backlog, a real broker, and several that publish: few messages, none twice, the best first, nobody starved."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import redis
from alembic import command
from sqlalchemy import text

from blobferry.contract import JOBS_QUEUE
from blobferry.messages.job_messages import Message, client_app, publish
from dev.services import Postgres, Valkey, postgres_database
from models import Database
from tests.client.conftest import Site
from tests.conftest import alembic_config
from tests.jobs.job_world import World
from tests.models.rows import at_once, claim
from worker.maintenance.caretaker import AHEAD, Caretaker
from worker.maintenance.publish_due import publish_best
from worker.runtime import Runtime

WORKERS = 2
SLOTS = 2  #: of each worker; see World
MOST = AHEAD * SLOTS * WORKERS  #: messages that there may be

FILLED = """
INSERT INTO blobferry_jobs (id, operation, path, source, request, priority, state)
SELECT 'job-' || n, 'write_stream', '/a/' || n, 'file:///srv/a', '{"path": "/a", "source": "file:///srv/a"}',
       CASE WHEN n = 1 THEN 0 ELSE n % 10 END, 'queued'
FROM generate_series(1, :rows) AS n
"""
#: The best half of the jobs need what the first one holds.
WAITING = "UPDATE blobferry_jobs SET waits_for = 'job-1' WHERE priority >= 5 AND id <> 'job-1'"


class Backlog:
    """A database full of jobs, a broker, and two workers' caretakers."""

    def __init__(self, database: Database, broker: Valkey, runtimes: list[Runtime]) -> None:
        self.database = database
        self.runtimes = runtimes
        self._asked = Site(database, broker.url)
        self._app = client_app(broker.url)
        self.caretakers = [Caretaker(runtime, self.publish) for runtime in runtimes]

    def fill(self, rows: int, *more: str) -> None:
        with self.database.begin() as session:
            session.execute(text(FILLED), {"rows": rows})
            for statement in more:
                session.execute(text(statement))
        with self.database.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE"))

    def publish(self, *messages: Message) -> int:
        return publish(self._app, *messages)

    def sweep(self) -> None:
        """All caretakers at once."""
        at_once(len(self.caretakers), lambda number: self.caretakers[number].sweep())

    def waiting(self) -> list[str]:
        """The jobs that have a message in the broker, the oldest message first."""
        return self._asked.message_ids()[::-1]

    def has_few_messages(self) -> None:
        """Some, and none twice."""
        found = self.waiting()
        assert 0 < len(set(found)) == len(found) <= MOST

    def take(self) -> str:
        """A worker takes the oldest message, and claims its job."""
        job_id = self.waiting()[0]
        with redis.Redis.from_url(self._asked.broker_url) as connection:
            connection.rpop(JOBS_QUEUE)
        claim(self.database, job_id)
        return job_id

    def pass_by(self, seconds: float) -> None:
        """So much time goes by, as far as publishing knows."""
        with self.database.begin() as session:
            shift = "UPDATE blobferry_jobs SET published_at = published_at - make_interval(secs => :seconds)"
            session.execute(text(f"{shift} WHERE published_at IS NOT NULL"), {"seconds": seconds})

    def close(self) -> None:
        self._app.close()


@pytest.fixture
def backlog(broker: Valkey, postgres_server: Postgres, tmp_path: Path) -> Iterator[Backlog]:
    broker.flush()
    with postgres_database(postgres_server) as url, closing(Database(url)) as database, ExitStack() as running:
        command.upgrade(alembic_config(url), "head")
        world = World(database, tmp_path)
        runtimes = [running.enter_context(world.worker()) for _ in range(WORKERS)]
        yield running.enter_context(closing(Backlog(database, broker, runtimes)))


def milliseconds(work: Callable[[], object]) -> str:
    started = time.monotonic()
    work()
    return f"{(time.monotonic() - started) * 1000:.0f} ms"


@pytest.mark.parametrize("rows", [5_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_a_backlog_and_a_flushed_broker_multiply_no_messages(rows: int, backlog: Backlog, broker: Valkey) -> None:
    backlog.fill(rows)
    for _ in range(3):
        backlog.sweep()
    backlog.has_few_messages()

    broker.flush()
    backlog.sweep()
    assert backlog.waiting() == []  # they may only be slow; 30 s later they count as lost
    for _ in range(2):
        broker.flush()
        backlog.pass_by(31)
        for _ in range(3):
            backlog.sweep()
        backlog.has_few_messages()

    for _ in range(2 * MOST):  # runs end, and each publishes what comes next
        backlog.take()
        publish_best(backlog.runtimes[0], backlog.publish, limit=SLOTS)
        backlog.sweep()
        backlog.has_few_messages()

    backlog.pass_by(31)
    step = milliseconds(lambda: publish_best(backlog.runtimes[0], backlog.publish, limit=AHEAD * SLOTS))
    figures = f"a publish step takes {step}, two sweeps at once {milliseconds(backlog.sweep)}"
    figures += f", a claim {milliseconds(backlog.take)}"
    print(f"\n{rows} jobs: {figures}")  # noqa: T201  for whoever runs it with -s


@pytest.mark.parametrize("rows", [1_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_the_highest_priority_goes_first_and_every_fifth_pick_is_the_oldest(rows: int, backlog: Backlog) -> None:
    backlog.fill(rows)
    backlog.caretakers[0].sweep()
    assert backlog.waiting() == [f"job-{n}" for n in (9, 19, 29, 39, 1, 49, 59, 69)]


def test_old_jobs_of_low_priority_get_their_turn_in_a_stream_of_better_ones(backlog: Backlog) -> None:
    """Over many sweeps, too, every fifth pick is the oldest that is left."""
    backlog.fill(1_000)
    taken: list[str] = []
    while len(taken) < 40:
        backlog.caretakers[0].sweep()
        taken.append(backlog.take())
    assert "job-1" in taken[:5]
    assert {f"job-{n}" for n in range(1, 7)} <= set(taken)


def test_jobs_that_wait_for_the_path_of_another_take_none_of_the_places(backlog: Backlog) -> None:
    backlog.fill(1_000, WAITING)
    for _ in range(3):
        backlog.sweep()
    published = backlog.waiting()
    assert len(published) >= AHEAD * SLOTS
    assert {int(job_id[4:]) % 10 for job_id in published if job_id != "job-1"} <= {0, 1, 2, 3, 4}
