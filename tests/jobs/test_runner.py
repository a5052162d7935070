"""A job's life, run by run: how each one ends, and what the rows and the store say then."""

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from blobferry.contract import REQUEST_VERSION, JobState, UploadState
from blobferry.messages.job_messages import Message
from tests.doubles import (
    FaultyStore,
    HookedStore,
    LaggingStore,
    LyingStore,
    RecordingStore,
    WrappedStore,
    blob,
    tiny_store,
    unfinished,
)
from tests.jobs.job_world import (
    AT_ONCE,
    KEY,
    OLD,
    PART,
    PATH,
    QUICK,
    FailingDatabase,
    SlowStore,
    World,
    at,
    by_another_name,
    on_each_database,
)
from tests.models.rows import ago
from worker import drain
from worker.errors import (
    ChecksumMismatchError,
    LeaseLostError,
    PermissionDeniedError,
    StoreUnavailableError,
    UnreachableError,
)
from worker.jobs.outcome import Finished, NotClaimed, Outcome, Rescheduled
from worker.jobs.runner import nameless, run_job

# --- it works --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, PART, 95])
def test_a_job_brings_its_file_to_the_path(size: int, world: World) -> None:
    job_id = world.submit(arguments={"content_type": "video/mp4", "metadata": {"title": "seven"}})
    outcome = world.succeed(job_id)
    assert world.seen() == world.data
    head, row = world.memory.head(KEY), world.job_row(job_id)
    assert (head.content_type, head.metadata["title"]) == ("video/mp4", "seven")
    assert outcome.result == row.result == {"path": PATH, "size": size, "etag": head.etag, "version_id": None}
    assert (row.size, row.bytes_done, row.bytes_sent, row.attempt, row.failures) == (size, size, size, 1, 0)
    assert [(attempt.outcome, attempt.bytes_sent) for attempt in world.attempts(job_id)] == [("succeeded", size)]
    assert [upload.state for upload in world.uploads(job_id)] == ["completed"]


def test_the_ledger_says_where_the_upload_is_and_the_rows_what_was_sent(world: World) -> None:
    job_id = world.submit()
    world.run(job_id)
    (upload,) = world.uploads(job_id)
    assert (upload.key, upload.bucket, upload.endpoint, upload.storage) == (KEY, "memory", "", "default")
    assert (upload.size, upload.part_size) == (95, PART)
    rows = world.part_rows(upload.id)
    assert [(row.part_number, row.offset, row.size) for row in rows] == [
        (n + 1, n * PART, min(PART, 95 - n * PART)) for n in range(10)
    ]
    assert all(str(row.checksum).startswith("CRC64NVME:") for row in rows)


@pytest.mark.parametrize("has_ended", [True, False], ids=["it has ended", "somebody else runs it"])
def test_a_job_that_cannot_be_claimed_is_left_alone(has_ended: bool, world: World) -> None:
    job_id, store = world.submit(), RecordingStore(world.memory)
    (world.succeed if has_ended else world.claim)(job_id)
    before = world.job_row(job_id).as_row()
    assert world.run(job_id, store) == NotClaimed()
    assert (store.calls, world.job_row(job_id).as_row()) == ([], before)


# --- errors ----------------------------------------------------------------------------------------------------------


def test_a_transient_error_is_tried_again_later_with_only_what_is_missing(world: World) -> None:
    job_id, store = world.submit(), RecordingStore(world.memory)
    before = datetime.now(UTC)
    outcome = world.run(job_id, FaultyStore(world.memory, "upload_part", fail_at=6))
    assert isinstance(outcome, Rescheduled)
    row = world.job_row(job_id)
    assert (row.state, row.error_code, row.attempt, row.worker) == ("retrying", "store_unavailable", 1, None)
    assert row.failures == 1
    assert before - timedelta(seconds=1) <= row.run_at <= datetime.now(UTC) + timedelta(seconds=2)
    assert abs(outcome.when - row.run_at) < timedelta(seconds=1)
    assert row.bytes_done >= 5 * PART
    world.change(job_id, run_at=ago(1))
    world.succeed(job_id, store)
    assert sum(len(data) for _, data in store.sent()) == 95 - row.bytes_done
    assert world.seen() == world.data
    assert world.outcomes(job_id) == ["retrying", "succeeded"]
    assert sum(attempt.bytes_sent for attempt in world.attempts(job_id)) == world.job_row(job_id).bytes_sent == 95


