"""A database that dies, is cut off in the middle of a COMMIT, is away, locked, late, or refuses: jobs go on.

The table of all failures and their tests is in test_failures_of_workers.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from dev.proxies.tcp import Wire, wire
from dev.services import Postgres, S3Service, Valkey, postgres_database
from dev.services.postgres_server import through
from dev.stack import Stack
from dev.waiting import wait_until
from tests.system.conftest import FAST, prepared
from tests.system.recorded_stack import LONG_LEASE, Scene, recorded

SHORT_LEASE_SECONDS = 3  #: of the stack's settings


@pytest.fixture(scope="module")
def cable(postgres_server: Postgres) -> Iterator[Wire]:
    """A wire to the database, for workers alone."""
    with wire(postgres_server.upstream) as running:
        yield running


@pytest.fixture(scope="module")
def scene(lasting_stack: Stack, cable: Wire) -> Iterator[Scene]:
    """One worker for all these failures, and its database at the end of the cable."""
    with working(lasting_stack, cable, BLOBFERRY_CONCURRENCY="2") as scene:
        yield scene


@contextmanager
def working(stack: Stack, cable: Wire | None = None, **settings: str) -> Iterator[Scene]:
    """A scene with one worker, which reaches the database through the cable."""
    url = through(stack.database_url, cable) if cable else stack.database_url
    with recorded(stack, settings=LONG_LEASE | settings, database_url=url) as scene, scene.stack.worker():
        yield scene


@contextmanager
def connected(stack: Stack) -> Iterator[psycopg.Connection]:
    """A connection of somebody else's to the same database, without autocommit."""
    url = make_url(stack.database_url).set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
        yield connection


def configure(stack: Stack, setting: str) -> None:
    """Change a setting of the whole database, for connections to come."""
    with connected(stack) as connection:
        connection.execute("SET transaction_read_only = off")
        connection.execute(f'ALTER DATABASE "{connection.info.dbname}" {setting}'.encode())


@contextmanager
def configured(scene: Scene, cable: Wire, setting: str, value: str) -> Iterator[None]:
    """All connections of the worker have the setting."""
    configure(scene.direct, f"SET {setting} = '{value}'")
    cable.cut()
    yield
    configure(scene.direct, f"RESET {setting}")
    cable.cut()


def hang_up_on_all(stack: Stack) -> None:
    """End every other connection to the database, as a failover does."""
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    with connected(stack) as connection:
        connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}".encode())


def test_postgres_is_killed_and_restarted_while_parts_are_in_flight(scene: Scene, postgres_server: Postgres) -> None:
    if not postgres_server.processes:
        pytest.skip("this PostgreSQL is not ours to kill")
    job = scene.begin("/killed/database", 12)
    postgres_server.kill9()
    postgres_server.restart()
    wait_until(lambda: scene.client.get(job.id), 20, "a database that answers")
    scene.succeeded_once(job)


#: What a run says to the database, and what its transaction holds before the COMMIT.
MOMENTS = {
    "claim": b"INSERT INTO blobferry_attempts",
    "opening the upload": b"INSERT INTO blobferry_uploads",
    "a part": b"INSERT INTO blobferry_parts",
    "the point of no return": b"SET phase=",
    "completed": b"etag=",
    "finish": b"finished_at=",
}


@pytest.mark.parametrize(
    "before", [pytest.param(True, marks=pytest.mark.long), False], ids=["lost COMMIT", "lost answer"]
)
def test_a_connection_that_is_cut_in_the_middle_of_a_commit_costs_no_attempt(
    scene: Scene, cable: Wire, before: bool
) -> None:
    for moment, statement in MOMENTS.items():
        cuts = cable.cuts
        cable.cut()  # new connections have prepared nothing: their statements go by in words
        cable.cut_at(b"COMMIT", before=before, following=statement)
        job = scene.submit(f"/commit/{before}/{moment.replace(' ', '-')}", 3)
        (job,) = scene.succeeded_once(job, timeout=20)
        assert cable.cuts == cuts + 1, moment
        assert scene.result(job).get(timeout=10)["size"] == job.size, moment


def test_a_partition_from_postgres_shorter_than_the_lease_costs_no_attempt(scene: Scene, cable: Wire) -> None:
    job = scene.begin("/away/short", 12)
    cable.refuse()
    cable.cut()
    threading.Event().wait(10)
    cable.accept()
    scene.succeeded_once(job)


