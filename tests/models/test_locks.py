"""Path locks: one job at a time for each path of a bucket, in the order in which the jobs were submitted."""

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest
from sqlalchemy import event, select, update

from blobferry.contract import JobState
from blobferry.errors import JobError
from blobferry.jobs import control
from models import Database, JobRow, PathLockRow, queries
from models.queries import claims, locks
from models.queries.conditions import claimable
from tests.doubles import tiny_store
from tests.models.rows import (
    LEASE,
    add_upload,
    ago,
    change,
    change_upload,
    expire_lease,
    job_row,
    submit,
)
from worker.driver import Driver
from worker.errors import StoreUnavailableError
from worker.jobs.path_holds import holds_of

_bucket, _cold = tiny_store(), tiny_store(bucket="cold")
DRIVERS = {
    "default": Driver(_bucket),
    "cold": Driver(_cold),
    "videos": Driver(_bucket, root="/videos"),  # the same bucket, further down
}


class Line:
    """Jobs in a database, and workers that want them."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def write(self, path: str, **columns: Any) -> str:
        storage = columns.pop("storage", "default")
        return submit(self.database, arguments={"path": path, "storage": storage}, **columns)

    def move(self, source: str, dest: str, *, to: str | None = None, **columns: Any) -> str:
        arguments = {"source_path": source, "dest_path": dest} | ({"dest_storage": to} if to else {})
        return submit(self.database, operation="move", arguments=arguments, **columns)

    def delete(self, path: str, **columns: Any) -> str:
        storage = columns.pop("storage", "default")
        return submit(self.database, operation="delete", arguments={"path": path, "storage": storage}, **columns)

    def read(self, path: str) -> str:
        arguments = {"path": path, "dest": "file:///srv/x"}
        return submit(self.database, operation="read_stream", arguments=arguments)

    def take(self, job_id: str) -> JobRow | None:
        """What a worker gets that claims the job."""
        with self.database.begin() as session:
            return queries.claim_job(
                session, job_id, worker="w", lease_seconds=LEASE, holds=lambda job: holds_of(job, DRIVERS)
            )

    def has(self, job_id: str) -> bool:
        return self.take(job_id) is not None

    def finish(self, job_id: str) -> None:
        with self.database.begin() as session:
            queries.finish_job(session, self.row(job_id), {})

    def pause(self, job_id: str) -> None:
        change(self.database, job_id, pause_requested=True)
        with self.database.begin() as session:
            queries.pause_job(session, self.row(job_id), paused_upload_seconds=60)

    def row(self, job_id: str) -> JobRow:
        return job_row(self.database, job_id)

    def locks(self) -> set[tuple[str, str]]:
        with self.database.begin() as session:
            return {(lock.job_id, lock.path) for lock in session.scalars(select(PathLockRow))}

    def waits_for(self, job_id: str) -> str | None:
        return self.row(job_id).waits_for

    def claimable(self) -> set[str]:
        with self.database.begin() as session:
            return {job.id for job in queries.jobs_to_publish(session, limit=100)}


@pytest.fixture
def line(database: Database) -> Line:
    return Line(database)


def two(line: Line, kind: str) -> tuple[str, str]:
    """Two jobs, submitted in this order, that need the same path."""
    match kind:
        case "write and write":
            return line.write("/a"), line.write("/a")
        case "write and read":
            return line.write("/a"), line.read("/a")
        case "write and move from":
            return line.write("/a"), line.move("/a", "/b")
        case "move from and write":
            return line.move("/a", "/b"), line.write("/a")
        case "move to and write":
            return line.move("/b", "/a"), line.write("/a")
        case "moves that cross":
            return line.move("/a", "/b"), line.move("/b", "/a")
        case "a chain of moves":
            return line.move("/a", "/b"), line.move("/b", "/c")
        case "delete and write below":
            return line.delete("/a"), line.write("/a/b/c")
        case "write below and delete":
            return line.write("/a/b/c"), line.delete("/a")
        case "move from below and delete":
            return line.move("/a/b", "/z"), line.delete("/a")
        case "move to below and delete":
            return line.move("/z", "/a/b"), line.delete("/a")
        case "delete and delete below":
            return line.delete("/a"), line.delete("/a/b")
        case "delete below and delete":
            return line.delete("/a/b"), line.delete("/a")
        case "move to another storage and write there":
            return line.move("/a", "/b", to="cold"), line.write("/b", storage="cold")
        case "one blob by two names":
            return line.write("/videos/7"), line.write("/7", storage="videos")
        case "delete of all that a storage holds":
            return line.write("/7", storage="videos"), line.delete("/videos")
        case "delete above by another name":
            return line.delete("/7", storage="videos"), line.write("/videos/7/x")
    raise AssertionError(kind)


OVERLAPS = [
    "write and write",
    "write and read",
    "write and move from",
    "move from and write",
    "move to and write",
    "moves that cross",
    "a chain of moves",
    "delete and write below",
    "write below and delete",
    "move from below and delete",
    "move to below and delete",
    "delete and delete below",
    "delete below and delete",
    "move to another storage and write there",
    "one blob by two names",
    "delete of all that a storage holds",
    "delete above by another name",
]


@pytest.mark.parametrize("kind", OVERLAPS)
def test_the_second_of_two_jobs_that_need_one_path_waits_for_the_first(line: Line, kind: str) -> None:
    first, second = two(line, kind)
    assert not line.has(second), "it is not first in line, though nobody runs"
    assert line.waits_for(second) == first
    assert second not in line.claimable(), "it is nobody's burden meanwhile"
    assert line.has(first)
    assert not line.has(second)
    line.finish(first)
    assert line.waits_for(second) is None
    assert line.has(second)
    assert {job_id for job_id, _ in line.locks()} == {second}


@pytest.mark.parametrize("kind", OVERLAPS)
def test_a_job_that_got_its_path_out_of_turn_keeps_it_to_its_end(line: Line, kind: str) -> None:
    """The first was not to run yet when the second began."""
    first, second = two(line, kind)
    change(line.database, first, not_before=ago(-60), run_at=ago(-60))
    assert line.has(second)
    change(line.database, first, not_before=ago(1), run_at=ago(1))
    assert not line.has(first)
    assert line.waits_for(first) == second
    expire_lease(line.database, second)
    assert line.has(second), "it waits for nobody who waits for it"
    line.finish(second)
    assert line.has(first)


def apart(line: Line, kind: str) -> tuple[str, str]:
    match kind:
        case "siblings":
            return line.write("/a"), line.write("/b")
        case "a name and a longer one":
            return line.delete("/a"), line.write("/ab")
        case "the longer one first":
            return line.write("/ab"), line.delete("/a")
        case "a wildcard of SQL":
            return line.write("/axb/c"), line.delete("/a_b")
        case "other letters, the delete first":
            return line.delete("/a"), line.write("/A/b")
        case "other letters, the delete last":
            return line.write("/A/b"), line.delete("/a")
        case "a blob and what lies below":
            return line.write("/a"), line.write("/a/b")
        case "another storage":
            return line.write("/a"), line.write("/a", storage="cold")
        case "a move's paths on the other storage":
            return line.move("/a", "/b", to="cold"), line.move("/b", "/a", to="cold")
        case "the same path below another root":
            return line.write("/7"), line.write("/7", storage="videos")
    raise AssertionError(kind)


@pytest.mark.parametrize(
    "kind",
    [
        "siblings",
        "a name and a longer one",
        "the longer one first",
        "a wildcard of SQL",
        "other letters, the delete first",
        "other letters, the delete last",
        "a blob and what lies below",
        "another storage",
        "a move's paths on the other storage",
        "the same path below another root",
    ],
)
def test_jobs_of_different_paths_run_side_by_side(line: Line, kind: str) -> None:
    first, second = apart(line, kind)
    assert line.has(second)
    assert line.has(first)


def test_a_move_onto_itself_waits_for_nobody(line: Line) -> None:
    assert line.has(line.move("/a", "/a"))


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
def test_whoever_waits_goes_on_however_the_other_one_ends(line: Line, ending: str) -> None:
    first, second = line.write("/a"), line.write("/a")
    job = line.take(first)
    assert job is not None
    assert not line.has(second)
    with line.database.begin() as session:
        if ending == "cancelled":
            queries.cancel_job(session, job)
        elif ending == "failed":
            queries.fail_job(session, job, StoreUnavailableError("503"), keep_upload_seconds=60)
    if ending == "died too often":
        change(line.database, first, crash_streak=5, lease_expires_at=ago(1))
        assert not line.has(first)
    assert line.row(first).state in ("cancelled", "failed")
    assert line.has(second)


def test_a_job_keeps_its_path_between_two_slices_two_attempts_and_two_looks(line: Line) -> None:
    first, second = line.write("/a"), line.write("/a")
    for state in (JobState.QUEUED, JobState.RETRYING, JobState.VERIFYING):
        job = line.take(first)
        assert job is not None
        with line.database.begin() as session:
            queries.release_job(session, job, state, delay=60)
        assert not line.has(second)
        change(line.database, first, run_at=ago(1))


def test_a_paused_job_without_an_upload_holds_no_place(line: Line) -> None:
    first, second, third = line.write("/a"), line.write("/a"), line.write("/a")
    assert line.has(first)
    assert not line.has(second)
    line.pause(first)
    assert line.has(second)
    change(line.database, first, state="queued", pause_requested=False)
    assert not line.has(first)
    assert line.waits_for(first) == second
    line.finish(second)
    assert not line.has(third), "the first is before it in line again"
    assert line.has(first)


def test_a_paused_job_keeps_its_place_as_long_as_it_keeps_its_upload(line: Line) -> None:
    first, second = line.write("/a"), line.write("/a")
    assert line.has(first)
    upload = add_upload(line.database, first)
    line.pause(first)
    assert not line.has(second)
    change_upload(line.database, upload, state="aborting")
    with line.database.begin() as session:
        assert queries.drop_stale_locks(session) == 1
    assert line.has(second)


def test_a_job_before_its_time_holds_no_place(line: Line) -> None:
    later = line.write("/a", not_before=ago(-60), run_at=ago(-60))
    assert line.has(line.write("/a"))
    assert line.row(later).state == "queued"


def test_the_caretaker_frees_who_waits_for_a_job_that_ended_meanwhile(line: Line) -> None:
    """The blocker's end and the waiter's claim may have been committed side by side."""
    first, second = line.write("/a"), line.write("/a")
    assert not line.has(second)
    change(line.database, first, state="succeeded")
    third = line.write("/b")
    change(line.database, third, waits_for="pruned")
    with line.database.begin() as session:
        assert queries.drop_stale_locks(session) == 2
    assert line.has(second)
    assert line.has(third)


def test_a_claim_that_must_wait_changes_nothing_else(line: Line) -> None:
    first, second = line.write("/a"), line.write("/a")
    assert line.has(first)
    before = line.row(second).as_row()
    assert not line.has(second)
    after = line.row(second).as_row()
    assert {name for name in before if before[name] != after[name]} == {"waits_for"}


@pytest.mark.parametrize("how", ["end", "pause"])
def test_a_job_does_not_wait_for_one_that_is_just_giving_up_its_place(line: Line, how: str) -> None:
    """Whoever gives it up wakes those that wait by then: one that comes later would sleep."""
    first, second = line.write("/a"), line.write("/a")
    assert line.has(first)
    change(line.database, first, pause_requested=how == "pause")
    with ThreadPoolExecutor(1) as worker:
        with line.database.begin() as session:
            if how == "end":
                queries.finish_job(session, line.row(first), {})
            else:
                queries.pause_job(session, line.row(first), paused_upload_seconds=60)
            claim = worker.submit(line.has, second)
            wait({claim}, timeout=1)  # it waits for the end, or has looked too early
        claim.result(timeout=30)
    assert line.waits_for(second) is None


def test_a_revoke_of_two_jobs_of_one_path_is_no_deadlock(line: Line) -> None:
    """A claim that has to wait locks the job before its own, then its own: a revoke takes them in that order, too."""
    jobs = [line.write("/a"), line.write("/a")]
    change(line.database, jobs[0], priority=1)  # it is behind the other one now, where the table is read as it lies

    def revoke() -> int:
        with line.database.begin() as session:
            return queries.ask_to_cancel(session, list(reversed(jobs)))

    with ThreadPoolExecutor(1) as caretaker:
        with line.database.begin() as session:
            session.execute(select(JobRow.id).where(JobRow.id == jobs[0]).with_for_update(read=True))
            revoked = caretaker.submit(revoke)
            wait({revoked}, timeout=1)
            session.execute(update(JobRow).where(JobRow.id == jobs[1]).values(waits_for=jobs[0]))
        assert revoked.result(timeout=30) == 2


def test_workers_that_race_never_hold_one_path_at_once(line: Line) -> None:
    """Two workers claim overlapping jobs as fast as they can; whoever runs notes it, and ends a moment later."""
    paths = ["/a", "/a/b", "/a/b/c"]
    jobs = [
        job_id
        for path in paths
        for job_id in (line.write(path), line.delete("/a"), line.move(path, "/z"), line.move("/z", path))
    ]
    held = dict[str, str]()
    lock = threading.Lock()
    clashes = list[tuple[str, str]]()

    def work(mine: list[str]) -> None:
        while any(line.row(job_id).state != "succeeded" for job_id in mine):
            for job_id in mine:
                job = line.take(job_id)
                if job is None:
                    continue
                wanted = {hold.key: hold.is_tree for hold in holds_of(job, DRIVERS)}
                with lock:
                    clashes.extend((job_id, other) for key, other in held.items() if overlaps(wanted, key))
                    held.update(dict.fromkeys(wanted, job_id))
                with lock:
                    for key in wanted:
                        del held[key]
                line.finish(job_id)

    with ThreadPoolExecutor(2) as workers:
        for done in [workers.submit(work, list(reversed(jobs))), workers.submit(work, jobs)]:
            done.result(timeout=100)
    assert clashes == []
    assert line.locks() == set()


def overlaps(wanted: dict[str, bool], key: str) -> bool:
    return key in wanted or any(is_tree and key.startswith(f"{tree}/") for tree, is_tree in wanted.items())


ONE_DRIVER = {"default": Driver(tiny_store())}


def take(database: Database, job_id: str, drivers: dict[str, Driver] = ONE_DRIVER) -> JobRow | None:
    with database.begin() as session:
        return queries.claim_job(
            session, job_id, worker="w", lease_seconds=LEASE, holds=lambda job: holds_of(job, drivers)
        )


def out_of_turn(database: Database) -> tuple[str, str]:
    """Two jobs of one path; the second holds it, for the first was not to run when it began."""
    first, second = submit(database), submit(database)
    change(database, first, not_before=ago(-3600), run_at=ago(-3600))
    assert take(database, second) is not None
    return first, second


def now_due(database: Database, job_id: str) -> None:
    change(database, job_id, not_before=ago(1), run_at=ago(1))


def test_a_bucket_that_gets_another_name_makes_no_two_jobs_wait_for_each_other(database: Database) -> None:
    first, second = out_of_turn(database)
    now_due(database, first)
    assert take(database, first) is None
    with database.begin() as session:
        queries.release_job(session, job_row(database, second), JobState.QUEUED)
    renamed = {"default": Driver(tiny_store(bucket="renamed"))}
    assert take(database, second, renamed) is None
    assert take(database, first, renamed) is not None


def test_two_jobs_that_wait_for_each_other_are_freed_by_the_caretaker(database: Database) -> None:
    """However that came about: only who holds something may be waited for from ahead in line."""
    first, second = submit(database), submit(database)
    change(database, first, waits_for=second)
    change(database, second, waits_for=first)
    with database.begin() as session:
        assert queries.drop_stale_locks(session) == 1
    assert take(database, first) is not None


def test_a_wakeup_that_is_lost_and_a_retry_make_no_circle(postgres_database: Database) -> None:
    """The first job's claim finds the second holding the path, while that one's last transaction is still open."""
    first, second = out_of_turn(postgres_database)
    now_due(postgres_database, first)
    with postgres_database.begin() as session:
        queries.fail_job(session, job_row(postgres_database, second), JobError("x"))
        claiming = threading.Thread(target=take, args=(postgres_database, first))
        claiming.start()
        claiming.join(1)
    claiming.join()
    control.retry(postgres_database.engine, second)
    for _ in range(2):
        if any(take(postgres_database, job_id) for job_id in (second, first)):
            return
        with postgres_database.begin() as session:
            queries.drop_stale_locks(session)
    pytest.fail("they wait for each other")


def test_a_job_that_is_resumed_while_its_locks_are_dropped_takes_them_anew(postgres_database: Database) -> None:
    first, second = out_of_turn(postgres_database)
    upload = add_upload(postgres_database, second)
    control.pause(postgres_database.engine, second)
    with postgres_database.begin() as session:
        queries.pause_job(session, job_row(postgres_database, second), paused_upload_seconds=1)
    change_upload(postgres_database, upload, state="gone")
    taken: list[JobRow | None] = []
    with postgres_database.begin() as session:
        queries.drop_stale_locks(session)
        control.resume(postgres_database.engine, second)
        claiming = threading.Thread(target=lambda: taken.append(take(postgres_database, second)))
        claiming.start()
        claiming.join(0.5)
    claiming.join()
    now_due(postgres_database, first)
    assert (take(postgres_database, first) is None) == (taken[0] is not None), "one of them has the path"
    with postgres_database.begin() as session:
        holders = set(session.scalars(select(PathLockRow.job_id)))
    assert len(holders) == 1


def test_a_job_that_another_worker_runs_by_now_keeps_its_locks(postgres_database: Database) -> None:
    """A claim had to wait, and let go of the row before it wrote that down; the same message came twice."""
    first, blocker = out_of_turn(postgres_database)
    job_id = submit(postgres_database)
    with postgres_database.begin() as session:
        savepoint = session.begin_nested()
        job = claims._take(session, JobRow.id == job_id, *claimable(), worker="w2", lease_seconds=LEASE)
        assert job is not None
        assert locks.take_locks(session, job, holds_of(job, ONE_DRIVER)) == blocker
        savepoint.rollback()
        with postgres_database.begin() as other:
            queries.finish_job(other, job_row(postgres_database, blocker), {})
        assert take(postgres_database, job_id) is not None
        locks.wait_for(session, job_id, blocker)
    now_due(postgres_database, first)
    assert take(postgres_database, first) is None
    assert job_row(postgres_database, job_id).waits_for is None


def test_moves_in_opposite_directions_take_their_buckets_in_the_same_order(postgres_database: Database) -> None:
    """Else two claims at once would wait for each other."""
    there = {"source_path": "/a", "dest_path": "/b", "dest_storage": "cold"}
    back = {"source_path": "/c", "dest_path": "/d", "storage": "cold", "dest_storage": "default"}
    asked: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        if "pg_advisory_xact_lock" in statement:
            asked.append(parameters["bucket"])

    event.listen(postgres_database.engine, "before_cursor_execute", note)
    try:
        for arguments in (there, back):
            job_id = submit(postgres_database, operation="move", arguments=arguments)
            with postgres_database.begin() as session:
                taken = queries.claim_job(
                    session, job_id, worker="w", lease_seconds=LEASE, holds=lambda job: holds_of(job, DRIVERS)
                )
            assert taken is not None
    finally:
        event.remove(postgres_database.engine, "before_cursor_execute", note)
    first, second = asked[:2], asked[2:]
    assert len(set(first)) == 2
    assert first == second