@pytest.mark.parametrize("size", [5])
def test_a_job_is_given_up_after_so_many_runs_without_progress(world: World) -> None:
    job_id, store = world.submit(), FaultyStore(world.memory, "head", times=100)
    for failures in (1, 2):
        row = world.put_off(job_id, store, retry={"max_attempts": 3})
        assert (row.failures, row.max_attempts) == (failures, 3)
    world.fail(job_id, "store_unavailable", store, retry={"max_attempts": 3})
    assert world.outcomes(job_id) == ["retrying", "retrying", "failed"]


def test_progress_starts_the_counting_anew(world: World) -> None:
    job_id = world.submit()
    for _ in range(5):
        store = FaultyStore(world.memory, "upload_part", fail_at=2, times=100)
        assert world.put_off(job_id, store, retry={"max_attempts": 2}).failures == 1


def test_a_job_that_ran_out_of_retries_keeps_its_upload_for_a_while(world: World) -> None:
    job_id, away = world.submit(), FaultyStore(world.memory, "upload_part", fail_at=4, times=100)
    world.fail(job_id, "store_unavailable", away, retry={"max_attempts": 1})
    assert len(unfinished(world.memory)) == 1
    (upload,) = world.uploads(job_id)
    assert upload.state == "open"
    assert upload.recheck_at - datetime.now(UTC) > timedelta(hours=23)


@pytest.mark.parametrize("verb", ["head", "create_upload", "upload_part", "complete_upload"])
def test_a_permanent_error_fails_at_once_and_leaves_nothing_in_the_store(verb: str, world: World) -> None:
    world.memory.put(KEY, OLD)
    job_id = world.submit()
    store = FaultyStore(world.memory, verb, times=100, error=lambda: PermissionDeniedError("s3: not allowed"))
    assert world.fail(job_id, "permission_denied", store) == "s3: not allowed"
    assert (world.seen(), unfinished(world.memory)) == (OLD, [])
    assert {upload.state for upload in world.uploads(job_id)} <= {"gone"}


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ZeroDivisionError("a bug"), "unexpected", "ZeroDivisionError: a bug"),
        (ChecksumMismatchError("damaged"), "checksum_mismatch", "damaged"),
    ],
    ids=["a surprise", "bytes damaged on the way"],
)
def test_what_may_go_well_another_time_is_tried_again_and_named(
    error: Exception, code: str, message: str, world: World
) -> None:
    job_id = world.submit()
    row = world.put_off(job_id, FaultyStore(world.memory, "upload_part", fail_at=3, error=lambda: error))
    assert (row.state, row.error_code, row.error_message) == ("retrying", code, message)
    world.succeed(job_id)


def remove(file: Path) -> Path:
    file.unlink()
    return file


def replace_by_a_directory(file: Path) -> Path:
    file.unlink()
    file.mkdir()
    return file


def outside_of_the_roots(file: Path) -> Path:
    return file.rename(file.parent.parent / "secret")


def linked_to_the_outside(file: Path) -> Path:
    link = file.parent / "link"
    link.symlink_to(outside_of_the_roots(file))
    return link


@pytest.mark.parametrize(
    ("source_of", "code", "named"),
    [
        (remove, "source_not_found", "7.mp4"),
        (replace_by_a_directory, "source_not_allowed", "regular file"),
        (outside_of_the_roots, "source_not_allowed", "secret"),
        (linked_to_the_outside, "source_not_allowed", "link"),
    ],
)
def test_a_source_that_cannot_be_read_fails_the_job_with_nothing_uploaded(
    source_of: Callable[[Path], Path], code: str, named: str, world: World
) -> None:
    job_id, store = world.submit(arguments={"source": source_of(world.file).as_uri()}), RecordingStore(world.memory)
    assert named in world.fail(job_id, code, store, **AT_ONCE)
    assert store.calls == []


