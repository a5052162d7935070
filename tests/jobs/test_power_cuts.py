"""Power cuts on SQLite: commits that were not synced are lost. Jobs are repeated; no blob is lost or made of two."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from blobferry.client import Client
from models import Database
from tests.doubles import Fuse, FusedDatabase, blob, unfinished
from tests.jobs.power_cuts import Disk
from tests.jobs.test_operation_crashes import MOST_CALLS, SCENES, Databases, Scene

pytestmark = pytest.mark.no_cover

ROOT = Path(__file__).resolve().parents[2]
#: What is kept of the log behind the last sync, in bytes, of so many.
KEPT: dict[str, Callable[[int], int]] = {"nothing": lambda unsynced: 0, "a part": lambda unsynced: unsynced * 2 // 3}
#: Scenes, what is kept, and the calls from one cut to the next: a scene in parts has many of the same kind.
MATRIX = [
    ("put_content", "nothing", 1),
    ("write in one put over", "nothing", 1),
    ("delete", "nothing", 1),
    ("write in parts", "nothing", 3),
    ("write in parts", "a part", 5),
    ("move in parts", "nothing", 5),
    ("move to another storage", "nothing", 7),
    ("read over an old file", "nothing", 5),
]


@pytest.fixture
def databases(sqlite_database: Database) -> Iterator[Databases]:
    mortal = FusedDatabase(str(sqlite_database.engine.url), Fuse())
    yield Databases(sqlite_database, mortal)
    mortal.close()


@pytest.fixture
def disk(databases: Databases, tmp_path: Path) -> Disk:
    return Disk(tmp_path, databases.safe, databases.mortal)


def assert_it_ends_well(case: Scene) -> None:
    """Somebody runs the job again, whatever is known of it by now."""
    case.another_worker_comes()
    row = case.job_row(case.job_id)
    assert (row.state, row.error_code) == ("succeeded", None)
    case.sweep()
    assert case.torn == []
    assert case.is_done()
    assert (unfinished(case.memory), unfinished(case.cold)) == ([], [])


@pytest.mark.parametrize(("name", "kept", "step"), MATRIX)
def test_power_may_be_cut_before_any_call_or_commit(
    name: str, kept: str, step: int, databases: Databases, disk: Disk, tmp_path: Path
) -> None:
    for fail_at in range(1, MOST_CALLS, step):
        case = SCENES[name](databases, tmp_path / str(fail_at))
        finished = case.live(Fuse(fail_at, "before"))
        disk.lose_power(KEPT[kept])
        assert_it_ends_well(case)
        if finished:  # it was cut right after the end
            assert fail_at > 8
            return
    pytest.fail("it never ends")


def test_a_delete_that_is_repeated_after_a_power_cut_spares_what_came_after_its_end(
    databases: Databases, disk: Disk, tmp_path: Path
) -> None:
    """The cutoff was synced, the end was not. Somebody was told that the directory is empty, and has filled it."""
    case = SCENES["delete"](databases, tmp_path / "case")
    assert case.live(Fuse())
    case.memory.put("a/b/new", b"new")
    disk.lose_power()
    assert case.job_row(case.job_id).state == "running", "else this tests nothing"
    case.another_worker_comes()
    assert blob(case.memory, "a/b/new") == b"new"


def test_what_a_client_was_told_of_survives_a_power_cut(sqlite_url: str, tmp_path: Path) -> None:
    database = Database(sqlite_url)
    with Client(engine=database.engine) as client:
        disk = Disk(tmp_path, database)
        before = disk.syncs
        first = client.put_content("/a", b"x")
        assert disk.syncs == before + 1
        second = client.put_content("/b", b"y")
        disk.lose_power()
        assert [client.get(job.id).state for job in (first, second)] == ["queued", "queued"]
    database.close()


def test_every_commit_of_a_clients_own_engine_survives_and_a_read_waits_for_no_disk(sqlite_url: str) -> None:
    with Client(database_url=sqlite_url) as client:
        synced = list[str]()
        with client._engine.connect() as connection:
            connection.connection.driver_connection.sync = synced.append  # type: ignore[union-attr]
        job = client.put_content("/a", b"x")
        assert len(synced) == 1
        client.get(job.id)
        assert client.jobs() == [job]
        assert len(synced) == 1
        client.cancel(job.id)
        assert len(synced) == 2


def test_a_commit_that_nothing_depends_on_waits_for_no_disk(databases: Databases, disk: Disk, tmp_path: Path) -> None:
    case = SCENES["put_content"](databases, tmp_path / "case")
    before = disk.syncs
    with databases.safe.begin() as session:
        session.execute(text("UPDATE blobferry_jobs SET polls = 1"))
    assert disk.syncs == before
    assert case.live(Fuse())
    assert 0 < disk.syncs - before <= 3, "the upload, the point of no return, and what a later change may add"


COMMITS = """
import os, sys
from sqlalchemy import text
from models import Database
with Database(sys.argv[1]).begin() as session:
    session.execute(text("INSERT INTO blobferry_jobs (id) VALUES ('kept')"))
print("committed", flush=True)
sys.stdin.read()
"""


def test_a_commit_that_was_not_synced_survives_kill_9(sqlite_url: str) -> None:
    command, environment = [sys.executable, "-c", COMMITS, sqlite_url], {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "committed\n"
        process.send_signal(signal.SIGKILL)
    engine = create_engine(sqlite_url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT id FROM blobferry_jobs")).scalars().all() == ["kept"]
    engine.dispose()
