"""What the caretaker knows of the processes beside it: a child that has died gives its job back at once."""

import subprocess
import sys
from collections.abc import Iterator
from os import getpid

import pytest

from models import Database, queries
from tests.jobs.job_world import World
from tests.models.rows import change, claim, job_row, outcomes, submit, try_claim
from worker.maintenance.caretaker import Caretaker
from worker.processes import WorkerProcesses, process_name

WORKER = "c0ffee01"


@pytest.fixture
def family() -> WorkerProcesses:
    """The processes of a worker whose parent is this one."""
    return WorkerProcesses(WORKER, getpid())


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def test_a_killed_child_is_missed_even_before_its_parent_has_waited_for_it(
    family: WorkerProcesses, child: subprocess.Popen[bytes]
) -> None:
    assert not family.has_lost_one()
    assert family.dead([process_name(WORKER, child.pid)]) == []
    child.kill()
    while not family.has_lost_one():
        pass
    assert not family.has_lost_one(), "it is missed once"
    assert family.dead([process_name(WORKER, child.pid)]) == [process_name(WORKER, child.pid)]


def test_the_processes_of_other_workers_and_of_a_host_renamed_are_none_of_its_business(
    family: WorkerProcesses, child: subprocess.Popen[bytes]
) -> None:
    others = [process_name("deadbeef", 1), "an-older-worker:7", "", f"{WORKER}@the-name-before:{child.pid}"]
    assert family.dead(others) == []


def test_a_parent_that_is_gone_has_no_children() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    family = WorkerProcesses(WORKER, process.pid)
    assert not family.has_lost_one()
    assert family.dead([process_name(WORKER, process.pid)]) == [], "that it is dead is not known, then"


def test_the_caretaker_frees_the_job_of_a_dead_child_and_no_other(
    sqlite_database: Database, world: World, family: WorkerProcesses, child: subprocess.Popen[bytes]
) -> None:
    dead, alive, elsewhere = (submit(sqlite_database, arguments={"path": f"/{name}"}) for name in "abc")
    claim(sqlite_database, dead, worker=process_name(WORKER, 2**22 + 1))  # above the highest process id of Linux
    claim(sqlite_database, alive, worker=process_name(WORKER, child.pid))
    claim(sqlite_database, elsewhere, worker=process_name("deadbeef", 2**22 + 1))
    with world.worker() as runtime:
        swept = Caretaker(runtime, lambda *messages: len(messages), family).sweep()
    assert swept.requeued == 1
    row = job_row(sqlite_database, dead)
    assert (row.state, row.crashes, row.error_code) == ("retrying", 1, "worker_died")
    assert outcomes(sqlite_database, dead) == ["died"]
    assert {job_row(sqlite_database, job_id).state for job_id in (alive, elsewhere)} == {"running"}


def test_revoked_jobs_are_cancelled_and_other_ids_ignored(sqlite_database: Database, world: World) -> None:
    waiting, running, late, done = (submit(sqlite_database, arguments={"path": f"/{name}"}) for name in "abcd")
    assert try_claim(sqlite_database, running) is not None
    change(sqlite_database, late, phase="completing", state="retrying")
    change(sqlite_database, done, state="succeeded")
    with world.worker() as runtime:
        caretaker = Caretaker(runtime, lambda *messages: len(messages))
        for job_id in (waiting, running, late, done, "a read's id"):
            caretaker.cancel(job_id)
        caretaker.sweep()
    assert job_row(sqlite_database, waiting).state == "cancelled"
    assert job_row(sqlite_database, running).cancel_requested, "its run will hear of it"
    assert not job_row(sqlite_database, late).cancel_requested
    assert job_row(sqlite_database, done).state == "succeeded"


def test_a_revoke_is_kept_while_the_database_is_away(sqlite_database: Database, world: World) -> None:
    job_id = submit(sqlite_database)
    with world.worker() as runtime:
        caretaker = Caretaker(runtime, lambda *messages: len(messages))
        caretaker.cancel(job_id)
        runtime.database = Database("postgresql://nobody@127.0.0.1:1/nowhere")
        caretaker.sweep()
        runtime.database = sqlite_database
        assert caretaker.sweep().changed == 1
    assert job_row(sqlite_database, job_id).state == "cancelled"


def test_owners_are_those_who_hold_a_lease(sqlite_database: Database) -> None:
    claim(sqlite_database, submit(sqlite_database), worker="one:1")
    submit(sqlite_database)
    with sqlite_database.begin() as session:
        assert queries.owners(session) == ["one:1"]