def test_an_unknown_storage_fails_the_job_and_is_named_with_those_there_are(world: World) -> None:
    message = world.fail(world.submit(arguments={"storage": "archive"}), "configuration", **AT_ONCE)
    assert "storages.archive" in message
    assert "default" in message


def test_a_source_that_changed_between_two_attempts_fails_the_job(world: World) -> None:
    world.memory.put(KEY, OLD)
    job_id = world.half_sent()
    world.file.write_bytes(world.data[::-1])
    world.fail(job_id, "source_changed")
    assert (world.seen(), unfinished(world.memory)) == (OLD, [])


def test_a_blob_that_may_not_be_overwritten_fails_the_job(world: World) -> None:
    world.memory.put(KEY, OLD)
    world.fail(world.submit(arguments={"overwrite": False}), "blob_exists")
    assert world.seen() == OLD


def test_a_blob_of_somebody_else_at_the_last_moment_fails_the_job_and_stays(world: World) -> None:
    appear = at("complete_upload", do=lambda: world.memory.put(KEY, b"theirs"))
    world.fail(world.submit(), "superseded", HookedStore(world.memory, before=appear))
    assert (world.seen(), unfinished(world.memory)) == (b"theirs", [])


def test_an_upload_that_is_lost_again_and_again_fails_the_job(world: World) -> None:
    world.memory.put(KEY, OLD)

    def lose(verb: str) -> None:
        if verb == "complete_upload":
            for upload_id in unfinished(world.memory):
                world.memory.abort_upload(KEY, upload_id)

    job_id = world.submit()
    world.fail(job_id, "too_many_restarts", HookedStore(world.memory, before=lose), retry={"max_restarts": 2})
    assert (world.job_row(job_id).restarts, world.seen()) == (2, OLD)


# --- the Stat poll ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [None, OLD], ids=["new", "over an old blob"])
def test_a_store_that_lags_is_looked_at_until_it_shows_the_blob(old: bytes | None, world: World) -> None:
    if old:
        world.memory.put(KEY, old)
    job_id, store = world.submit(), RecordingStore(LaggingStore(world.memory, looks=3))
    for polls, seconds in ((1, 0.5), (2, 1), (3, 2)):
        before = datetime.now(UTC)
        row = world.put_off(job_id, store)
        assert (row.state, row.phase, row.polls, row.attempt) == ("verifying", "verifying", polls, 1)
        assert (row.worker, row.lease_expires_at) == (None, None)  # no slot is held between two looks
        tick = timedelta(milliseconds=1)  # SQLite's clock has no less
        wished = timedelta(seconds=seconds)
        assert before + wished - tick <= row.run_at <= datetime.now(UTC) + wished
    store.calls.clear()
    world.succeed(job_id, store)
    assert {call.verb for call in store.calls} == {"head"}  # nothing is sent again
    assert world.outcomes(job_id) == ["succeeded"]


def test_a_store_that_lies_for_ever_never_gets_a_success(world: World) -> None:
    job_id, store = world.submit(), LyingStore(world.memory)
    for _ in range(3):
        assert world.put_off(job_id, store).state == "verifying"
    world.change(job_id, verify_until=ago(1))
    message = world.fail(job_id, "verification_failed", store)
    assert PATH in message
    assert "94 bytes are there instead of 95" in message


def test_a_blob_that_somebody_replaced_before_the_stat_is_not_taken_for_ours(world: World) -> None:
    """Its size is the same; only checksum, mark and ETag tell."""
    job_id, theirs = world.submit(), b"x" * 95
    replace = at("complete_upload", do=lambda: world.memory.put(KEY, theirs))
    assert world.put_off(job_id, HookedStore(world.memory, after=replace)).state == "verifying"
    world.run(job_id, transfer={"verify_seconds": 0})
    world.change(job_id, verify_until=ago(1), run_at=ago(1))
    world.fail(job_id, "verification_failed")
    assert world.seen() == theirs


