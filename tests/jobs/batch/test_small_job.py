"""Which jobs a message takes along: only plain ones, in order, and never past a job that is in line before them."""

import threading
from typing import Any

import pytest

from models import Database
from models.queries import BatchedJob
from tests.jobs.batch.batch_world import BatchWorld, Told, on_each_kind
from tests.jobs.job_world import on_each_database
from tests.models.rows import ago, at_once
from worker.driver import Driver
from worker.jobs.outcome import Finished, NotClaimed
from worker.jobs.path_holds import holds_of
from worker.jobs.runner import run_job


@on_each_database
@on_each_kind
def test_the_next_jobs_are_taken_highest_priority_first_then_the_oldest(world: BatchWorld) -> None:
    low, first, high, usual, late = (
        world.small(number, priority=priority) for number, priority in enumerate([0, 3, 7, 3, 3])
    )
    told = world.run_batch(first, transfer={"batch_jobs": 4})
    assert told.jobs == [high, usual, late]
    assert world.job_row(low).state == "queued"


def test_a_batch_ends_at_the_number_of_jobs_that_is_set(world: BatchWorld) -> None:
    jobs = world.some(6)
    assert world.run_batch(jobs[0], transfer={"batch_jobs": 3}).jobs == jobs[1:3]
    assert world.run_batch(jobs[3], transfer={"batch_jobs": 1}).jobs == []
    assert world.states(jobs) == ["succeeded"] * 4 + ["queued"] * 2


@on_each_database
def test_a_batch_ends_at_eight_mebibytes(world: BatchWorld) -> None:
    contents = bytes(1024 * 1024)
    jobs = [world.small(number, contents=contents) for number in range(10)]
    world.part_size = 16 * len(contents)
    assert world.run_batch(jobs[0]).jobs == jobs[1:8]


ODD: dict[str, dict[str, Any]] = {
    "has a deadline": {"deadline": ago(-3600)},
    "is to be followed": {"message_options": {"link": []}},
    "is paused": {"pause_requested": True},
    "is cancelled": {"cancel_requested": True},
    "is not due": {"run_at": ago(-3600), "not_before": ago(-3600)},
    "has run before": {"attempt": 1, "state": "retrying"},
    "was begun": {"attempt": 1},
    "waits for another": {"waits_for": "another"},
    "has another storage": {"storage": "cold"},
    "has another queue": {"queue": "slow"},
    "is of a newer client": {"request_version": 99},
}


@on_each_database
@on_each_kind
@pytest.mark.parametrize("why", ODD)
def test_a_job_that_is_unusual_is_not_taken_along(why: str, world: BatchWorld) -> None:
    jobs = world.some(3)
    world.change(jobs[1], **ODD[why])
    assert world.run_batch(jobs[0]).jobs == [jobs[2]]
    assert world.seen_at(1) is None


@on_each_kind
@pytest.mark.parametrize("why", ["has a deadline", "is to be followed", "was begun"])
def test_a_job_that_is_unusual_runs_alone(why: str, world: BatchWorld) -> None:
    jobs = world.some(3)
    world.change(jobs[0], **ODD[why])
    told = world.run_batch(jobs[0])
    assert isinstance(told.first, Finished)
    assert (told.jobs, world.states(jobs)) == ([], ["succeeded", "queued", "queued"])


@on_each_kind
def test_jobs_of_another_kind_are_not_taken_along(kind: str, world: BatchWorld) -> None:
    """Of the others, write_stream takes no http sources, which may be of any size, and no blobs, which hold a path."""
    source = world.file
    others: dict[str, dict[str, Any]] = {
        "contents": {"operation": "put_content", "contents": b"other"},
        "files": {"operation": "write_stream", "source": source.as_uri()},
        "http": {"operation": "write_stream", "source": "http://192.0.2.1/other"},
        "blob": {"operation": "write_stream", "source": "blob://default/small/other"},
        "append": {"operation": "write_stream", "source": source.as_uri(), "offset": 3},
    }
    del others[kind]
    first = world.small(0)
    left = [world.ask(path=f"/small/{name}", **arguments) for name, arguments in others.items()]
    last = world.small(2)
    assert world.run_batch(first).jobs == [last]
    assert world.states(left) == ["queued"] * len(left)


