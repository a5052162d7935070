"""What somebody wishes of a job while it waits, runs or lies still: cancel, pause, a deadline.

The heartbeats of these runs come every ten seconds, as by default: it is the next checkpoint that hears of a wish.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from blobferry.contract import JobState
from blobferry.errors import TooLateError
from blobferry.jobs import control
from models import Database, PathLockRow, queries
from tests.doubles import HookedStore, RecordingStore, blob, unfinished
from tests.jobs.job_world import KEY, OLD, PART, PATH, QUICK, THREADS, World, has_ended, heartbeat_passes
from tests.models.rows import ago, attempts, change, change_upload, job_row, outcomes, uploads
from worker.errors import SlowDownError, StoreUnavailableError
from worker.jobs.outcome import Cancelled, Finished, NotClaimed, Outcome, Rescheduled
from worker.jobs.runner import run_job
from worker.maintenance.caretaker import Caretaker, Swept

PARTS = 40
DAY = 24 * 3600.0


@pytest.fixture
def world(sqlite_database: Database, tmp_path: Path) -> World:
    directory = tmp_path / "incoming"
    directory.mkdir()
    return World(sqlite_database, directory, size=PARTS * PART)


def run_requesting(world: World, job_id: str, verb: str, **wishes: Any) -> tuple[Outcome, int]:
    """A run during whose third such call somebody wishes something; and how many such calls came afterwards."""
    seen, lock = 0, threading.Lock()

    def wish(called: str) -> None:
        nonlocal seen
        if called != verb:
            return
        with lock:  # the others wait until it is written down
            seen += 1
            if seen == 3:
                change(world.database, job_id, **wishes)

    outcome = world.run(job_id, HookedStore(world.memory, before=wish))
    return outcome, seen - 3


def locked(world: World) -> set[str]:
    with world.database.begin() as session:
        return set(session.scalars(select(PathLockRow.job_id)))


def sweep(world: World, **sections: Any) -> Swept:
    with world.worker(**sections) as runtime:
        return Caretaker(runtime, lambda message: True).sweep()


REQUESTS: dict[str, dict[str, Any]] = {
    "cancel": {"cancel_requested": True},
    "pause": {"pause_requested": True},
    "deadline": {"deadline": ago(1)},
}


@pytest.mark.parametrize("wish", REQUESTS)
def test_a_running_job_hears_of_it_with_the_next_checkpoint(world: World, wish: str) -> None:
    world.memory.put(KEY, OLD)
    job_id = world.submit(deadline=ago(-3600))
    outcome, more = run_requesting(world, job_id, "upload_part", **REQUESTS[wish])
    assert isinstance(outcome, {"cancel": Cancelled, "pause": Rescheduled, "deadline": Finished}[wish])
    assert more <= 3 * THREADS, "parts in hand, and those of one checkpoint"
    assert blob(world.memory, KEY) == OLD


def test_a_job_whose_deadline_passes_while_it_runs_fails_and_leaves_nothing(world: World) -> None:
    job_id = world.submit(deadline=ago(-3600))
    outcome, _ = run_requesting(world, job_id, "upload_part", deadline=ago(1))
    assert isinstance(outcome, Finished)
    assert has_ended(world, job_id, JobState.FAILED, "deadline")
    assert "not finished by its deadline" in str(job_row(world.database, job_id).error_message)
    assert outcomes(world.database, job_id) == ["failed"]
    assert unfinished(world.memory) == []


@pytest.mark.parametrize("wish", ["cancel", "deadline", "pause"])
def test_past_the_point_of_no_return_it_is_too_late(world: World, wish: str) -> None:
    job_id = world.submit()

    def late(called: str) -> None:
        if called == "complete_upload":
            change(world.database, job_id, **REQUESTS[wish])

    assert isinstance(world.run(job_id, HookedStore(world.memory, before=late)), Finished)
    assert job_row(world.database, job_id).state == "succeeded"
    assert blob(world.memory, KEY) == world.data


def test_a_paused_job_goes_on_with_what_is_missing(world: World) -> None:
    job_id = world.submit()
    run_requesting(world, job_id, "upload_part", pause_requested=True)
    row = job_row(world.database, job_id)
    assert (row.state, row.worker, row.lease_expires_at) == ("paused", None, None)
    assert locked(world) == {job_id}, "it keeps its place as long as it keeps its upload"
    (upload,) = uploads(world.database, job_id)
    assert upload.recheck_at is not None
    assert upload.recheck_at > row.updated_at
    assert isinstance(world.run(job_id), NotClaimed), "a message does not wake it"
    change(world.database, job_id, state="queued", pause_requested=False)
    store = RecordingStore(world.memory)
    assert isinstance(world.run(job_id, store), Finished)
    assert sum(len(data) for _, data in store.sent()) == len(world.data) - row.bytes_done
    assert (job_row(world.database, job_id).attempt, outcomes(world.database, job_id)) == (1, ["succeeded"])
    assert uploads(world.database, job_id)[0].recheck_at is None


def test_a_job_that_was_paused_too_long_begins_again(world: World) -> None:
    job_id = world.submit()
    run_requesting(world, job_id, "upload_part", pause_requested=True)
    (upload,) = uploads(world.database, job_id)
    change_upload(world.database, upload.id, recheck_at=ago(1))
    assert sweep(world).aborted == 1
    assert unfinished(world.memory) == []
    sweep(world)
    assert locked(world) == set(), "without an upload it holds no place"
    change(world.database, job_id, state="queued", pause_requested=False)
    seen: list[int] = []

    def note(called: str) -> None:
        if called == "upload_part":
            seen.append(job_row(world.database, job_id).bytes_done)

    assert isinstance(world.run(job_id, HookedStore(world.memory, before=note)), Finished)
    assert seen[0] == 0, "what was aborted does not count"
    assert max(seen) <= len(world.data)
    assert blob(world.memory, KEY) == world.data


@pytest.mark.parametrize("by", ["a message", "the caretaker"])
@pytest.mark.parametrize("wish", ["cancel", "pause", "deadline"])
def test_a_job_that_nobody_runs_is_ended_or_paused_at_once(world: World, wish: str, by: str) -> None:
    job_id = world.submit()
    change(world.database, job_id, **REQUESTS[wish])
    if by == "a message":
        assert isinstance(world.run(job_id), NotClaimed)
    else:
        assert sweep(world).changed == 1
    expected = {"cancel": "cancelled", "pause": "paused", "deadline": "failed"}[wish]
    assert job_row(world.database, job_id).state == expected


def test_a_paused_upload_is_kept_as_long_as_is_configured(world: World) -> None:
    for by in ("a message", "the caretaker"):
        job_id = world.submit(arguments={"path": f"/kept/{len(by)}"})
        run_requesting(world, job_id, "upload_part", pause_requested=True)
        change(world.database, job_id, state="queued")
        kept = {"paused_upload_seconds": 3 * DAY}
        if by == "a message":
            world.run(job_id, retention=kept)
        else:
            sweep(world, retention=kept)
        (upload,) = uploads(world.database, job_id)
        assert upload.recheck_at is not None
        days = (upload.recheck_at - job_row(world.database, job_id).updated_at).total_seconds() / DAY
        assert 2.9 < days < 3.1


def test_a_cancel_wins_over_a_pause_and_ends_a_paused_job(world: World) -> None:
    job_id = world.submit()
    run_requesting(world, job_id, "upload_part", pause_requested=True)
    change(world.database, job_id, cancel_requested=True)
    assert sweep(world).changed == 1
    assert job_row(world.database, job_id).state == "cancelled"
    assert unfinished(world.memory) == []
    assert locked(world) == set()
    assert [attempt.outcome for attempt in attempts(world.database, job_id)] == ["cancelled"]


def test_an_upload_that_vanished_is_told_of_in_the_history(world: World) -> None:
    job_id = world.submit()
    run_requesting(world, job_id, "upload_part", pause_requested=True)
    change(world.database, job_id, state="queued", pause_requested=False)
    (upload,) = uploads(world.database, job_id)
    done = job_row(world.database, job_id).bytes_done
    world.memory.abort_upload(KEY, str(upload.upload_id))  # a lifecycle rule
    assert isinstance(world.run(job_id), Finished)
    (attempt,) = attempts(world.database, job_id)
    assert attempt.remark == f"its upload had vanished at byte {done}: begun again from byte 0"
    assert job_row(world.database, job_id).restarts == 1
    assert blob(world.memory, KEY) == world.data


@pytest.fixture
def each_world(database: Database, tmp_path: Path) -> World:
    directory = tmp_path / "incoming"
    directory.mkdir()
    return World(database, directory, size=400)


class ResumedAtTheLastMoment(Database):
    """Somebody resumes the job right before the run writes down that it is paused."""

    resume: Callable[[], object] | None = None

    def begin(self) -> Any:
        if self.resume is not None and threading.current_thread() is threading.main_thread():
            resume, self.resume = self.resume, None
            resume()
        return super().begin()


def test_a_resume_between_hearing_of_a_pause_and_writing_it_down_is_not_lost(each_world: World) -> None:
    job_id = each_world.submit()
    url = each_world.database.engine.url.render_as_string(hide_password=False)
    database = ResumedAtTheLastMoment(url)

    def pause(called: str) -> None:
        if called == "upload_part" and not job_row(each_world.database, job_id).pause_requested:
            control.pause(each_world.database.engine, job_id)

    with each_world.worker(HookedStore(each_world.memory, before=pause), database=database) as runtime:
        leave = runtime.driver("default").write_stream

        def write_stream(*args: Any, **keywords: Any) -> Any:
            try:
                return leave(*args, **keywords)
            finally:
                database.resume = lambda: control.resume(each_world.database.engine, job_id)

        runtime.driver("default").write_stream = write_stream  # type: ignore[method-assign]
        assert isinstance(run_job(runtime, job_id), Rescheduled)
    database.close()
    assert job_row(each_world.database, job_id).state == "queued"
    assert isinstance(each_world.run(job_id), Finished)


def test_a_pause_that_is_taken_back_while_parts_wait_is_no_cancel(each_world: World) -> None:
    job_id, seen, lock = each_world.submit(), 0, threading.Lock()

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
            control.pause(each_world.database.engine, job_id)
            heartbeat_passes(each_world, job_id)  # the part that waits for its turn ends
            control.resume(each_world.database.engine, job_id)
            heartbeat_passes(each_world, job_id)
            raise SlowDownError("it waits, and asks whether to stop: no")

    assert isinstance(each_world.run(job_id, HookedStore(each_world.memory, before=hook), lease=QUICK), Rescheduled)
    assert job_row(each_world.database, job_id).state == "queued"
    assert [upload.state for upload in uploads(each_world.database, job_id)] == ["open"]


def test_a_cancel_of_a_delete_is_too_late_or_cancels(each_world: World) -> None:
    each_world.run(each_world.submit())
    job_id = each_world.ask("delete", path=PATH)
    asked: list[str] = []

    def cancel(called: str) -> None:
        if called.startswith("delete") and not asked:
            asked.append(control.cancel(each_world.database.engine, job_id)["state"])

    each_world.run(job_id, HookedStore(each_world.memory, before=cancel))
    assert asked == ["running"]
    assert job_row(each_world.database, job_id).state == "cancelled"


def lose_the_answers(each_world: World, job_id: str, **sections: Any) -> Any:
    """A run whose completion takes effect, and which then hears nothing more of the store."""
    completed = False

    def after(called: str) -> None:
        nonlocal completed
        completed = completed or called == "complete_upload"
        if completed:
            raise StoreUnavailableError("no answer")

    return each_world.run(job_id, HookedStore(each_world.memory, after=after), **sections)


def test_a_job_that_is_retried_after_its_completion_cannot_be_cancelled(each_world: World) -> None:
    job_id = each_world.submit()
    assert isinstance(lose_the_answers(each_world, job_id, retry={"max_attempts": 1}), Finished)
    assert blob(each_world.memory, KEY) == each_world.data
    control.retry(each_world.database.engine, job_id)
    with pytest.raises(TooLateError):
        control.cancel(each_world.database.engine, job_id)
    with each_world.database.begin() as session:
        assert queries.ask_to_cancel(session, [job_id]) == 0
    assert isinstance(each_world.run(job_id), Finished)
    assert job_row(each_world.database, job_id).state == "succeeded"