def test_a_store_that_is_away_during_the_stat_poll_is_asked_again(world: World) -> None:
    job_id, counting = world.submit(), RecordingStore(world.memory)
    store = FaultyStore(world.memory, "head", fail_at=3)  # it looks at the beginning, before publishing, after it
    row = world.put_off(job_id, store)
    assert (row.state, row.phase, store.fired) == ("retrying", "verifying", 1)
    world.succeed(job_id, counting)
    assert {call.verb for call in counting.calls} == {"head"}


# --- slices, drain, cancel, pause -------------------------------------------------------------------------------------


def test_a_slice_ends_and_the_job_goes_on_in_the_next_one_without_a_new_attempt(world: World) -> None:
    slow = HookedStore(world.memory, before=lambda verb: time.sleep(0.04) if verb == "upload_part" else None)
    job_id, counting, runs = world.submit(), RecordingStore(slow), 0
    while isinstance(world.run(job_id, counting, transfer={"slice_seconds": 0.1}), Rescheduled):
        runs += 1
        row = world.job_row(job_id)
        assert (row.state, row.attempt, row.worker, row.lease_expires_at) == ("queued", 1, None, None)
        assert row.bytes_done > 0
        assert runs < 20
    assert runs >= 1
    assert [number for number, _ in counting.sent()] == list(range(1, 11))  # no part went twice
    assert world.has_ended(job_id, JobState.SUCCEEDED)
    assert (world.outcomes(job_id), world.seen()) == (["succeeded"], world.data)


def test_a_draining_worker_hands_its_job_over(world: World) -> None:
    job_id = world.submit()
    outcome = world.run(job_id, HookedStore(world.memory, after=at("upload_part", do=drain.start)))
    assert isinstance(outcome, Rescheduled)
    assert "shutting down" in outcome.reason
    row = world.job_row(job_id)
    assert (row.state, row.worker) == ("queued", None)
    assert 0 < row.bytes_done < 95


@pytest.mark.parametrize("is_noticed", [True, False], ids=["the heartbeat has seen it", "the row decides"])
def test_a_cancel_before_the_point_of_no_return_ends_the_job_and_aborts_its_upload(
    is_noticed: bool, world: World
) -> None:
    """What the heartbeat has not seen is found by the transaction that passes the point."""
    world.memory.put(KEY, OLD)
    job_id = world.submit()
    wishing = world.requesting(job_id, "upload_part", is_noticed=is_noticed)
    world.cancel(job_id, wishing, lease=QUICK if is_noticed else {})
    assert (world.seen(), unfinished(world.memory)) == (OLD, [])
    assert ([upload.state for upload in world.uploads(job_id)], world.outcomes(job_id)) == (["gone"], ["cancelled"])


@pytest.mark.parametrize("failures", [0, 1])
def test_a_cancel_during_the_publishing_call_is_too_late(failures: int, world: World) -> None:
    """A store that answered 503 and shows the old blob may still be completing. Aborting now would be a guess."""
    job_id, store = world.submit(), FaultyStore(world.memory, "complete_upload", times=failures)
    world.succeed(job_id, world.requesting(job_id, "complete_upload", store), lease=QUICK)
    assert (world.seen(), store.fired) == (world.data, failures)


def test_a_cancel_between_two_runs_past_the_point_of_no_return_is_too_late(world: World) -> None:
    job_id = sent_and_not_completed(world)
    world.change(job_id, cancel_requested=True)
    world.succeed(job_id)
    assert world.seen() == world.data


# --- a lost lease -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["head", "create_upload", "upload_part", "complete_upload"])
def test_a_run_whose_job_was_taken_over_writes_nothing_more(verb: str, world: World) -> None:
    """SIGSTOP, a suspended machine: this run sleeps, the job goes to another worker, this run wakes up."""
    job_id, rows = world.submit(), list[Any]()
    taken = at(verb, do=lambda: rows.append(world.taken_over(job_id)))
    store = RecordingStore(HookedStore(world.memory, before=taken))
    assert world.run(job_id, store) == NotClaimed()
    assert [world.job_row(job_id).as_row()] == rows
    assert world.outcomes(job_id) == ["died", None]
    if verb != "complete_upload":
        assert (world.seen(), store.named("complete_upload")) == (None, [])


