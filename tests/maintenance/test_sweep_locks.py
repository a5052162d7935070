"""How long a sweep keeps SQLite's only writer's lock, whatever there is to do.

Counted in what it does under the lock, not in time, which other programs take: SQLite makes ten thousand steps in less
than a millisecond, and a statement takes Python less than half of one. So each transaction ends within 50 ms.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from sqlalchemy import event, insert

from blobferry.contract import JobState
from models import AttemptRow, Database, JobRow, PartRow, PathLockRow, TombstoneRow, UploadRow
from tests.jobs.job_world import World
from worker.maintenance.caretaker import Caretaker

JOBS: Final = 400  #: of each kind: many times what one transaction takes
MONTH: Final = 31 * 24 * 3600
STATEMENTS: Final = 60
STEPS: Final = 100_000


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


KINDS: Final[dict[str, dict[str, Any]]] = {
    "due": {},
    "come": {"state": JobState.RETRYING, "run_at": ago(5)},
    "dead": {"state": JobState.RUNNING, "worker": "w@h:1", "token": 1, "attempt": 1, "lease_expires_at": ago(60)},
    "cancelled": {"cancel_requested": True},
    "overdue": {"deadline": ago(60)},
    "finished": {"state": JobState.SUCCEEDED, "finished_at": ago(MONTH)},
}


@dataclass(slots=True)
class Held:
    """What one transaction does from BEGIN IMMEDIATE to its end."""

    statements: int = 0
    steps: int = 0
    first: str = ""


@contextmanager
def held(database: Database) -> Iterator[list[Held]]:
    """The transactions of the block."""
    found: list[Held] = []

    def began(connection: Any) -> None:
        found.append(Held())
        connection.connection.dbapi_connection.set_progress_handler(stepped, 1000)

    def stepped() -> None:
        found[-1].steps += 1000

    def executed(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        found[-1].statements += 1
        found[-1].first = found[-1].first or statement

    event.listen(database.engine, "begin", began)
    event.listen(database.engine, "before_cursor_execute", executed)
    try:
        yield found
    finally:
        event.remove(database.engine, "begin", began)
        event.remove(database.engine, "before_cursor_execute", executed)


@pytest.fixture
def crowded(world: World) -> World:
    """Jobs in every state that a sweep changes; those that ran have all that a run leaves."""
    common = {"operation": "write_stream", "source": "file:///f", "request": {}}
    with world.database.begin() as session:
        for kind, columns in KINDS.items():
            rows = [{"id": f"{kind}-{number}", "path": f"/{kind}/{number}"} for number in range(JOBS)]
            session.execute(insert(JobRow), [{**common, **columns, **row} for row in rows])
        for kind, state in (("dead", "open"), ("finished", "completed")):
            ids = [f"{kind}-{number}" for number in range(JOBS)]
            uploads = [{"job_id": job, "key": job, "state": state} for job in ids]
            numbers = session.scalars(insert(UploadRow).returning(UploadRow.id), uploads).all()
            parts = [{"upload": upload, "part_number": part} for upload in numbers for part in range(1, 21)]
            session.execute(insert(PartRow), parts)
            session.execute(insert(AttemptRow), [{"job_id": job, "attempt": 1} for job in ids])
        locks = [{"bucket": "b", "path": f"dead/{number}", "job_id": f"dead-{number}"} for number in range(JOBS)]
        session.execute(insert(PathLockRow), locks)
        stones = [{"id": f"gone-{number}", "pruned_at": ago(12 * MONTH)} for number in range(3000)]
        session.execute(insert(TombstoneRow), stones)
    return world


def test_no_transaction_of_a_sweep_does_much_however_much_there_is_to_do(crowded: World) -> None:
    with crowded.worker() as runtime, held(crowded.database) as transactions:
        swept = Caretaker(runtime, lambda *messages: len(messages)).sweep()
    assert min(swept.requeued, swept.changed, swept.pruned, swept.published) > 0, "there was something to do"
    for each in transactions:
        assert each.statements <= STATEMENTS, each
        assert each.steps <= STEPS, each
