"""What somebody wishes of a job while it waits, runs or lies still: cancel, pause, a deadline.

The heartbeats of these runs come every ten seconds, as by default: it is the next checkpoint that hears of a wish.
"""

import threading
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from sqlalchemy import select

from blobferry.errors import TooLateError
from blobferry.jobs import control
from models import Database, PathLockRow
from tests.doubles import HookedStore, RecordingStore, unfinished
from tests.jobs.job_world import KEY, OLD, PART, PATH, QUICK, THREADS, World, at, on_each_database
from tests.models.rows import ago
from worker.errors import SlowDownError
from worker.jobs.outcome import Cancelled, Finished, NotClaimed, Rescheduled
from worker.jobs.runner import run_job

PARTS = 40
DAY = 24 * 3600.0
REQUESTS: dict[str, dict[str, Any]] = {
    "cancel": {"cancel_requested": True},
    "pause": {"pause_requested": True},
    "deadline": {"deadline": ago(1)},
}

by_either = pytest.mark.parametrize("by", ["a message", "the caretaker"])


@pytest.fixture
def size() -> int:
    return PARTS * PART


def wish_at_third_part(world: World, job_id: str, **wishes: Any) -> HookedStore:
    """A store during whose third part somebody wishes something."""
    return HookedStore(world.memory, before=at("upload_part", number=3, do=lambda: world.change(job_id, **wishes)))


def pause(world: World, job_id: str) -> Any:
    """A run that is paused in the middle; the job's row then."""
    return world.put_off(job_id, wish_at_third_part(world, job_id, pause_requested=True))


def resume(world: World, job_id: str) -> None:
    world.change(job_id, state="queued", pause_requested=False)


def locked(world: World) -> set[str]:
    with world.database.begin() as session:
        return set(session.scalars(select(PathLockRow.job_id)))


@pytest.mark.parametrize("wish", REQUESTS)
def test_a_running_job_hears_of_it_with_the_next_checkpoint(world: World, wish: str) -> None:
    world.memory.put(KEY, OLD)
    job_id = world.submit(deadline=ago(-3600))
    store = RecordingStore(wish_at_third_part(world, job_id, **REQUESTS[wish]))
    outcome = world.run(job_id, store)
    assert isinstance(outcome, {"cancel": Cancelled, "pause": Rescheduled, "deadline": Finished}[wish])
    assert len(store.sent()) <= 3 + 3 * THREADS, "parts in hand, and those of one checkpoint"
    assert world.seen() == OLD


def test_a_job_whose_deadline_passes_while_it_runs_fails_and_leaves_nothing(world: World) -> None:
    job_id = world.submit(deadline=ago(-3600))
    message = world.fail(job_id, "deadline", wish_at_third_part(world, job_id, deadline=ago(1)))
    assert "not finished by its deadline" in message
    assert (world.outcomes(job_id), unfinished(world.memory)) == (["failed"], [])


@pytest.mark.parametrize("wish", REQUESTS)
def test_past_the_point_of_no_return_it_is_too_late(world: World, wish: str) -> None:
    job_id = world.submit()
    late = at("complete_upload", do=lambda: world.change(job_id, **REQUESTS[wish]))
    world.succeed(job_id, HookedStore(world.memory, before=late))
    assert world.seen() == world.data


def test_a_paused_job_goes_on_with_what_is_missing(world: World) -> None:
    job_id, store = world.submit(), RecordingStore(world.memory)
    row = pause(world, job_id)
    assert (row.state, row.worker, row.lease_expires_at) == ("paused", None, None)
    assert locked(world) == {job_id}, "it keeps its place as long as it keeps its upload"
    (upload,) = world.uploads(job_id)
    assert unfinished(world.memory) == [upload.upload_id]
    assert upload.recheck_at > row.updated_at
    assert isinstance(world.run(job_id), NotClaimed), "a message does not wake it"
    resume(world, job_id)
    world.succeed(job_id, store)
    assert sum(len(data) for _, data in store.sent()) == len(world.data) - row.bytes_done
    assert (world.job_row(job_id).attempt, world.outcomes(job_id)) == (1, ["succeeded"])
    assert world.uploads(job_id)[0].recheck_at is None


def test_a_job_that_was_paused_too_long_begins_again(world: World) -> None:
    job_id, seen = world.submit(), list[int]()
    pause(world, job_id)
    (upload,) = world.uploads(job_id)
    world.change_upload(upload.id, recheck_at=ago(1))
    assert (world.sweep().aborted, unfinished(world.memory)) == (1, [])
    world.sweep()
    assert locked(world) == set(), "without an upload it holds no place"
    resume(world, job_id)

    def note(called: str) -> None:
        if called == "upload_part":
            seen.append(world.job_row(job_id).bytes_done)

    world.succeed(job_id, HookedStore(world.memory, before=note))
    assert seen[0] == 0, "what was aborted does not count"
    assert max(seen) <= len(world.data)
    assert world.seen() == world.data


@by_either
@pytest.mark.parametrize(
    ("wish", "state"), [("cancel", "cancelled"), ("pause", "paused"), ("deadline", "failed")], ids=REQUESTS
)
def test_a_job_that_nobody_runs_is_ended_or_paused_at_once(world: World, wish: str, state: str, by: str) -> None:
    job_id = world.submit(**REQUESTS[wish])
    if by == "a message":
        assert isinstance(world.run(job_id), NotClaimed)
    else:
        assert world.sweep().changed == 1
    assert world.job_row(job_id).state == state