def test_an_outdated_message_takes_nothing(world: BatchWorld) -> None:
    jobs = world.some(2)
    with world.worker() as runtime:
        assert run_job(runtime, jobs[0], publish_seq=7) == NotClaimed()
    assert world.states(jobs) == ["queued"] * 2


def test_the_message_of_a_job_that_another_run_has_claimed_takes_nothing(world: BatchWorld) -> None:
    jobs = world.some(2)
    world.claim(jobs[0], worker="another:1")
    assert world.run_batch(jobs[0]).first == NotClaimed()
    assert world.states(jobs) == ["running", "queued"]


def test_a_worker_that_lately_failed_for_want_of_the_storage_runs_each_alone(world: BatchWorld) -> None:
    jobs = world.some(2)
    with world.worker() as runtime:
        world.note_lack(runtime.worker_id, runtime.worker_name, "storages.default", "denied")
        told = Told()
        assert isinstance(world.deliver(runtime, jobs[0], told), Finished)
    assert (told.jobs, world.states(jobs)) == ([], ["succeeded", "queued"])
    assert world.count_rows("blobferry_lacks") == 0, "as it has succeeded"


@on_each_kind
def test_a_worker_that_lately_lacked_a_directory_runs_jobs_of_files_alone(kind: str, world: BatchWorld) -> None:
    """The directory may be one of theirs, and whoever succeeds forgets that it was lacking."""
    jobs = world.some(2)
    with world.worker() as runtime:
        world.note_lack(runtime.worker_id, runtime.worker_name, f"directory {world.file.parent}", "not there")
        told = Told()
        assert isinstance(world.deliver(runtime, jobs[0], told), Finished)
    assert told.jobs == ([] if kind == "files" else jobs[1:])
    assert world.count_rows("blobferry_lacks") == (0 if kind == "files" else 1)


# --- paths -----------------------------------------------------------------------------------------------------------


@on_each_database
@on_each_kind
def test_of_two_jobs_for_one_path_only_the_earlier_is_taken_whatever_its_priority(world: BatchWorld) -> None:
    first, earlier, later = world.small(0), world.small(1), world.small(1, contents=b"later", priority=9)
    assert world.run_batch(first).jobs == [earlier]
    assert (world.seen_at(1), world.job_row(later).state) == (b"job 1", "queued")
    world.succeed_alone(later)
    assert world.seen_at(1) == b"later"


BEFORE: dict[str, tuple[str, dict[str, Any]]] = {
    "a delete of the path": ("delete", {"path": "/small/1"}),
    "a delete of a directory above it": ("delete", {"path": "/small"}),
    "a move from it": ("move", {"source_path": "/small/1", "dest_path": "/elsewhere"}),
    "a move to it": ("move", {"source_path": "/elsewhere", "dest_path": "/small/1"}),
    "a reader": ("read_stream", {"path": "/small/1", "dest": "file:///srv/x"}),
    "a copy of it": ("write_stream", {"path": "/elsewhere", "source": "blob://default/small/1"}),
    "a move to it from another storage": (
        "move",
        {"storage": "cold", "source_path": "/x", "dest_path": "/small/1", "dest_storage": "default"},
    ),
}


@on_each_database
@pytest.mark.parametrize("what", BEFORE)
@pytest.mark.parametrize("is_running", [False, True], ids=["queued", "running"])
def test_a_job_is_not_taken_past_one_in_line_before_it(what: str, is_running: bool, world: BatchWorld) -> None:
    operation, arguments = BEFORE[what]
    earlier = world.ask(operation, **arguments)
    if is_running:
        world.claim(earlier, worker="another:1")
    first, blocked, free = world.small("a/0"), world.small(1), world.small("a/2")
    if "directory" in what:
        first, free = world.small(0, path="/b/0"), world.small(2, path="/b/2")
    assert free in world.run_batch(first).jobs
    assert world.job_row(blocked).state == "queued"
    if not is_running:
        alone = world.run_batch(blocked)
        assert isinstance(alone.first, NotClaimed)
        assert world.job_row(blocked).waits_for == earlier