def test_a_run_stops_before_its_lease_ends_when_postgres_stays_away(stack: Stack, cable: Wire) -> None:
    short = {name: stack.settings[name] for name in LONG_LEASE}
    with working(stack, cable, **short) as scene:
        job = scene.begin("/away/long", 18)
        cable.refuse()
        cable.cut()
        left_at = time.time()
        threading.Event().wait(SHORT_LEASE_SECONDS + 3)
        came_back_at = time.time()
        cable.accept()
        scene.succeeded_once(job, attempt=2)
        parts = [part.started_at for part in scene.asked(job, "upload_part")]
        assert [at for at in parts if left_at + SHORT_LEASE_SECONDS < at < came_back_at] == []


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("seconds", [20, 60])
def test_postgres_is_silent_for_longer_while_parts_are_in_flight(stack: Stack, cable: Wire, seconds: int) -> None:
    with working(stack, cable) as scene:
        job = scene.begin("/silent/blob", 60)
        cable.freeze()
        threading.Event().wait(seconds)
        cable.thaw()
        scene.succeeded_once(job, attempt=1 if seconds < 30 else 2, timeout=120)


@pytest.mark.parametrize("timeout", ["lock", pytest.param("statement", marks=pytest.mark.long)])
def test_lock_timeouts_and_statement_timeouts_are_tried_again_within_the_lease(
    scene: Scene, cable: Wire, timeout: str
) -> None:
    with configured(scene, cable, f"{timeout}_timeout", "700ms"):
        job = scene.begin(f"/locked/{timeout}", 9)
        with connected(scene.direct) as other:
            other.execute("SELECT * FROM blobferry_jobs WHERE id = %s FOR UPDATE", [job.id])
            threading.Event().wait(3)
        scene.succeeded_once(job)
    assert f"canceling statement due to {timeout} timeout" in scene.logged()


def test_a_deadlock_that_kills_a_checkpoint_is_tried_again(scene: Scene) -> None:
    job = scene.begin("/deadlock/blob", 9)
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with connected(scene.direct) as other:
        other.execute("SET deadlock_timeout = '1min'")  # not this one is to be the victim
        other.execute("SELECT * FROM blobferry_attempts WHERE job_id = %s FOR UPDATE", [job.id])
        scene.until_rows(waiting)  # the checkpoint has locked its job, and wants to count bytes in the history
        other.execute("SELECT * FROM blobferry_jobs WHERE id = %s FOR UPDATE", [job.id])
    scene.succeeded_once(job)
    assert "deadlock detected" in scene.logged()


def test_serialization_failures_are_tried_again(scene: Scene, cable: Wire) -> None:
    with configured(scene, cable, "default_transaction_isolation", "serializable"):
        jobs = [scene.submit(f"/serializable/{n}", 3) for n in range(4)]
        scene.succeeded_once(*jobs)


def test_a_failover_to_a_server_that_is_read_only_for_a_while_is_waited_for(scene: Scene) -> None:
    job = scene.begin("/failover/blob", 12)
    configure(scene.direct, "SET default_transaction_read_only = on")
    hang_up_on_all(scene.direct)
    threading.Event().wait(4)
    configure(scene.direct, "RESET default_transaction_read_only")
    scene.succeeded_once(job)
    scene.succeeded_once(scene.submit("/failover/later", 2))


@pytest.mark.parametrize("hours", [-5, pytest.param(5, marks=pytest.mark.long)])
@pytest.mark.long
def test_clock_skew_of_hours_between_workers_and_the_database_changes_nothing(
    postgres_server: Postgres, broker: Valkey, s3: S3Service, tmp_path: Path, hours: int
) -> None:
    with postgres_database(postgres_server) as url:
        stack = Stack(broker.url, url, s3, tmp_path, settings=FAST)
        skew_clock(stack, hours)
        stack.prepare()
        broker.flush()
        with recorded(stack, delays={"upload_part": 1.0}) as scene, scene.stack.worker("first") as first:
            long_run = scene.submit("/skew/long", 12)  # lasts longer than a lease
            with scene.stack.worker("second"):
                scene.succeeded_once(long_run)
                left = scene.begin("/skew/left", 6)
                first.kill9()
                scene.succeeded(left)
        (row,) = scene.attempts(long_run)
        assert abs(row["finished_at"].timestamp() - time.time() - hours * 3600) < 600, "the clock was wrong"


def skew_clock(stack: Stack, hours: int) -> None:
    """From the worker's point of view the database's clock is wrong, and the other way round."""
    body = f"SELECT pg_catalog.clock_timestamp() + interval '{hours} hours'"
    with connected(stack) as connection:
        connection.execute("CREATE SCHEMA skewed")
        connection.execute(
            f"CREATE FUNCTION skewed.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $${body}$$".encode()
        )
    configure(stack, "SET search_path = skewed, pg_catalog, public")


@pytest.mark.long
def test_sqlite_is_busy_with_somebody_elses_transaction(broker: Valkey, s3: S3Service, tmp_path: Path) -> None:
    file = tmp_path / "blobferry.db"
    stack = prepared(broker, Stack(broker.url, f"sqlite:///{file}", s3, tmp_path, settings=FAST))
    with working(stack) as scene, closing(sqlite3.connect(file, isolation_level=None)) as other:
        job = scene.begin("/busy/blob", 9)
        other.execute("BEGIN IMMEDIATE")
        threading.Event().wait(3)
        other.execute("COMMIT")
        scene.succeeded_once(job)