@by_either
def test_a_paused_upload_is_kept_as_long_as_is_configured(world: World, by: str) -> None:
    job_id, kept = world.submit(), {"paused_upload_seconds": 3 * DAY}
    pause(world, job_id)
    world.change(job_id, state="queued")
    if by == "a message":
        world.run(job_id, retention=kept)
    else:
        world.sweep(retention=kept)
    (upload,) = world.uploads(job_id)
    assert 2.9 < (upload.recheck_at - world.job_row(job_id).updated_at).total_seconds() / DAY < 3.1


def test_a_cancel_wins_over_a_pause_and_ends_a_paused_job(world: World) -> None:
    job_id = world.submit()
    pause(world, job_id)
    world.change(job_id, cancel_requested=True)
    assert world.sweep().changed == 1
    assert world.job_row(job_id).state == "cancelled"
    assert (unfinished(world.memory), locked(world)) == ([], set())
    assert world.outcomes(job_id) == ["cancelled"]


def test_an_upload_that_vanished_is_told_of_in_the_history(world: World) -> None:
    job_id = world.submit()
    done = pause(world, job_id).bytes_done
    resume(world, job_id)
    (upload,) = world.uploads(job_id)
    world.memory.abort_upload(KEY, str(upload.upload_id))  # a lifecycle rule
    world.succeed(job_id)
    (attempt,) = world.attempts(job_id)
    assert attempt.remark == f"its upload had vanished at byte {done}: begun again from byte 0"
    assert (world.job_row(job_id).restarts, world.seen()) == (1, world.data)


class ResumedAtTheLastMoment(Database):
    """Somebody resumes the job right before the run writes down that it is paused."""

    resume: Callable[[], object] | None = None

    def begin(self) -> Any:
        if self.resume is not None and threading.current_thread() is threading.main_thread():
            resume, self.resume = self.resume, None
            resume()
        return super().begin()


@on_each_database
def test_a_resume_between_hearing_of_a_pause_and_writing_it_down_is_not_lost(world: World) -> None:
    job_id = world.submit()
    database = ResumedAtTheLastMoment(world.database.engine.url.render_as_string(hide_password=False))

    def pause(called: str) -> None:
        if called == "upload_part" and not world.job_row(job_id).pause_requested:
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
    assert world.job_row(job_id).state == "queued"
    world.succeed(job_id)


@on_each_database
def test_a_pause_that_is_taken_back_while_parts_wait_is_no_cancel(world: World) -> None:
    job_id, parts = world.submit(), count(1)

    def hook(called: str) -> None:
        number = next(parts) if called == "upload_part" else 0
        if 1 <= number <= 2:
            raise SlowDownError("one part at once")
        if number == 3:
            control.pause(world.database.engine, job_id)
            world.heartbeat_passes(job_id)  # the part that waits for its turn ends
            control.resume(world.database.engine, job_id)
            world.heartbeat_passes(job_id)
            raise SlowDownError("it waits, and asks whether to stop: no")

    row = world.put_off(job_id, HookedStore(world.memory, before=hook), lease=QUICK)
    assert row.state == "queued"
    assert [upload.state for upload in world.uploads(job_id)] == ["open"]


@on_each_database
def test_a_cancel_is_not_held_up_by_a_read_of_the_blob_that_is_written_onto(world: World) -> None:
    """Its store does not answer; the bytes before the offset are too few to be copied by the store."""
    world.memory.put(KEY, OLD)
    job_id, reading, released = world.submit(arguments={"offset": 3}), threading.Event(), threading.Event()

    def hang(verb: str) -> None:
        if verb == "get":
            reading.set()
            released.wait(60)

    outcomes = list[Any]()
    store = HookedStore(world.memory, before=hang)
    run = threading.Thread(target=lambda: outcomes.append(world.run(job_id, store, lease=QUICK)), daemon=True)
    run.start()
    assert reading.wait(30)
    world.change(job_id, cancel_requested=True)
    run.join(20)
    found = list(outcomes)
    released.set()
    run.join(30)
    assert found == [Cancelled()]
    assert world.seen() == OLD


def test_a_cancel_of_a_delete_is_too_late_or_cancels(world: World) -> None:
    world.run(world.submit())
    job_id, asked = world.ask("delete", path=PATH), list[str]()
    cancel = at("delete_batch", do=lambda: asked.append(control.cancel(world.database.engine, job_id)["state"]))
    world.run(job_id, HookedStore(world.memory, before=cancel))
    assert (asked, world.job_row(job_id).state) == (["running"], "cancelled")


@on_each_database
def test_a_job_that_is_retried_after_its_completion_cannot_be_cancelled(world: World) -> None:
    job_id = world.submit()
    assert isinstance(world.run(job_id, world.silent_after_completion(), retry={"max_attempts": 1}), Finished)
    assert world.seen() == world.data
    control.retry(world.database.engine, job_id)
    with pytest.raises(TooLateError):
        control.cancel(world.database.engine, job_id)
    assert world.request_cancel([job_id]) == 0
    world.succeed(job_id)