def test_the_run_that_took_over_finishes_what_the_other_one_published(world: World) -> None:
    """The old owner's commit call was under way; the new one looks and finds its own blob."""
    job_id, counting = world.submit(), RecordingStore(world.memory)
    taken = at("complete_upload", do=lambda: world.take_away(job_id))
    assert world.run(job_id, HookedStore(world.memory, after=taken)) == NotClaimed()
    world.succeed(job_id, counting)
    assert {call.verb for call in counting.calls} == {"head"}
    assert world.outcomes(job_id) == ["died", "succeeded"]


def test_a_failed_job_that_is_slow_to_abort_its_upload_stays_failed(world: World) -> None:
    """The heartbeat goes on beside the abort; what it renews must not be the lease of an ended job."""
    denied = FaultyStore(world.memory, "complete_upload", times=9, error=lambda: PermissionDeniedError("no"))
    linger = at("abort_upload", do=lambda: threading.Event().wait(0.2))
    world.fail(world.submit(), "permission_denied", HookedStore(denied, before=linger), lease=QUICK)


def sent_and_not_completed(world: World) -> str:
    """A job whose completion the store answers with 503, so that nobody knows whether it will work."""
    job_id = world.submit()
    row = world.put_off(job_id, FaultyStore(world.memory, "complete_upload", times=100))
    assert (row.state, row.phase) == ("retrying", "completing")
    return job_id


def sent_and_not_seen(world: World) -> str:
    """A job whose blob Stat does not show yet."""
    job_id = world.submit()
    assert world.put_off(job_id, LaggingStore(world.memory, 3)).phase == "verifying"
    return job_id


def run_forgetfully(world: World, job_id: str, state: str) -> Outcome:
    """A run that loses the answer of the commit that brings the job into this state."""
    with closing(FailingDatabase(world.database, job_id, state, UnreachableError)) as database:
        outcome = world.run(job_id, database=database)
        assert database.times_left == 0
    return outcome


def test_a_job_whose_last_commit_lost_its_answer_has_succeeded_and_says_so(world: World) -> None:
    job_id = world.submit()
    outcome = run_forgetfully(world, job_id, "succeeded")
    row = world.job_row(job_id)
    assert (row.state, row.error_code, row.attempt) == ("succeeded", None, 1)
    assert row.result is not None
    assert outcome == Finished(result=row.result)
    assert world.outcomes(job_id) == ["succeeded"]
    world.file.unlink()  # whoever sees "succeeded" may do that
    world.change(job_id, run_at=ago(1))
    assert world.run(job_id) == NotClaimed()
    assert world.job_row(job_id).state == "succeeded"


def test_a_run_that_has_ended_writes_nothing_more(world: World) -> None:
    job_id = world.submit()
    world.run(job_id)
    row = world.job_row(job_id)
    with pytest.raises(LeaseLostError):
        world.update_owned(job_id, row.token, state="retrying")
    assert world.extend_lease(job_id, row.token, 30) is None
    assert world.job_row(job_id).as_row() == row.as_row()


def test_a_job_whose_failure_lost_its_answer_stays_failed(world: World) -> None:
    job_id = world.submit()
    world.file.unlink()
    run_forgetfully(world, job_id, "failed")
    assert world.has_ended(job_id, JobState.FAILED, "source_not_found")


@pytest.mark.parametrize("size", [5, 95], ids=["a put", "parts"])
@pytest.mark.parametrize("fate", ["deleted", "replaced"])
def test_a_source_may_go_once_readers_see_the_blob_though_the_worker_died(fate: str, world: World) -> None:
    job_id = world.submit()
    world.crash(job_id, world.dying("complete_upload", "put", when="after"))
    assert world.seen() == world.data
    world.file.unlink()
    if fate == "replaced":
        world.file.write_bytes(b"tomorrow's file")
    world.succeed(job_id)
    assert world.seen() == world.data


@pytest.mark.parametrize("old", [None, OLD], ids=["over nothing", "over an old blob"])
def test_a_completion_that_takes_effect_between_the_look_and_the_list_is_ours(old: bytes | None, world: World) -> None:
    if old is not None:
        world.memory.put(KEY, old)
    job_id, slow = world.submit(), SlowStore(world.memory)
    world.crash(job_id, slow)
    recording = RecordingStore(HookedStore(world.memory, before=at("list_parts", do=slow.arrive)))
    world.succeed(job_id, recording)
    assert (slow.on_its_way, world.job_row(job_id).restarts) == ([], 0)
    assert recording.sent() == [], "nothing is sent again"
    assert world.seen() == world.data


