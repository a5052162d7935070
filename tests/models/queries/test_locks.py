"""Path locks: one writer or many readers at a time for each path of a bucket, in the order of their submission."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest
from sqlalchemy import event, select, update

from blobferry.contract import JobState
from blobferry.errors import JobError
from blobferry.jobs import control
from models import Database, JobRow, PathLockRow, queries
from models.queries import claims, locks
from models.queries.blockers import Hold
from models.queries.conditions import claimable
from tests.doubles import tiny_store
from tests.models.rows import LEASE, Rows, ago, submit
from worker.driver import Driver
from worker.errors import StoreUnavailableError
from worker.jobs.path_holds import holds_of

pytestmark = pytest.mark.no_cover

_bucket = tiny_store()


DRIVERS = {
    "default": Driver(_bucket),
    "cold": Driver(tiny_store(bucket="cold")),
    "videos": Driver(_bucket, root="/videos"),  # the same bucket, further down
}


class Line(Rows):
    """Jobs in a database, and workers that want them."""

    def write(self, path: str = "/a", *, storage: str = "default", **columns: Any) -> str:
        return self.ask("write_stream", columns, path=path, source="file:///srv/a", storage=storage)

    def move(self, source: str, dest: str, *, to: str | None = None, **columns: Any) -> str:
        return self.ask("move", columns, source_path=source, dest_path=dest, **({"dest_storage": to} if to else {}))

    def delete(self, path: str, *, storage: str = "default", **columns: Any) -> str:
        return self.ask("delete", columns, path=path, storage=storage)

    def read(self, path: str, *, storage: str = "default", **columns: Any) -> str:
        return self.ask("read_stream", columns, path=path, dest="file:///srv/x", storage=storage)

    def copy(self, source: str, dest: str, **columns: Any) -> str:
        """A write from ``source``, ``storage/path``, to ``dest``."""
        return self.ask("write_stream", columns, path=dest, source=f"blob://{source}")

    def ask(self, operation: str, columns: Mapping[str, Any], **arguments: Any) -> str:
        return submit(self.database, operation=operation, arguments=arguments, **columns)

    def take(self, job_id: str, drivers: Mapping[str, Driver] = DRIVERS) -> Any:
        """What a worker gets that claims the job."""
        return self.try_claim(job_id, holds=lambda job: holds_of(job, drivers))

    def has(self, job_id: str) -> bool:
        return self.take(job_id) is not None

    def finish(self, job_id: str) -> None:
        self.finish_job(self.owned(job_id), {})

    def pause(self, job_id: str) -> None:
        self.change(job_id, pause_requested=True)
        self.pause_job(self.owned(job_id), paused_upload_seconds=60)

    def not_yet(self, job_id: str) -> None:
        self.change(job_id, not_before=ago(-3600), run_at=ago(-3600))

    def now_due(self, job_id: str) -> None:
        self.change(job_id, not_before=ago(1), run_at=ago(1))

    def out_of_turn(self) -> tuple[str, str]:
        """Two jobs of one path; the second holds it, for the first was not to run when it began."""
        first, second = self.write(), self.write()
        self.not_yet(first)
        assert self.has(second)
        return first, second

    def locks(self) -> set[tuple[str, str]]:
        with self.database.begin() as session:
            return {(lock.job_id, lock.path) for lock in session.scalars(select(PathLockRow))}

    def waits_for(self, job_id: str) -> str | None:
        found: str | None = self.job_row(job_id).waits_for
        return found

    def claimable(self) -> set[str]:
        return {job.id for job in self.jobs_to_publish(limit=100)}


@pytest.fixture
def line(database: Database) -> Line:
    return Line(database)


@pytest.fixture
def postgres_line(postgres_database: Database) -> Line:
    return Line(postgres_database)


#: Two jobs, submitted in this order, that need the same path.
OVERLAPPING: dict[str, Callable[[Line], tuple[str, str]]] = {
    "write and write": lambda line: (line.write("/a"), line.write("/a")),
    "write and read": lambda line: (line.write("/a"), line.read("/a")),
    "write and move from": lambda line: (line.write("/a"), line.move("/a", "/b")),
    "move from and write": lambda line: (line.move("/a", "/b"), line.write("/a")),
    "move to and write": lambda line: (line.move("/b", "/a"), line.write("/a")),
    "moves that cross": lambda line: (line.move("/a", "/b"), line.move("/b", "/a")),
    "a chain of moves": lambda line: (line.move("/a", "/b"), line.move("/b", "/c")),
    "delete and write below": lambda line: (line.delete("/a"), line.write("/a/b/c")),
    "write below and delete": lambda line: (line.write("/a/b/c"), line.delete("/a")),
    "move from below and delete": lambda line: (line.move("/a/b", "/z"), line.delete("/a")),
    "move to below and delete": lambda line: (line.move("/z", "/a/b"), line.delete("/a")),
    "delete and delete below": lambda line: (line.delete("/a"), line.delete("/a/b")),
    "delete below and delete": lambda line: (line.delete("/a/b"), line.delete("/a")),
    "move to another storage and write there": lambda line: (
        line.move("/a", "/b", to="cold"),
        line.write("/b", storage="cold"),
    ),
    "one blob by two names": lambda line: (line.write("/videos/7"), line.write("/7", storage="videos")),
    "delete of all that a storage holds": lambda line: (line.write("/7", storage="videos"), line.delete("/videos")),
    "delete above by another name": lambda line: (line.delete("/7", storage="videos"), line.write("/videos/7/x")),
    "read and write": lambda line: (line.read("/a"), line.write("/a")),
    "read and delete": lambda line: (line.read("/a/b"), line.delete("/a")),
    "delete and read below": lambda line: (line.delete("/a"), line.read("/a/b")),
    "read and move from": lambda line: (line.read("/a"), line.move("/a", "/b")),
    "move to and read": lambda line: (line.move("/b", "/a"), line.read("/a")),
    "copy from and write": lambda line: (line.copy("default/a", "/b"), line.write("/a")),
    "write and copy from": lambda line: (line.write("/a"), line.copy("default/a", "/b")),
    "copy from and delete": lambda line: (line.copy("default/a", "/b"), line.delete("/a")),
    "copy from below and delete": lambda line: (line.copy("default/a/b/c", "/z"), line.delete("/a")),
    "delete and copy from below": lambda line: (line.delete("/a"), line.copy("default/a/b/c", "/z")),
    "copy from and move from": lambda line: (line.copy("default/a", "/b"), line.move("/a", "/c")),
    "move to and copy from": lambda line: (line.move("/c", "/a"), line.copy("default/a", "/b")),
    "copies that cross": lambda line: (line.copy("default/a", "/b"), line.copy("default/b", "/a")),
    "a chain of copies": lambda line: (line.copy("default/a", "/b"), line.copy("default/b", "/c")),
    "copy onto itself and read": lambda line: (line.copy("default/a", "/a"), line.read("/a")),
    "copy from another storage and write there": lambda line: (
        line.copy("cold/a", "/b"),
        line.write("/a", storage="cold"),
    ),
    "copy from another storage and delete there": lambda line: (
        line.copy("cold/a/b", "/b"),
        line.delete("/a", storage="cold"),
    ),
    "move to another storage and copy from there": lambda line: (
        line.move("/a", "/b", to="cold"),
        line.copy("cold/b", "/c"),
    ),
    "copy from a blob by another name and write": lambda line: (line.copy("videos/7", "/b"), line.write("/videos/7")),
    "delete of all that a storage holds and copy from there": lambda line: (
        line.delete("/videos"),
        line.copy("videos/7", "/b"),
    ),
    "copy from a storage and delete of all that it holds": lambda line: (
        line.copy("videos/7", "/b"),
        line.delete("/videos"),
    ),
    "write and copy from a source spelled otherwise": lambda line: (
        line.write("/a"),
        line.submit(arguments={"path": "/b", "source": "BLOB://default/a?#"}),
    ),
    "copy from a source spelled otherwise and delete": lambda line: (
        line.submit(arguments={"path": "/b", "source": "Blob://default/a"}),
        line.delete("/a"),
    ),
}


@pytest.mark.parametrize("kind", OVERLAPPING)
def test_the_second_of_two_jobs_that_need_one_path_waits_for_the_first(line: Line, kind: str) -> None:
    first, second = OVERLAPPING[kind](line)
    assert not line.has(second), "it is not first in line, although no job runs"
    assert line.waits_for(second) == first
    assert second not in line.claimable(), "it is not published meanwhile"
    assert line.has(first)
    assert not line.has(second)
    line.finish(first)
    assert line.waits_for(second) is None
    assert line.has(second)
    assert {job_id for job_id, _ in line.locks()} == {second}


@pytest.mark.parametrize("kind", OVERLAPPING)
def test_a_job_that_got_its_path_out_of_turn_keeps_it_to_its_end(line: Line, kind: str) -> None:
    """The first was not to run yet when the second began."""
    first, second = OVERLAPPING[kind](line)
    line.not_yet(first)
    assert line.has(second)
    line.now_due(first)
    assert not line.has(first)
    assert line.waits_for(first) == second
    line.expire_lease(second)
    assert line.has(second), "it does not wait for the job that waits for it"
    line.finish(second)
    assert line.has(first)


#: Two jobs that do not need the same path.
APART: dict[str, Callable[[Line], tuple[str, str]]] = {
    "siblings": lambda line: (line.write("/a"), line.write("/b")),
    "a name and a longer one": lambda line: (line.delete("/a"), line.write("/ab")),
    "the longer one first": lambda line: (line.write("/ab"), line.delete("/a")),
    "a wildcard of SQL": lambda line: (line.write("/axb/c"), line.delete("/a_b")),
    "other letters, the delete first": lambda line: (line.delete("/a"), line.write("/A/b")),
    "other letters, the delete last": lambda line: (line.write("/A/b"), line.delete("/a")),
    "a blob and what lies below": lambda line: (line.write("/a"), line.write("/a/b")),
    "another storage": lambda line: (line.write("/a"), line.write("/a", storage="cold")),
    "a move's paths on the other storage": lambda line: (
        line.move("/a", "/b", to="cold"),
        line.move("/b", "/a", to="cold"),
    ),
    "the same path below another root": lambda line: (line.write("/7"), line.write("/7", storage="videos")),
    "two reads": lambda line: (line.read("/a"), line.read("/a")),
    "two copies of one blob": lambda line: (line.copy("default/a", "/b"), line.copy("default/a", "/c")),
    "a read and a copy by another name": lambda line: (line.read("/videos/7"), line.copy("videos/7", "/b")),
    "a copy from another storage and a write here": lambda line: (line.copy("cold/a", "/b"), line.write("/a")),
    "a copy from a longer name and a delete": lambda line: (line.copy("default/ab", "/z"), line.delete("/a")),
    "a delete and a copy from other letters": lambda line: (line.delete("/a"), line.copy("default/A/b", "/z")),
    "a move away and a copy of what it left alone": lambda line: (line.move("/a", "/b"), line.copy("default/c", "/d")),
}


@pytest.mark.parametrize("kind", APART)
def test_jobs_of_different_paths_run_side_by_side(line: Line, kind: str) -> None:
    first, second = APART[kind](line)
    assert line.has(second)
    assert line.has(first)


def test_a_move_onto_itself_does_not_wait(line: Line) -> None:
    assert line.has(line.move("/a", "/a"))


def test_a_write_waits_for_every_reader_before_it_and_holds_back_those_after_it(line: Line) -> None:
    first, second = line.read("/a"), line.copy("default/a", "/b")
    write, third = line.write("/a"), line.read("/a")
    assert line.has(first)
    assert line.has(second)
    for reader in (second, first):
        assert not line.has(write)
        assert not line.has(third), "readers that keep coming would hold up a write for ever"
        line.finish(reader)
    assert line.has(write)
    assert not line.has(third)
    line.finish(write)
    assert line.has(third)


def test_a_job_that_holds_a_path_for_reading_and_needs_it_for_itself_by_now_waits_for_other_readers(line: Line) -> None:
    """Two storages have become names of one bucket meanwhile: it copies a blob onto itself now."""
    reader, copy = line.read("/7", storage="videos"), line.copy("cold/videos/7", "/videos/7")
    assert line.has(reader)
    apart = {"default": Driver(tiny_store(bucket="elsewhere")), "cold": Driver(_bucket)}
    assert line.take(copy, apart) is not None
    line.release_job(line.owned(copy), JobState.QUEUED)
    joined = DRIVERS | {"cold": Driver(_bucket)}
    assert line.take(copy, joined) is None
    line.finish(reader)
    assert line.take(copy, joined) is not None
    assert not line.has(line.read("/7", storage="videos"))


def test_jobs_of_one_path_run_in_the_order_of_their_submission(line: Line) -> None:
    jobs = [line.write("/a") for _ in range(5)]
    order = []
    for _ in jobs:
        (winner,) = (job_id for job_id in reversed(jobs) if job_id not in order and line.has(job_id))
        line.finish(winner)
        order.append(winner)
    assert order == jobs


def test_each_of_a_long_line_waits_for_the_one_before_it(line: Line) -> None:
    jobs = [line.write("/a") for _ in range(4)]
    assert [line.has(job_id) for job_id in jobs] == [True, False, False, False]
    assert [line.waits_for(job_id) for job_id in jobs] == [None, *jobs[:-1]]


@pytest.mark.parametrize("ending", ["cancelled", "failed", "died too often"])
def test_a_waiting_job_may_run_however_its_blocker_ends(line: Line, ending: str) -> None:
    first, second = line.write("/a"), line.write("/a")
    job = line.take(first)
    assert job is not None
    assert not line.has(second)
    if ending == "cancelled":
        line.cancel_job(job)
    elif ending == "failed":
        line.fail_job(job, StoreUnavailableError("503"), failed_upload_seconds=60)
    else:
        line.change(first, crash_streak=5, lease_expires_at=ago(1))
        assert not line.has(first)
    assert line.job_row(first).state in ("cancelled", "failed")
    assert line.has(second)


def test_a_job_keeps_its_path_between_two_slices_two_attempts_and_two_looks(line: Line) -> None:
    first, second = line.write("/a"), line.write("/a")
    for state in (JobState.QUEUED, JobState.RETRYING, JobState.VERIFYING):
        job = line.take(first)
        assert job is not None
        line.release_job(job, state, delay=60)
        assert not line.has(second)
        line.change(first, run_at=ago(1))


def test_a_paused_job_without_an_upload_holds_no_place(line: Line) -> None:
    first, second, third = line.write("/a"), line.write("/a"), line.write("/a")
    assert line.has(first)
    assert not line.has(second)
    line.pause(first)
    assert line.has(second)
    line.change(first, state="queued", pause_requested=False)
    assert not line.has(first)
    assert line.waits_for(first) == second
    line.finish(second)
    assert not line.has(third), "the first is before it in line again"
    assert line.has(first)


def test_a_paused_job_keeps_its_place_as_long_as_it_keeps_its_upload(line: Line) -> None:
    first, second = line.write("/a"), line.write("/a")
    assert line.has(first)
    upload = line.add_upload(first)
    line.pause(first)
    assert not line.has(second)
    line.change_upload(upload, state="aborting")
    assert line.drop_stale_locks() == 1
    assert line.has(second)


def test_a_job_before_its_time_holds_no_place(line: Line) -> None:
    later = line.write("/a", not_before=ago(-60), run_at=ago(-60))
    assert line.has(line.write("/a"))
    assert line.job_row(later).state == "queued"


def test_the_caretaker_frees_who_waits_for_a_job_that_ended_meanwhile(line: Line) -> None:
    """The blocker's end and the waiter's claim may have been committed side by side."""
    first, second = line.write("/a"), line.write("/a")
    assert not line.has(second)
    line.change(first, state="succeeded")
    third = line.write("/b")
    line.change(third, waits_for="pruned")
    assert line.drop_stale_locks() == 2
    assert line.has(second)
    assert line.has(third)


def test_a_claim_that_must_wait_changes_nothing_else(line: Line) -> None:
    first, second = line.write("/a"), line.write("/a")
    assert line.has(first)
    before = line.job_row(second).as_row()
    assert not line.has(second)
    after = line.job_row(second).as_row()
    assert {name for name in before if before[name] != after[name]} == {"waits_for"}


@pytest.mark.parametrize("how", ["end", "pause"])
def test_a_job_does_not_wait_for_one_that_is_just_giving_up_its_place(line: Line, how: str) -> None:
    """The blocker wakes only the jobs that wait by then; one that came later would wait for ever."""
    first, second = line.write("/a"), line.write("/a")
    assert line.has(first)
    line.change(first, pause_requested=how == "pause")
    with ThreadPoolExecutor(1) as worker:
        with line.database.begin() as session:
            if how == "end":
                queries.finish_job(session, line.owned(first), {})
            else:
                queries.pause_job(session, line.owned(first), paused_upload_seconds=60)
            claim = worker.submit(line.has, second)
            wait({claim}, timeout=1)  # it waits for the end, or has looked too early
        claim.result(timeout=30)
    assert line.waits_for(second) is None


def test_a_revoke_of_two_jobs_of_one_path_is_no_deadlock(line: Line) -> None:
    """A claim that has to wait locks the job before its own, then its own: a revoke takes them in that order, too."""
    jobs = [line.write("/a"), line.write("/a")]
    line.change(jobs[0], priority=1)  # it is behind the other one now, where the table is read as it lies

    def revoke() -> Any:
        return line.request_cancel(list(reversed(jobs)))

    with ThreadPoolExecutor(1) as caretaker:
        with line.database.begin() as session:
            session.execute(select(JobRow.id).where(JobRow.id == jobs[0]).with_for_update(read=True))
            revoked = caretaker.submit(revoke)
            wait({revoked}, timeout=1)
            session.execute(update(JobRow).where(JobRow.id == jobs[1]).values(waits_for=jobs[0]))
        assert revoked.result(timeout=30) == 2


def test_workers_that_race_never_hold_one_path_at_once(line: Line) -> None:
    """Two workers claim overlapping jobs as fast as they can; each run notes its paths and ends at once."""
    paths = ["/a", "/a/b", "/a/b/c"]
    jobs = [
        job_id
        for path in paths
        for job_id in (
            line.write(path),
            line.read(path),
            line.delete("/a"),
            line.move(path, "/z"),
            line.copy(f"default{path}", "/y"),
            line.move("/z", path),
        )
    ]
    held = dict[str, list[Hold]]()
    lock = threading.Lock()
    clashes = list[tuple[str, str]]()

    def work(mine: list[str]) -> None:
        while any(line.job_row(job_id).state != "succeeded" for job_id in mine):
            for job_id in mine:
                job = line.take(job_id)
                if job is None:
                    continue
                wanted = holds_of(job, DRIVERS)
                with lock:
                    clashes.extend((job_id, other) for other, holds in held.items() if clash(wanted, holds))
                    held[job_id] = wanted
                with lock:
                    del held[job_id]
                line.finish(job_id)

    with ThreadPoolExecutor(2) as workers:
        for done in [workers.submit(work, list(reversed(jobs))), workers.submit(work, jobs)]:
            done.result(timeout=100)
    assert clashes == []
    assert line.locks() == set()


def clash(some: list[Hold], others: list[Hold]) -> bool:
    return any(overlap(one, other) or overlap(other, one) for one in some for other in others)


def overlap(one: Hold, other: Hold) -> bool:
    is_below = one.is_tree and other.key.startswith(f"{one.key}/")
    return (one.key == other.key or is_below) and not (one.is_shared and other.is_shared)


def test_a_bucket_that_gets_another_name_makes_no_two_jobs_wait_for_each_other(line: Line) -> None:
    first, second = line.out_of_turn()
    line.now_due(first)
    assert line.take(first) is None
    line.release_job(line.owned(second), JobState.QUEUED)
    renamed = {"default": Driver(tiny_store(bucket="renamed"))}
    assert line.take(second, renamed) is None
    assert line.take(first, renamed) is not None


def test_two_jobs_that_wait_for_each_other_are_freed_by_the_caretaker(line: Line) -> None:
    """However that came about: only who holds something may be waited for from ahead in line."""
    first, second = line.submit(), line.submit()
    line.change(first, waits_for=second)
    line.change(second, waits_for=first)
    assert line.drop_stale_locks() == 1
    assert line.take(first) is not None


def test_a_wakeup_that_is_lost_and_a_retry_make_no_circle(postgres_line: Line) -> None:
    """The first job's claim finds the second holding the path, while that one's last transaction is still open."""
    first, second = postgres_line.out_of_turn()
    postgres_line.now_due(first)
    with postgres_line.database.begin() as session:
        queries.fail_job(session, postgres_line.owned(second), JobError("x"))
        claiming = threading.Thread(target=postgres_line.take, args=(first,))
        claiming.start()
        claiming.join(1)
    claiming.join()
    control.retry(postgres_line.database.engine, second)
    for _ in range(2):
        if any(postgres_line.take(job_id) for job_id in (second, first)):
            return
        postgres_line.drop_stale_locks()
    pytest.fail("they wait for each other")


def test_a_job_that_is_resumed_while_its_locks_are_dropped_takes_them_anew(postgres_line: Line) -> None:
    first, second = postgres_line.out_of_turn()
    upload = postgres_line.add_upload(second)
    control.pause(postgres_line.database.engine, second)
    postgres_line.pause_job(postgres_line.owned(second), paused_upload_seconds=1)
    postgres_line.change_upload(upload, state="gone")
    taken: list[JobRow | None] = []
    with postgres_line.database.begin() as session:
        queries.drop_stale_locks(session)
        control.resume(postgres_line.database.engine, second)
        claiming = threading.Thread(target=lambda: taken.append(postgres_line.take(second)))
        claiming.start()
        claiming.join(0.5)
    claiming.join()
    postgres_line.now_due(first)
    assert (postgres_line.take(first) is None) == (taken[0] is not None), "one of them has the path"
    assert len({holder for holder, _ in postgres_line.locks()}) == 1


def test_a_job_that_another_worker_runs_by_now_keeps_its_locks(postgres_line: Line) -> None:
    """A claim had to wait, and let go of the row before it wrote that down; the same message came twice."""
    first, blocker = postgres_line.out_of_turn()
    job_id = postgres_line.submit()
    with postgres_line.database.begin() as session:
        savepoint = session.begin_nested()
        job = claims._update_claimed(session, JobRow.id == job_id, *claimable(), worker="w2", lease_seconds=LEASE)
        assert job is not None
        assert locks.take_locks(session, job, holds_of(job, DRIVERS)) == blocker
        savepoint.rollback()
        with postgres_line.database.begin() as other:
            queries.finish_job(other, postgres_line.owned(blocker), {})
        assert postgres_line.take(job_id) is not None
        locks.wait_for(session, job_id, blocker)
    postgres_line.now_due(first)
    assert postgres_line.take(first) is None
    assert postgres_line.job_row(job_id).waits_for is None


def test_moves_in_opposite_directions_take_their_buckets_in_the_same_order(postgres_line: Line) -> None:
    """Else two claims at once would wait for each other."""
    there = {"source_path": "/a", "dest_path": "/b", "dest_storage": "cold"}
    back = {"source_path": "/c", "dest_path": "/d", "storage": "cold", "dest_storage": "default"}
    asked: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        if "pg_advisory_xact_lock" in statement:
            asked.append(parameters["bucket"])

    event.listen(postgres_line.database.engine, "before_cursor_execute", note)
    try:
        for arguments in (there, back):
            job_id = postgres_line.submit(operation="move", arguments=arguments)
            assert postgres_line.take(job_id) is not None
    finally:
        event.remove(postgres_line.database.engine, "before_cursor_execute", note)
    first, second = asked[:2], asked[2:]
    assert len(set(first)) == 2
    assert first == second


def test_a_search_for_stale_locks_goes_on_where_it_was_and_begins_anew_after_the_last(line: Line) -> None:
    search, found = queries.StaleSearch(), list[int]()
    for number in range(3):
        first, second = line.submit(job_id=f"holder-{number}", path=f"/{number}"), line.submit(path=f"/{number}")
        line.change(second, waits_for=first)
        line.change(first, state="succeeded")
    for _ in range(4):
        found.append(line.drop_stale_locks(search=search, limit=1))
        assert (search.blocker == "") == (len(found) == 4)
    assert found == [1, 1, 1, 0]
