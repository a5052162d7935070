"""Bugs that a reviewer proved between wishes, path locks and runs: each was mended once and must not come back."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import select

from blobferry.checks.arguments import MAX_JOB_ID
from blobferry.contract import JobState, check_request
from blobferry.errors import JobError, TooLateError
from blobferry.jobs import control
from blobferry.jobs.submission import insert_job
from blobferry.messages.job_messages import Message, client_app, publish
from blobferry.sealing import Sealer
from models import Database, JobRow, PathLockRow, queries
from models.queries import claims, locks
from models.queries.conditions import claimable
from tests.doubles import HookedStore, blob, tiny_store
from tests.jobs.job_world import KEY, PATH, QUICK, World, heartbeat_passes
from tests.models.rows import (
    LEASE,
    add_upload,
    ago,
    attempts,
    change,
    change_upload,
    job_row,
    lease_of,
    submit,
    uploads,
)
from worker.celery.revoke import ask_to_cancel, asked_since
from worker.driver import Driver
from worker.errors import PermissionDeniedError, SlowDownError, StoreUnavailableError
from worker.jobs.outcome import Finished, Rescheduled
from worker.jobs.path_holds import holds_of
from worker.jobs.runner import run_job
from worker.jobs.sql_checkpoint import SqlCheckpoint
from worker.maintenance.abort_uploads import abort_given_up
from worker.maintenance.caretaker import Caretaker


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    directory = tmp_path / "incoming"
    directory.mkdir()
    return World(database, directory, size=400)


def sweep(world: World) -> None:
    with world.worker() as runtime:
        Caretaker(runtime, lambda message: True).sweep()


class ResumedAtTheLastMoment(Database):
    """Somebody resumes the job right before the run writes down that it is paused."""

    resume: Callable[[], object] | None = None

    def begin(self) -> Any:
        if self.resume is not None and threading.current_thread() is threading.main_thread():
            resume, self.resume = self.resume, None
            resume()
        return super().begin()


def test_a_resume_between_hearing_of_a_pause_and_writing_it_down_is_not_lost(world: World) -> None:
    job_id = world.submit()
    url = world.database.engine.url.render_as_string(hide_password=False)
    database = ResumedAtTheLastMoment(url)

    def pause(called: str) -> None:
        if called == "upload_part" and not job_row(world.database, job_id).pause_requested:
            control.pause(world.database.engine, job_id)

    with world.worker(HookedStore(world.memory, before=pause), database=database) as runtime:
        leave = runtime.driver("default").write_stream

        def write_stream(*args: Any, **keywords: Any) -> Any:
            try:
                return leave(*args, **keywords)
            finally:
                database.resume = lambda: control.resume(world.database.engine, job_id)

        runtime.driver("default").write_stream = write_stream  # type: ignore[method-assign]
        assert isinstance(run_job(runtime, job_id), Rescheduled)
    database.close()
    assert job_row(world.database, job_id).state == "queued"
    assert isinstance(world.run(job_id), Finished)


def test_a_pause_that_is_taken_back_while_parts_wait_is_no_cancel(world: World) -> None:
    job_id, seen, lock = world.submit(), 0, threading.Lock()

    def hook(called: str) -> None:
        nonlocal seen
        if called != "upload_part":
            return
        with lock:
            seen += 1
            mine = seen
        if mine <= 2:
            raise SlowDownError("one part at once")
        if mine == 3:
            control.pause(world.database.engine, job_id)
            heartbeat_passes(world, job_id)  # the part that waits for its turn ends
            control.resume(world.database.engine, job_id)
            heartbeat_passes(world, job_id)
            raise SlowDownError("it waits, and asks whether to stop: no")

    assert isinstance(world.run(job_id, HookedStore(world.memory, before=hook), lease=QUICK), Rescheduled)
    assert job_row(world.database, job_id).state == "queued"
    assert [upload.state for upload in uploads(world.database, job_id)] == ["open"]


def test_a_cancel_of_a_delete_is_too_late_or_cancels(world: World) -> None:
    world.run(world.submit())
    job_id = world.ask("delete", path=PATH)
    asked: list[str] = []

    def cancel(called: str) -> None:
        if called.startswith("delete") and not asked:
            asked.append(control.cancel(world.database.engine, job_id)["state"])

    world.run(job_id, HookedStore(world.memory, before=cancel))
    assert asked == ["running"]
    assert job_row(world.database, job_id).state == "cancelled"


def lose_the_answers(world: World, job_id: str, **sections: Any) -> Any:
    """A run whose completion takes effect, and which then hears nothing more of the store."""
    completed = False

    def after(called: str) -> None:
        nonlocal completed
        completed = completed or called == "complete_upload"
        if completed:
            raise StoreUnavailableError("no answer")

    return world.run(job_id, HookedStore(world.memory, after=after), **sections)


def test_a_job_that_is_retried_after_its_completion_cannot_be_cancelled(world: World) -> None:
    job_id = world.submit()
    assert isinstance(lose_the_answers(world, job_id, retry={"max_attempts": 1}), Finished)
    assert blob(world.memory, KEY) == world.data
    control.retry(world.database.engine, job_id)
    with pytest.raises(TooLateError):
        control.cancel(world.database.engine, job_id)
    with world.database.begin() as session:
        assert queries.ask_to_cancel(session, [job_id]) == 0
    assert isinstance(world.run(job_id), Finished)
    assert job_row(world.database, job_id).state == "succeeded"


def test_a_permission_that_is_withdrawn_after_a_completion_aborts_nothing(world: World) -> None:
    job_id = world.submit()
    assert isinstance(lose_the_answers(world, job_id), Rescheduled)
    change(world.database, job_id, run_at=ago(1))

    def refuse(called: str) -> None:
        raise PermissionDeniedError("403")

    assert isinstance(world.run(job_id, HookedStore(world.memory, before=refuse)), Finished)
    assert [upload.state for upload in uploads(world.database, job_id)] == ["completing"]


# --- path locks ------------------------------------------------------------------------------------------------------

DRIVERS = {"default": Driver(tiny_store())}


def take(database: Database, job_id: str, drivers: dict[str, Driver] = DRIVERS) -> JobRow | None:
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
        assert locks.take_locks(session, job, holds_of(job, DRIVERS)) == blocker
        savepoint.rollback()
        with postgres_database.begin() as other:
            queries.finish_job(other, job_row(postgres_database, blocker), {})
        assert take(postgres_database, job_id) is not None
        locks.wait_for(session, job_id, blocker)
    now_due(postgres_database, first)
    assert take(postgres_database, first) is None
    assert job_row(postgres_database, job_id).waits_for is None


# --- what else it found ----------------------------------------------------------------------------------------------


def test_a_search_for_a_lost_upload_spares_one_that_is_just_being_opened(world: World) -> None:
    lost = world.submit()

    def refuse(called: str) -> None:
        if called == "create_upload":
            raise StoreUnavailableError("no answer")

    world.run(lost, HookedStore(world.memory, before=refuse))
    control.cancel(world.database.engine, lost)
    with world.database.begin() as session:
        queries.apply_requests(session, limit=10)
    job_id, swept = world.submit(), list[int]()

    def look(called: str) -> None:
        if called == "create_upload" and not swept:
            with world.worker() as runtime:
                swept.append(abort_given_up(runtime))

    assert isinstance(world.run(job_id, HookedStore(world.memory, after=look)), Finished)
    assert (swept, job_row(world.database, job_id).restarts) == ([0], 0)


def test_a_silent_broker_holds_up_a_sweep_once(world: World) -> None:
    jobs = [world.submit(arguments={"path": f"/{number}"}, cancel_requested=True) for number in range(5)]
    tried: list[str] = []

    def silent(message: Message) -> bool:
        tried.append(message.job_id)
        return False

    with world.worker() as runtime:
        Caretaker(runtime, silent).sweep()
    assert len(tried) == 1
    assert {job_row(world.database, job_id).state for job_id in jobs} == {"cancelled"}


def test_a_bare_message_whose_claim_lost_its_answer_finds_its_job_again(world: World) -> None:
    job_id = world.submit()

    def claim(worker: str) -> JobRow | None:
        with world.database.begin() as session:
            return queries.claim_job(session, job_id, worker=worker, lease_seconds=LEASE, is_repeated=True)

    assert claim("w:1") is not None
    assert claim("w:2") is None
    again = claim("w:1")
    assert again is not None
    assert (again.attempt, again.crashes) == (1, 0)


def test_a_sealed_request_is_left_to_workers_that_know_what_that_is(database: Database) -> None:
    signed = check_request("write_stream", {"path": "/a", "source": "https://host/a?signature=1"})
    with database.begin() as session:
        plain = insert_job(session.connection(), signed)
        sealed = insert_job(session.connection(), signed, sealer=Sealer([Fernet.generate_key().decode()]))
    assert (plain["request_version"], sealed["request_version"]) == (1, 2)


# --- what a last reading found ---------------------------------------------------------------------------------------


def test_a_message_that_can_never_be_sent_is_not_taken_for_a_broker_that_is_away() -> None:
    """Whoever publishes stops at the first that the broker does not take: all others would wait behind this one."""
    app = client_app("memory://")
    unsendable = Message("job", "delete", "blobferry", {}, 0, {"link": object()})
    assert publish(app, unsendable)
    app.close()


def test_an_upload_that_was_lost_before_its_first_checkpoint_is_told_of_too(world: World) -> None:
    job_id = world.submit()

    def refuse(called: str) -> None:
        if called == "upload_part":
            raise StoreUnavailableError("503")

    assert isinstance(world.run(job_id, HookedStore(world.memory, before=refuse)), Rescheduled)
    (upload,) = uploads(world.database, job_id)
    world.memory.abort_upload(KEY, str(upload.upload_id))
    change(world.database, job_id, run_at=ago(1))
    assert isinstance(world.run(job_id), Finished)
    assert [attempt.remark for attempt in attempts(world.database, job_id)] == [
        None,
        "its upload had vanished at byte 0: begun again from byte 0",
    ]


def test_the_age_of_an_upload_is_told_by_the_database_alone(database: Database) -> None:
    job = take(database, submit(database))
    assert job is not None
    with database.begin() as session:
        before = queries.time_now(session)
    now = SqlCheckpoint(lease_of(database, job), tiny_store(), max_restarts=3).now()
    with database.begin() as session:
        assert before <= now <= queries.time_now(session)


def test_uploads_that_cannot_be_aborted_do_not_crowd_out_the_others(world: World) -> None:
    failed = world.submit(state="failed")
    old = add_upload(world.database, failed, state="aborting", updated_at=ago(60))
    with world.database.begin() as session:
        (first,) = queries.uploads_to_abort(session, limit=1, files_of="")
        queries.put_off_abort(session, first.id, -1)
    new = add_upload(world.database, failed, state="aborting", updated_at=ago(30))
    with world.database.begin() as session:
        (second,) = queries.uploads_to_abort(session, limit=1, files_of="")
    assert (first.id, second.id) == (old, new)


def test_a_revoke_of_what_can_be_no_job_is_not_told_to_the_caretaker() -> None:
    ask_to_cancel("x" * 5000)
    ask_to_cancel("a job's")
    assert [task_id for _, task_id in asked_since(0)][-1] == "a job's"
    assert all(len(task_id) <= MAX_JOB_ID for _, task_id in asked_since(0))