def test_a_part_replaced_behind_our_back_is_sent_again_by_the_next_run(world: World) -> None:
    """A dead worker's request lands between our list of the parts and our completion."""
    job_id, recording = world.submit(), RecordingStore(world.memory)

    def land() -> None:
        (upload_id,) = unfinished(world.memory)
        world.memory.upload_part(KEY, upload_id, 3, b"x" * PART)

    row = world.put_off(job_id, HookedStore(world.memory, before=at("complete_upload", do=land)))
    assert (row.state, row.error_code) == ("retrying", "invalid_part")
    world.succeed(job_id, recording)
    assert (recording.sent(), world.seen()) == ([(3, world.data[2 * PART : 3 * PART])], world.data)


@pytest.mark.parametrize(
    ("before", "wrong"),
    [
        (sent_and_not_completed, {"stores": {"another": tiny_store()}}),
        (sent_and_not_seen, {"stores": {"another": tiny_store()}}),
        (sent_and_not_completed, {"root": "moved"}),
    ],
    ids=["not completed, no such storage", "not seen, no such storage", "not completed, another root directory"],
)
def test_a_worker_with_other_storages_leaves_a_job_past_its_return_to_one_that_has_them(
    before: Callable[[World], str], wrong: dict[str, Any], world: World
) -> None:
    """Its completion is in doubt, so it is not given up."""
    world.memory.put(KEY, OLD)
    job_id = before(world)
    row = world.put_off(job_id, **wrong)
    assert (row.state, row.error_code) == ("retrying", "configuration")
    world.succeed(job_id)
    assert world.seen() == world.data


def test_a_completing_upload_is_kept_when_the_error_says_nothing_about_its_completion(world: World) -> None:
    job_id = sent_and_not_completed(world)
    world.file.unlink()
    world.fail(job_id, "source_not_found")
    (upload,) = world.uploads(job_id)
    assert upload.state == UploadState.COMPLETING
    assert upload.recheck_at is not None
    assert (world.sweep().aborted, len(unfinished(world.memory))) == (0, 1)
    world.change_upload(upload.id, recheck_at=ago(1))
    assert (world.sweep().aborted, unfinished(world.memory)) == (1, [])


def test_a_job_whose_storage_was_moved_fails_and_its_upload_is_not_called_gone(world: World) -> None:
    job_id, moved = world.half_sent(), world.moved_store("bucket")
    assert "storages.default" in world.fail(job_id, "configuration", moved, **AT_ONCE)
    (upload,) = world.uploads(job_id)
    assert (upload.state, upload.bucket, upload.endpoint) == ("aborting", "memory", "")
    assert unfinished(world.memory) == [upload.upload_id]
    assert (list(moved.list_page("").entries), unfinished(moved)) == ([], [])
    world.change_upload(upload.id, recheck_at=ago(1))
    assert world.sweep().aborted == 1, "once it is moved back"
    assert unfinished(world.memory) == []


def test_an_upload_is_gone_on_with_by_every_name_of_its_store(world: World) -> None:
    """Workers with private endpoints of their own take turns, more often than an upload may be begun again."""
    job_id = world.half_sent()
    for turn in range(5):
        store = by_another_name(FaultyStore(world.memory, "upload_part", times=99), f"http://private-{turn}")
        world.put_off(job_id, store, retry={"max_attempts": 99})
    world.succeed(job_id, by_another_name(world.memory))
    row = world.job_row(job_id)
    assert (row.bytes_sent, row.restarts) == (len(world.data), 0)
    (upload,) = world.uploads(job_id)
    assert (upload.state, upload.endpoint) == ("completed", "http://elsewhere:9000")
    assert world.seen() == world.data