@on_each_database
@pytest.mark.parametrize("what", BEFORE)
def test_a_job_is_not_taken_while_a_later_one_holds_its_path(what: str, world: BatchWorld) -> None:
    """It was claimed before this one was due."""
    operation, arguments = BEFORE[what]
    blocked = world.small(1)
    first = world.small(0, path="/b/0")
    world.change(blocked, not_before=ago(-3600), run_at=ago(-3600))
    later = world.ask(operation, **arguments)
    with world.worker() as runtime:
        world.claim(later, worker="another:1", holds=lambda job: holds_of(job, runtime.drivers))
    world.change(blocked, not_before=None, run_at=None)
    assert world.run_batch(first).jobs == []
    assert world.job_row(blocked).state == "queued"


@on_each_database
@on_each_kind
def test_storages_that_share_a_bucket_share_its_paths(world: BatchWorld) -> None:
    """The other storage's root is a directory of this one."""
    earlier = world.ask("put_content", path="/1", contents=b"x", storage="inner")
    first, blocked, free = world.small(0), world.small(1), world.small(2)
    with world.worker() as runtime:
        runtime._drivers = {
            "default": Driver(world.memory, engine=runtime.engine),
            "inner": Driver(world.memory, root="small", engine=runtime.engine),
        }
        told = Told()
        world.deliver(runtime, first, told)
    assert told.jobs == [free]
    assert world.states([earlier, blocked]) == ["queued"] * 2


@on_each_database
@on_each_kind
def test_the_end_of_a_batch_wakes_whoever_waits_for_one_of_its_jobs(world: BatchWorld) -> None:
    jobs = world.some(3)
    waiting = world.small(1, contents=b"next")
    world.run_batch(waiting)
    assert world.job_row(waiting).waits_for == jobs[1]
    world.run_batch(jobs[0])
    assert world.job_row(waiting).waits_for is None
    world.succeed_alone(waiting)
    assert world.seen_at(1) == b"next"


# --- races -----------------------------------------------------------------------------------------------------------


class Racing(Told):
    """Counts how often each job is claimed."""

    def __init__(self, claimed: list[str], lock: threading.Lock) -> None:
        super().__init__()
        self._all, self._lock = claimed, lock

    def claimed(self, jobs: Any) -> None:
        super().claimed(jobs)
        with self._lock:
            self._all += self.jobs


@on_each_database
@on_each_kind
def test_batches_that_race_for_the_same_jobs_take_each_once(world: BatchWorld) -> None:
    jobs = world.some(24)
    claimed: list[str] = []
    lock = threading.Lock()
    url = world.database.engine.url.render_as_string(hide_password=False)
    databases = [Database(url) for _ in range(4)]

    def race(position: int) -> None:
        with world.worker(database=databases[position], transfer={"batch_jobs": 5}) as runtime:
            for job_id in jobs[position::4]:
                world.deliver(runtime, job_id, Racing(claimed, lock))

    at_once(4, race)
    for database in databases:
        database.close()
    assert len(claimed) == len(set(claimed)), "no job is taken along twice"
    world.assert_done(jobs)


def test_a_claim_of_many_rows_is_a_batch_in_the_order_of_the_queue(world: BatchWorld) -> None:
    jobs = world.some(3)
    seen: list[BatchedJob] = []

    class Keeping(Told):
        def claimed(self, jobs: Any) -> None:
            seen.extend(jobs)

    with world.worker() as runtime:
        world.deliver(runtime, jobs[0], Keeping())
    assert [(job.id, job.token, job.attempt, job.publish_seq) for job in seen] == [
        (job_id, 1, 1, 1) for job_id in jobs[1:]
    ]