@pytest.mark.parametrize("before", [sent_and_not_completed, sent_and_not_seen])
def test_what_was_sent_is_found_by_another_name_of_the_store(before: Callable[[World], str], world: World) -> None:
    job_id, recording = before(world), by_another_name(world.memory)
    world.succeed(job_id, recording)
    assert (recording.sent(), world.job_row(job_id).restarts) == ([], 0)


@pytest.mark.parametrize("before", [sent_and_not_completed, sent_and_not_seen])
def test_what_another_writer_has_replaced_is_not_sent_again_by_another_name(
    before: Callable[[World], str], world: World
) -> None:
    job_id = before(world)
    for upload in unfinished(world.memory):
        world.memory.abort_upload(KEY, upload)
    world.memory.put(KEY, b"theirs")
    world.fail(job_id, "superseded", by_another_name(world.memory))
    assert blob(world.memory, KEY) == b"theirs"


@pytest.mark.parametrize("before", [World.half_sent, sent_and_not_completed, sent_and_not_seen])
def test_an_upload_that_the_present_endpoint_does_not_have_is_begun_again_from_the_source(
    before: Callable[[World], str], world: World
) -> None:
    job_id, moved = before(world), world.moved_store("endpoint")
    for _ in range(2):  # one that was being verified is only begun again by the next run
        world.run(job_id, moved)
        world.change(job_id, run_at=None)
    assert world.has_ended(job_id, JobState.SUCCEEDED)
    assert blob(moved, KEY) == world.data
    old, new = world.uploads(job_id)
    assert (old.state, old.endpoint, new.state, new.endpoint) == ("aborting", "", "completed", "http://elsewhere:9000")
    (remark,) = [attempt.remark for attempt in world.attempts(job_id) if attempt.remark]
    assert "its upload was opened at AWS and is not to be found at http://elsewhere:9000" in remark


def test_an_endpoint_that_changes_more_often_than_an_upload_may_be_lost_fails_no_job(world: World) -> None:
    job_id = world.half_sent()
    for turn in range(5):
        moved = by_another_name(tiny_store(bucket=world.memory.bucket), f"http://elsewhere-{turn}")
        world.put_off(job_id, FaultyStore(moved, "upload_part", fail_at=3, times=99))
    world.succeed(job_id, moved)


@pytest.mark.parametrize("size", [5])
@pytest.mark.parametrize("is_same", [True, False], ids=["the same store", "another store"])
def test_a_small_blob_that_was_put_by_another_name_is_found_or_put_again(is_same: bool, world: World) -> None:
    job_id = world.submit()
    world.crash(job_id, world.dying("put", when="after"))
    store = by_another_name(world.memory if is_same else tiny_store(bucket=world.memory.bucket))
    world.succeed(job_id, store)
    assert blob(store, KEY) == world.data
    assert len(store.named("put")) == (0 if is_same else 1)


def test_a_store_that_may_not_be_asked_for_parts_is_gone_on_with(world: World) -> None:
    job_id = world.half_sent()
    denied = FaultyStore(world.memory, "list_parts", times=99, error=lambda: PermissionDeniedError("no"))
    world.succeed(job_id, by_another_name(denied))
    assert world.job_row(job_id).bytes_sent == len(world.data)


def test_a_store_that_cannot_be_reached_by_its_new_name_is_asked_again_later(world: World) -> None:
    job_id = world.half_sent()
    world.put_off(job_id, by_another_name(FaultyStore(world.memory, "list_parts")))
    world.succeed(job_id, by_another_name(world.memory))
    assert world.job_row(job_id).bytes_sent == len(world.data)


def test_a_job_whose_root_directory_was_changed_fails_and_its_upload_is_aborted_where_it_is(world: World) -> None:
    job_id = world.half_sent()
    assert "rootdirectory" in world.fail(job_id, "configuration", root="moved", **AT_ONCE)
    assert [upload.key for upload in world.uploads(job_id)] == [KEY]
    assert (list(world.memory.list_page("").entries), unfinished(world.memory)) == ([], [])


def test_rows_of_an_unknown_operation_are_left_to_workers_that_know_it(world: World) -> None:
    unknown, sent = [world.submit() for _ in range(8)], list[Message]()
    for job_id in unknown:
        world.change(job_id, operation="teleport", priority=5)
    known = world.submit()

    def send(*messages: Message) -> int:
        sent.extend(messages)
        return len(messages)

    assert world.sweep(publish=send).published == 1
    assert [message.job_id for message in sent] == [known]
    assert world.try_claim(unknown[0]) is None
    rows = [world.job_row(job_id) for job_id in unknown]
    assert {(row.state, row.published_at) for row in rows} == {("queued", None)}


def test_rows_of_a_newer_request_version_are_left_to_workers_that_know_it(world: World) -> None:
    newer = world.submit(request_version=REQUEST_VERSION + 1)
    assert world.try_claim(newer) is None
    world.change(newer, request_version=REQUEST_VERSION)
    assert world.try_claim(newer) is not None


def test_two_thousand_polls_do_not_overflow(world: World) -> None:
    job_id = sent_and_not_seen(world)
    world.change(job_id, polls=2000)
    row = world.put_off(job_id, LyingStore(world.memory), transfer={"verify_seconds": 24 * 3600.0})
    assert (row.state, row.polls, row.error_code) == ("verifying", 2001, None)


@on_each_database
def test_a_permission_that_is_withdrawn_after_a_completion_aborts_nothing(world: World) -> None:
    job_id = world.submit()
    world.put_off(job_id, world.silent_after_completion())

    def refuse(called: str) -> None:
        raise PermissionDeniedError("403")

    world.fail(job_id, "permission_denied", HookedStore(world.memory, before=refuse), **AT_ONCE)
    assert [upload.state for upload in world.uploads(job_id)] == ["completing"]


@on_each_database
class Labelling(WrappedStore):
    """A store whose ETags no column takes."""

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        found = super()._do(name, args, keywords)
        return replace(found, etag=f"{found.etag}\0") if name == "head" else found


@pytest.mark.parametrize("world_database", ["postgres"], indirect=True)  # SQLite refuses nothing
def test_what_the_database_refuses_of_a_source_is_not_written_again_with_the_error(world: World) -> None:
    """A fingerprint waits for the run's next write, which is that of the error if it was refused before."""
    world.cold.put("a", world.data)
    job_id = world.submit(arguments={"source": "blob://cold/a"})
    with world.worker(cold=Labelling(world.cold), retry={"max_attempts": 1}) as runtime:
        outcome = run_job(runtime, job_id)
    assert isinstance(outcome, Finished)
    assert world.has_ended(job_id, JobState.FAILED, "unexpected")
    assert "u0000" in str(world.job_row(job_id).error_message)
    assert [attempt.outcome for attempt in world.attempts(job_id)] == ["failed"], "no worker has died"


def test_an_upload_that_was_lost_before_its_first_checkpoint_is_told_of_too(world: World) -> None:
    job_id = world.submit()
    world.put_off(job_id, FaultyStore(world.memory, "upload_part", times=100))
    (upload,) = world.uploads(job_id)
    world.memory.abort_upload(KEY, str(upload.upload_id))
    world.succeed(job_id)
    remarks = [attempt.remark for attempt in world.attempts(job_id)]
    assert remarks == [None, "its upload had vanished at byte 0: begun again from byte 0"]


def test_an_error_that_the_database_refuses_is_recorded_by_its_code_and_class(world: World) -> None:
    """Else the run ended with nothing recorded, and the job looked like that of a dead worker."""

    def refuse(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        if "unspeakable" in repr(parameters):
            raise ValueError("cannot be encoded")

    event.listen(world.database.engine, "before_cursor_execute", refuse)
    denied = FaultyStore(world.memory, "create_upload", error=lambda: PermissionDeniedError("unspeakable"))
    assert world.fail(world.submit(), "permission_denied", denied) == "PermissionDeniedError"


def test_an_error_that_is_recorded_without_its_message_is_handled_as_before() -> None:
    error = StoreUnavailableError("unspeakable")
    error.resumable, error.retry_after = True, 7.0
    bare = nameless(error)
    assert (str(bare), bare.code) == ("StoreUnavailableError", "store_unavailable")
    assert (bare.transient, bare.resumable, bare.retry_after) == (True, True, 7.0)
