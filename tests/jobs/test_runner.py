"""A job's life, run by run: how each one ends, and what the rows and the store say then."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from blobferry.contract import REQUEST_VERSION, JobState, UploadState
from blobferry.messages.job_messages import Message
from models import Database, queries
from tests.doubles import (
    DeathError,
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
from tests.jobs.job_world import KEY, OLD, PART, PATH, QUICK, World, heartbeat_passes
from tests.models.rows import (
    ago,
    attempts,
    change,
    change_upload,
    claim,
    expire_lease,
    job_row,
    outcomes,
    part_rows,
    try_claim,
    uploads,
)
from worker import drain
from worker.driver import Driver
from worker.errors import (
    ChecksumMismatchError,
    LeaseLostError,
    PermissionDeniedError,
    StoreUnavailableError,
    SupersededError,
    UnreachableError,
    VerificationError,
)
from worker.jobs.outcome import Cancelled, Finished, NotClaimed, Outcome, Rescheduled
from worker.jobs.runner import run_job
from worker.maintenance.caretaker import Caretaker
from worker.runtime import Runtime
from worker.stores.store import Store
from worker.transfer.upload.engine import Engine


@pytest.fixture
def world(sqlite_database: Database, tmp_path: Path) -> World:
    directory = tmp_path / "incoming"
    directory.mkdir()
    return World(sqlite_database, directory)


@pytest.fixture
def small(sqlite_database: Database, tmp_path: Path) -> World:
    """A world whose file is one put."""
    directory = tmp_path / "incoming"
    directory.mkdir()
    return World(sqlite_database, directory, size=5)


def due(world: World, job_id: str) -> None:
    """Time passes until the job may run again."""
    change(world.database, job_id, run_at=ago(1))


def has_ended(world: World, job_id: str, state: JobState, code: str | None = None) -> bool:
    """Whether the row says so, in every column that has a say."""
    row = job_row(world.database, job_id)
    assert (row.state, row.error_code) == (state, code), row.error_message
    assert (row.phase, row.run_at, row.worker, row.lease_expires_at) == (None, None, None, None)
    return row.finished_at is not None


# --- it works --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, PART, 95])
def test_a_job_brings_its_file_to_the_path(size: int, sqlite_database: Database, tmp_path: Path) -> None:
    world = World(sqlite_database, tmp_path, size=size)
    job_id = world.submit(arguments={"content_type": "video/mp4", "metadata": {"title": "seven"}})
    outcome = world.run(job_id)
    assert isinstance(outcome, Finished)
    assert outcome.error is None
    assert blob(world.memory, KEY) == world.data
    head = world.memory.head(KEY)
    assert head.content_type == "video/mp4"
    assert head.metadata["title"] == "seven"
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    row = job_row(world.database, job_id)
    assert outcome.result == row.result
    assert row.result == {"path": PATH, "size": size, "etag": head.etag, "version_id": None}
    assert (row.size, row.bytes_done, row.bytes_sent, row.attempt, row.failures) == (size, size, size, 1, 0)
    assert [(attempt.outcome, attempt.bytes_sent) for attempt in attempts(world.database, job_id)] == [
        ("succeeded", size)
    ]
    assert [upload.state for upload in uploads(world.database, job_id)] == ["completed"]


def test_the_ledger_says_where_the_upload_is_and_the_rows_what_was_sent(world: World) -> None:
    job_id = world.submit()
    world.run(job_id)
    (upload,) = uploads(world.database, job_id)
    assert (upload.key, upload.bucket, upload.endpoint, upload.storage) == (KEY, "memory", "", "default")
    assert (upload.size, upload.part_size) == (95, PART)
    rows = part_rows(world.database, upload.id)
    assert [(row.part_number, row.offset, row.size) for row in rows] == [
        (n + 1, n * PART, min(PART, 95 - n * PART)) for n in range(10)
    ]
    assert all(str(row.checksum).startswith("CRC64NVME:") for row in rows)


def test_running_a_finished_job_again_does_nothing(world: World) -> None:
    job_id = world.submit()
    world.run(job_id)
    before = job_row(world.database, job_id).as_row()
    store = RecordingStore(world.memory)
    assert world.run(job_id, store) == NotClaimed()
    assert store.calls == []
    assert job_row(world.database, job_id).as_row() == before


def test_a_job_that_somebody_else_runs_is_left_alone(world: World) -> None:
    job_id = world.submit()
    claim(world.database, job_id)
    store = RecordingStore(world.memory)
    assert world.run(job_id, store) == NotClaimed()
    assert store.calls == []


# --- errors ----------------------------------------------------------------------------------------------------------


def test_a_transient_error_is_tried_again_later_with_only_what_is_missing(world: World) -> None:
    job_id = world.submit()
    before = datetime.now(UTC)
    outcome = world.run(job_id, FaultyStore(world.memory, "upload_part", fail_at=6))
    assert isinstance(outcome, Rescheduled)
    row = job_row(world.database, job_id)
    assert (row.state, row.error_code, row.attempt, row.worker) == ("retrying", "store_unavailable", 1, None)
    assert row.failures == 1
    assert row.run_at is not None
    assert before - timedelta(seconds=1) <= row.run_at <= datetime.now(UTC) + timedelta(seconds=2)
    assert abs(outcome.when - row.run_at) < timedelta(seconds=1)
    landed = row.bytes_done
    assert landed >= 5 * PART
    due(world, job_id)
    store = RecordingStore(world.memory)
    assert isinstance(world.run(job_id, store), Finished)
    assert sum(len(data) for _, data in store.sent()) == 95 - landed
    assert blob(world.memory, KEY) == world.data
    assert outcomes(world.database, job_id) == ["retrying", "succeeded"]
    assert sum(attempt.bytes_sent for attempt in attempts(world.database, job_id)) == 95
    assert job_row(world.database, job_id).bytes_sent == 95


def test_a_job_is_given_up_after_so_many_runs_without_progress(small: World) -> None:
    job_id = small.submit()
    store = FaultyStore(small.memory, "head", times=100)
    for failures in (1, 2):
        assert isinstance(small.run(job_id, store, retry={"max_attempts": 3}), Rescheduled)
        row = job_row(small.database, job_id)
        assert (row.failures, row.max_attempts) == (failures, 3)
        due(small, job_id)
    outcome = small.run(job_id, store, retry={"max_attempts": 3})
    assert isinstance(outcome, Finished)
    assert outcome.error is not None
    assert outcome.error.code == "store_unavailable"
    assert has_ended(small, job_id, JobState.FAILED, "store_unavailable")
    assert outcomes(small.database, job_id) == ["retrying", "retrying", "failed"]


def test_progress_starts_the_counting_anew(world: World) -> None:
    job_id = world.submit()
    for _ in range(5):
        store = FaultyStore(world.memory, "upload_part", fail_at=2, times=100)
        assert isinstance(world.run(job_id, store, retry={"max_attempts": 2}), Rescheduled)
        assert job_row(world.database, job_id).failures == 1
        due(world, job_id)


def test_a_job_that_ran_out_of_retries_keeps_its_upload_for_a_while(world: World) -> None:
    job_id = world.submit()
    world.run(job_id, FaultyStore(world.memory, "upload_part", fail_at=4, times=100), retry={"max_attempts": 1})
    assert has_ended(world, job_id, JobState.FAILED, "store_unavailable")
    assert len(unfinished(world.memory)) == 1
    (upload,) = uploads(world.database, job_id)
    assert upload.state == "open"
    assert upload.recheck_at is not None
    assert upload.recheck_at - datetime.now(UTC) > timedelta(hours=23)


@pytest.mark.parametrize("verb", ["head", "create_upload", "upload_part", "complete_upload"])
def test_a_permanent_error_fails_at_once_and_leaves_nothing_in_the_store(verb: str, world: World) -> None:
    world.memory.put(KEY, OLD)
    job_id = world.submit()
    store = FaultyStore(world.memory, verb, times=100, error=lambda: PermissionDeniedError("s3: not allowed"))
    outcome = world.run(job_id, store)
    assert isinstance(outcome, Finished)
    assert isinstance(outcome.error, PermissionDeniedError)
    assert has_ended(world, job_id, JobState.FAILED, "permission_denied")
    assert job_row(world.database, job_id).error_message == "s3: not allowed"
    assert blob(world.memory, KEY) == OLD
    assert unfinished(world.memory) == []
    assert {upload.state for upload in uploads(world.database, job_id)} <= {"gone"}


def test_a_surprise_is_tried_again_and_named(world: World) -> None:
    job_id = world.submit()
    outcome = world.run(job_id, FaultyStore(world.memory, "upload_part", error=lambda: ZeroDivisionError("a bug")))
    assert isinstance(outcome, Rescheduled)
    row = job_row(world.database, job_id)
    assert (row.state, row.error_code, row.error_message) == ("retrying", "unexpected", "ZeroDivisionError: a bug")


def test_bytes_damaged_on_the_way_are_sent_again(world: World) -> None:
    job_id = world.submit()
    store = FaultyStore(world.memory, "upload_part", fail_at=3, error=lambda: ChecksumMismatchError("damaged"))
    assert isinstance(world.run(job_id, store), Rescheduled)
    due(world, job_id)
    world.run(job_id)
    assert has_ended(world, job_id, JobState.SUCCEEDED)


@pytest.mark.parametrize(
    ("change_world", "code", "named"),
    [
        (lambda world: world.file.unlink(), "source_not_found", "7.mp4"),
        (lambda world: (world.file.unlink(), world.file.mkdir()), "source_not_allowed", "regular file"),
    ],
    ids=["missing", "directory"],
)
def test_a_source_that_cannot_be_read_fails_the_job_with_nothing_uploaded(
    change_world: Any, code: str, named: str, world: World
) -> None:
    job_id = world.submit()
    change_world(world)
    store = RecordingStore(world.memory)
    outcome = world.run(job_id, store)
    assert isinstance(outcome, Finished)
    assert outcome.error is not None
    assert named in str(outcome.error)
    assert has_ended(world, job_id, JobState.FAILED, code)
    assert named in str(job_row(world.database, job_id).error_message)
    assert store.calls == []


def test_a_source_outside_of_the_roots_fails_the_job_with_nothing_uploaded(world: World, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (world.file.parent / "link").symlink_to(tmp_path / "secret")
    for source in (tmp_path / "secret", world.file.parent / "link"):
        job_id = world.submit(arguments={"source": source.as_uri()})
        store = RecordingStore(world.memory)
        world.run(job_id, store)
        assert has_ended(world, job_id, JobState.FAILED, "source_not_allowed")
        assert store.calls == []


def test_an_unknown_storage_fails_the_job_and_is_named_with_those_there_are(world: World) -> None:
    job_id = world.submit(arguments={"storage": "archive"})
    world.run(job_id)
    assert has_ended(world, job_id, JobState.FAILED, "configuration")
    message = str(job_row(world.database, job_id).error_message)
    assert "storages.archive" in message
    assert "default" in message


def test_a_source_that_changed_between_two_attempts_fails_the_job(world: World) -> None:
    world.memory.put(KEY, OLD)
    job_id = world.submit()
    world.run(job_id, FaultyStore(world.memory, "upload_part", fail_at=6))
    world.file.write_bytes(world.data[::-1])
    due(world, job_id)
    world.run(job_id)
    assert has_ended(world, job_id, JobState.FAILED, "source_changed")
    assert blob(world.memory, KEY) == OLD
    assert unfinished(world.memory) == []


def test_a_blob_that_may_not_be_overwritten_fails_the_job(world: World) -> None:
    world.memory.put(KEY, OLD)
    job_id = world.submit(arguments={"overwrite": False})
    world.run(job_id)
    assert has_ended(world, job_id, JobState.FAILED, "blob_exists")
    assert blob(world.memory, KEY) == OLD


def test_a_blob_of_somebody_else_at_the_last_moment_fails_the_job_and_stays(world: World) -> None:
    def appear(verb: str) -> None:
        if verb == "complete_upload":
            world.memory.put(KEY, b"theirs")

    job_id = world.submit()
    outcome = world.run(job_id, HookedStore(world.memory, before=appear))
    assert isinstance(outcome, Finished)
    assert isinstance(outcome.error, SupersededError)
    assert has_ended(world, job_id, JobState.FAILED, "superseded")
    assert blob(world.memory, KEY) == b"theirs"
    assert unfinished(world.memory) == []


def test_an_upload_that_is_lost_again_and_again_fails_the_job(world: World) -> None:
    world.memory.put(KEY, OLD)

    def lose(verb: str) -> None:
        if verb == "complete_upload":
            for upload_id in unfinished(world.memory):
                world.memory.abort_upload(KEY, upload_id)

    job_id = world.submit()
    world.run(job_id, HookedStore(world.memory, before=lose), retry={"max_restarts": 2})
    assert has_ended(world, job_id, JobState.FAILED, "too_many_restarts")
    assert job_row(world.database, job_id).restarts == 2
    assert blob(world.memory, KEY) == OLD


# --- the Stat poll ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [None, OLD], ids=["new", "over an old blob"])
def test_a_store_that_lags_is_looked_at_until_it_shows_the_blob(old: bytes | None, world: World) -> None:
    if old:
        world.memory.put(KEY, old)
    store = LaggingStore(world.memory, looks=3)
    job_id = world.submit()
    for polls in (1, 2, 3):
        before = datetime.now(UTC)
        assert isinstance(world.run(job_id, store), Rescheduled)
        after = datetime.now(UTC)
        row = job_row(world.database, job_id)
        assert (row.state, row.phase, row.polls, row.attempt) == ("verifying", "verifying", polls, 1)
        assert (row.worker, row.lease_expires_at) == (None, None)  # no slot is held between two looks
        assert row.run_at is not None
        tick = timedelta(milliseconds=1)  # SQLite's clock has no less
        wished = timedelta(seconds=(0.5, 1, 2)[polls - 1])
        assert before + wished - tick <= row.run_at <= after + wished
        due(world, job_id)
    counting = RecordingStore(store)
    assert isinstance(world.run(job_id, counting), Finished)
    assert {call.verb for call in counting.calls} == {"head"}  # nothing is sent again
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert outcomes(world.database, job_id) == ["succeeded"]


def test_a_store_that_lies_for_ever_never_gets_a_success(world: World) -> None:
    store = LyingStore(world.memory)
    job_id = world.submit()
    for _ in range(3):
        assert isinstance(world.run(job_id, store), Rescheduled)
        assert job_row(world.database, job_id).state == "verifying"
        due(world, job_id)
    change(world.database, job_id, verify_until=ago(1))
    outcome = world.run(job_id, store)
    assert isinstance(outcome, Finished)
    assert isinstance(outcome.error, VerificationError)
    assert has_ended(world, job_id, JobState.FAILED, "verification_failed")
    message = str(job_row(world.database, job_id).error_message)
    assert PATH in message
    assert "94 bytes are there instead of 95" in message


def test_a_blob_that_somebody_replaced_before_the_stat_is_not_taken_for_ours(world: World) -> None:
    """Its size is the same; only checksum, mark and ETag tell."""

    def replace(verb: str) -> None:
        if verb == "complete_upload":
            world.memory.put(KEY, b"x" * 95)

    job_id = world.submit()
    assert isinstance(world.run(job_id, HookedStore(world.memory, after=replace)), Rescheduled)
    assert job_row(world.database, job_id).state == "verifying"
    due(world, job_id)
    world.run(job_id, transfer={"verify_seconds": 0})
    change(world.database, job_id, verify_until=ago(1), run_at=ago(1))
    world.run(job_id)
    assert has_ended(world, job_id, JobState.FAILED, "verification_failed")
    assert blob(world.memory, KEY) == b"x" * 95


def test_a_store_that_is_away_during_the_stat_poll_is_asked_again(world: World) -> None:
    job_id = world.submit()
    store = FaultyStore(world.memory, "head", fail_at=3)  # it looks at the beginning, before publishing, after it
    assert isinstance(world.run(job_id, store), Rescheduled)
    assert store.fired == 1
    row = job_row(world.database, job_id)
    assert (row.state, row.phase) == ("retrying", "verifying")
    due(world, job_id)
    counting = RecordingStore(world.memory)
    world.run(job_id, counting)
    assert {call.verb for call in counting.calls} == {"head"}
    assert has_ended(world, job_id, JobState.SUCCEEDED)


# --- slices, drain, cancel, pause -------------------------------------------------------------------------------------


def slowly(world: World, seconds: float = 0.04) -> HookedStore:
    return HookedStore(world.memory, before=lambda verb: time.sleep(seconds) if verb == "upload_part" else None)


def test_a_slice_ends_and_the_job_goes_on_in_the_next_one_without_a_new_attempt(world: World) -> None:
    job_id = world.submit()
    counting, runs = RecordingStore(slowly(world)), 0
    while isinstance(world.run(job_id, counting, transfer={"slice_seconds": 0.1}), Rescheduled):
        runs += 1
        row = job_row(world.database, job_id)
        assert (row.state, row.attempt, row.worker, row.lease_expires_at) == ("queued", 1, None, None)
        assert row.bytes_done > 0
        assert runs < 20
    assert runs >= 1
    assert [number for number, _ in counting.sent()] == list(range(1, 11))  # no part went twice
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert outcomes(world.database, job_id) == ["succeeded"]
    assert blob(world.memory, KEY) == world.data


@pytest.fixture
def draining() -> Iterator[None]:
    """The worker is told to stop, and another one is started afterwards."""
    yield
    drain._flag[0] = 0


@pytest.mark.usefixtures("draining")
def test_a_draining_worker_hands_its_job_over(world: World) -> None:
    job_id = world.submit()
    stop = HookedStore(world.memory, after=lambda verb: drain.start() if verb == "upload_part" else None)
    outcome = world.run(job_id, stop)
    assert isinstance(outcome, Rescheduled)
    assert "shutting down" in outcome.reason
    row = job_row(world.database, job_id)
    assert (row.state, row.worker) == ("queued", None)
    assert 0 < row.bytes_done < 95


def cancel_at(world: World, job_id: str, verb: str, **wishes: bool) -> HookedStore:
    """A store during whose first such call somebody cancels the job, and the heartbeat gets to know."""
    done: list[str] = []

    def wish(called: str) -> None:
        if called == verb and not done:
            done.append(called)
            change(world.database, job_id, **(wishes or {"cancel_requested": True}))
            heartbeat_passes(world, job_id)

    return HookedStore(world.memory, before=wish)


def test_a_cancel_before_the_point_of_no_return_ends_the_job_and_aborts_its_upload(world: World) -> None:
    world.memory.put(KEY, OLD)
    job_id = world.submit()
    outcome = world.run(job_id, cancel_at(world, job_id, "upload_part"), lease=QUICK)
    assert outcome == Cancelled()
    assert has_ended(world, job_id, JobState.CANCELLED)
    assert blob(world.memory, KEY) == OLD
    assert unfinished(world.memory) == []
    assert [upload.state for upload in uploads(world.database, job_id)] == ["gone"]
    assert outcomes(world.database, job_id) == ["cancelled"]


def test_a_cancel_that_the_heartbeat_has_not_seen_still_comes_before_the_point_of_no_return(world: World) -> None:
    """The row decides, in the transaction that passes the point."""
    job_id = world.submit()
    world.run(job_id, cancel_at(world, job_id, "upload_part"))  # heartbeat every 10 s
    assert has_ended(world, job_id, JobState.CANCELLED)
    assert blob(world.memory, KEY) is None
    assert unfinished(world.memory) == []


def test_a_cancel_during_the_publishing_call_is_too_late(world: World) -> None:
    job_id = world.submit()
    world.run(job_id, cancel_at(world, job_id, "complete_upload"), lease=QUICK)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert blob(world.memory, KEY) == world.data


def test_a_cancel_after_a_publishing_call_that_may_have_worked_is_too_late(world: World) -> None:
    """The store answered 503 and shows the old blob; it may still be completing. Aborting now would be a guess."""
    job_id = world.submit()
    cancelled = cancel_at(world, job_id, "complete_upload")
    failing = cancelled.store = FaultyStore(world.memory, "complete_upload")
    world.run(job_id, cancelled, lease=QUICK)
    assert failing.fired == 1
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert blob(world.memory, KEY) == world.data


def test_a_cancel_between_two_runs_past_the_point_of_no_return_is_too_late(world: World) -> None:
    job_id = world.submit()
    world.run(job_id, FaultyStore(world.memory, "complete_upload", times=100))
    row = job_row(world.database, job_id)
    assert (row.state, row.phase) == ("retrying", "completing")
    change(world.database, job_id, cancel_requested=True, run_at=ago(1))
    world.run(job_id)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert blob(world.memory, KEY) == world.data


def test_a_paused_job_keeps_its_upload_and_waits(world: World) -> None:
    job_id = world.submit()
    outcome = world.run(job_id, cancel_at(world, job_id, "upload_part", pause_requested=True), lease=QUICK)
    assert isinstance(outcome, Rescheduled)
    row = job_row(world.database, job_id)
    assert (row.state, row.worker, row.attempt) == ("paused", None, 1)
    assert len(unfinished(world.memory)) == 1
    assert world.run(job_id) == NotClaimed()
    change(world.database, job_id, state="queued", pause_requested=False)
    world.run(job_id)
    assert has_ended(world, job_id, JobState.SUCCEEDED)


# --- a lost lease -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["head", "create_upload", "upload_part", "complete_upload"])
def test_a_run_whose_job_was_taken_over_writes_nothing_more(verb: str, world: World) -> None:
    """SIGSTOP, a suspended machine: this run sleeps, the job goes to another worker, this run wakes up."""
    job_id = world.submit()
    taken: list[dict[str, Any]] = []
    once = threading.Semaphore(1)

    def take_over(called: str) -> None:
        if called == verb and once.acquire(blocking=False):
            expire_lease(world.database, job_id)
            claim(world.database, job_id, worker="host:2")
            taken.append(job_row(world.database, job_id).as_row())

    store = RecordingStore(HookedStore(world.memory, before=take_over))
    assert world.run(job_id, store) == NotClaimed()
    assert job_row(world.database, job_id).as_row() == taken[0]
    assert outcomes(world.database, job_id) == ["died", None]
    if verb != "complete_upload":
        assert blob(world.memory, KEY) is None
        assert store.named("complete_upload") == []


def test_the_run_that_took_over_finishes_what_the_other_one_published(world: World) -> None:
    """The old owner's commit call was under way; the new one looks and finds its own blob."""
    job_id = world.submit()

    def take_over(called: str) -> None:
        if called == "complete_upload" and not outcomes(world.database, job_id)[0]:
            expire_lease(world.database, job_id)
            with world.database.begin() as session:
                queries.requeue_expired(session, limit=1, failed_upload_seconds=60)

    assert world.run(job_id, HookedStore(world.memory, after=take_over)) == NotClaimed()
    counting = RecordingStore(world.memory)
    assert isinstance(world.run(job_id, counting), Finished)
    assert {call.verb for call in counting.calls} == {"head"}
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert outcomes(world.database, job_id) == ["died", "succeeded"]


def test_a_failed_job_that_is_slow_to_abort_its_upload_stays_failed(world: World) -> None:
    """The heartbeat goes on beside the abort; what it renews must not be the lease of an ended job."""
    job_id = world.submit()
    denied = FaultyStore(world.memory, "complete_upload", times=9, error=lambda: PermissionDeniedError("no"))

    def linger(verb: str) -> None:
        if verb == "abort_upload":
            threading.Event().wait(0.2)

    slow = HookedStore(denied, before=linger)
    world.run(job_id, slow, lease=QUICK)
    assert has_ended(world, job_id, JobState.FAILED, "permission_denied")


DAY = 24 * 3600.0


def make_world(database: Database, directory: Path, size: int = 95) -> World:
    incoming = directory / "incoming"
    incoming.mkdir()
    return World(database, incoming, size)


def sweep(world: World, store: Store | None = None) -> int:
    """One sweep; how many uploads it aborted."""
    with world.worker(store) as runtime:
        return Caretaker(runtime, lambda message: True).sweep().aborted


def died(world: World, job_id: str, store: Store) -> None:
    """A run whose worker dies, and whose lease runs out."""
    with pytest.raises(DeathError):
        world.run(job_id, store)
    expire_lease(world.database, job_id)


@contextmanager
def worker_with(world: World, **stores: tuple[Store, str]) -> Iterator[Runtime]:
    """A worker with these storages, each a store and its root directory."""
    engine = Engine(part_size=PART, part_threads=1)
    drivers = {name: Driver(store, root=root, engine=engine) for name, (store, root) in stores.items()}
    with world.worker() as usual:
        runtime = Runtime(usual.settings, database=world.database, drivers=drivers)
        try:
            yield runtime
        finally:
            runtime.engine.close()
            engine.close()


def run_with(world: World, job_id: str, **stores: tuple[Store, str]) -> Outcome:
    with worker_with(world, **stores) as runtime:
        return run_job(runtime, job_id)


def half_sent(world: World) -> str:
    """A job whose first run had to stop after five parts."""
    job_id = world.submit()
    assert isinstance(world.run(job_id, FaultyStore(world.memory, "upload_part", fail_at=6, times=100)), Rescheduled)
    due(world, job_id)
    return job_id


def sent_and_not_completed(world: World) -> str:
    """A job whose completion the store answers with 503, so that nobody knows whether it will work."""
    job_id = world.submit()
    assert isinstance(world.run(job_id, FaultyStore(world.memory, "complete_upload", times=100)), Rescheduled)
    assert job_row(world.database, job_id).phase == "completing"
    due(world, job_id)
    return job_id


def sent_and_not_seen(world: World) -> str:
    """A job whose blob Stat does not show yet."""
    job_id = world.submit()
    assert isinstance(world.run(job_id, LaggingStore(world.memory, 3)), Rescheduled)
    assert job_row(world.database, job_id).phase == "verifying"
    due(world, job_id)
    return job_id


class ForgetfulDatabase(Database):
    """Commits, and loses the answer of the one commit that brings the job into this state."""

    def __init__(self, url: str, job_id: str, state: str) -> None:
        super().__init__(url)
        self.lost = 0
        self._job_id = job_id
        self._state = state

    @contextmanager
    def begin(self) -> Iterator[Session]:
        with super().begin() as session:
            yield session
        if self.lost:
            return
        with super().begin() as session:
            job = queries.find_job(session, self._job_id)
        if job is not None and job.state == self._state:
            self.lost += 1
            raise UnreachableError("server closed the connection unexpectedly")


def run_forgetfully(world: World, job_id: str, state: str) -> Outcome:
    database = ForgetfulDatabase(str(world.database.engine.url), job_id, state)
    with world.worker(database=database) as runtime:
        outcome = run_job(runtime, job_id)
    assert database.lost == 1
    database.close()
    return outcome


def test_a_job_whose_last_commit_lost_its_answer_has_succeeded_and_says_so(world: World) -> None:
    job_id = world.submit()
    outcome = run_forgetfully(world, job_id, "succeeded")
    row = job_row(world.database, job_id)
    assert (row.state, row.error_code, row.attempt) == ("succeeded", None, 1)
    assert row.result is not None
    assert outcome == Finished(result=row.result)
    assert outcomes(world.database, job_id) == ["succeeded"]
    world.file.unlink()  # whoever sees "succeeded" may do that
    due(world, job_id)
    assert world.run(job_id) == NotClaimed()
    assert job_row(world.database, job_id).state == "succeeded"


def test_a_run_that_has_ended_writes_nothing_more(world: World) -> None:
    job_id = world.submit()
    world.run(job_id)
    row = job_row(world.database, job_id)
    with pytest.raises(LeaseLostError), world.database.begin() as session:
        queries.update_owned(session, job_id, row.token, state="retrying")
    with world.database.begin() as session:
        assert queries.extend_lease(session, job_id, row.token, 30) is None
    assert job_row(world.database, job_id).as_row() == row.as_row()


def test_a_job_whose_failure_lost_its_answer_stays_failed(world: World) -> None:
    job_id = world.submit()
    world.file.unlink()
    run_forgetfully(world, job_id, "failed")
    row = job_row(world.database, job_id)
    assert (row.state, row.error_code) == ("failed", "source_not_found")


@pytest.mark.parametrize("size", [5, 95], ids=["a put", "parts"])
@pytest.mark.parametrize("fate", ["deleted", "replaced"])
def test_a_source_may_go_once_readers_see_the_blob_though_the_worker_died(
    fate: str, size: int, sqlite_database: Database, tmp_path: Path
) -> None:
    world = make_world(sqlite_database, tmp_path, size)
    job_id = world.submit()
    died(world, job_id, FaultyStore(world.memory, "complete_upload", "put", when="after", error=DeathError))
    assert blob(world.memory, KEY) == world.data
    if fate == "deleted":
        world.file.unlink()
    else:
        world.file.write_bytes(b"tomorrow's file")
    outcome = world.run(job_id)
    assert isinstance(outcome, Finished)
    assert outcome.error is None
    assert job_row(world.database, job_id).state == "succeeded"
    assert blob(world.memory, KEY) == world.data


@pytest.mark.parametrize("old", [None, OLD], ids=["over nothing", "over an old blob"])
def test_a_completion_that_takes_effect_between_the_look_and_the_list_is_ours(old: bytes | None, world: World) -> None:
    if old is not None:
        world.memory.put(KEY, old)
    job_id = world.submit()
    on_its_way: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    class SlowStore(WrappedStore):
        """Its worker dies while a completion is on its way."""

        def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
            if name == "complete_upload":
                on_its_way.append((args, keywords))
                raise DeathError
            return super()._do(name, args, keywords)

    def arrive(verb: str) -> None:
        if verb == "list_parts" and on_its_way:
            args, keywords = on_its_way.pop()
            world.memory.complete_upload(*args, **keywords)

    died(world, job_id, SlowStore(world.memory))
    recording = RecordingStore(HookedStore(world.memory, before=arrive))
    outcome = world.run(job_id, recording)
    assert on_its_way == []
    assert isinstance(outcome, Finished)
    row = job_row(world.database, job_id)
    assert (row.state, row.error_code, row.restarts) == ("succeeded", None, 0)
    assert recording.sent() == [], "nothing is sent again"
    assert blob(world.memory, KEY) == world.data


def test_a_part_replaced_behind_our_back_is_sent_again_by_the_next_run(world: World) -> None:
    """A dead worker's request lands between our list of the parts and our completion."""
    job_id = world.submit()
    late = [3]

    def land(verb: str) -> None:
        if verb == "complete_upload" and late:
            (upload_id,) = unfinished(world.memory)
            world.memory.upload_part(KEY, upload_id, late.pop(), b"x" * PART)

    assert isinstance(world.run(job_id, HookedStore(world.memory, before=land)), Rescheduled)
    row = job_row(world.database, job_id)
    assert (row.state, row.error_code) == ("retrying", "invalid_part")
    due(world, job_id)
    recording = RecordingStore(world.memory)
    assert isinstance(world.run(job_id, recording), Finished)
    assert recording.sent() == [(3, world.data[2 * PART : 3 * PART])]
    assert job_row(world.database, job_id).state == "succeeded"
    assert blob(world.memory, KEY) == world.data


@pytest.mark.parametrize("before", [sent_and_not_completed, sent_and_not_seen])
def test_a_worker_without_the_storage_leaves_a_job_past_its_return_to_one_that_has_it(
    before: Any, world: World
) -> None:
    job_id = before(world)
    assert isinstance(run_with(world, job_id, another=(tiny_store(), "")), Rescheduled)
    row = job_row(world.database, job_id)
    assert (row.state, row.error_code) == ("retrying", "configuration")
    due(world, job_id)
    assert isinstance(world.run(job_id), Finished)
    assert job_row(world.database, job_id).state == "succeeded"
    assert blob(world.memory, KEY) == world.data


def test_a_completing_upload_is_kept_when_the_error_says_nothing_about_its_completion(world: World) -> None:
    job_id = sent_and_not_completed(world)
    world.file.unlink()
    assert isinstance(world.run(job_id), Finished)
    row = job_row(world.database, job_id)
    assert (row.state, row.error_code) == ("failed", "source_not_found")
    (upload,) = uploads(world.database, job_id)
    assert upload.state == UploadState.COMPLETING
    assert upload.recheck_at is not None
    assert sweep(world) == 0
    assert len(unfinished(world.memory)) == 1
    change_upload(world.database, upload.id, recheck_at=ago(1))
    assert sweep(world) == 1
    assert unfinished(world.memory) == []


def moved_store(what: str) -> Store:
    """The storage's store after somebody has changed its bucket or its endpoint."""
    store = WrappedStore(tiny_store(bucket="other" if what == "bucket" else "memory"))
    if what == "endpoint":
        store.endpoint = "http://elsewhere:9000"
    return store


def test_a_job_whose_storage_was_moved_fails_and_its_upload_is_not_called_gone(world: World) -> None:
    job_id = half_sent(world)
    moved = moved_store("bucket")
    outcome = world.run(job_id, moved)
    assert isinstance(outcome, Finished)
    row = job_row(world.database, job_id)
    assert (row.state, row.error_code) == ("failed", "configuration")
    assert "storages.default" in str(row.error_message)
    (upload,) = uploads(world.database, job_id)
    assert (upload.state, upload.bucket, upload.endpoint) == ("aborting", "memory", "")
    assert unfinished(world.memory) == [upload.upload_id]
    assert unfinished(moved) == []
    assert blob(moved, KEY) is None
    change_upload(world.database, upload.id, recheck_at=ago(1))
    assert sweep(world) == 1, "once it is moved back"
    assert unfinished(world.memory) == []


def by_another_name(store: Store, endpoint: str = "http://elsewhere:9000") -> RecordingStore:
    """The very same store, reached by another endpoint."""
    renamed = WrappedStore(store)
    renamed.endpoint = endpoint
    return RecordingStore(renamed)


def test_an_upload_is_gone_on_with_by_every_name_of_its_store(world: World) -> None:
    """Workers with private endpoints of their own take turns, more often than an upload may be begun again."""
    job_id = half_sent(world)
    for turn in range(5):
        store = by_another_name(FaultyStore(world.memory, "upload_part", times=99), f"http://private-{turn}")
        assert isinstance(world.run(job_id, store, retry={"max_attempts": 99}), Rescheduled)
        due(world, job_id)
    assert isinstance(world.run(job_id, by_another_name(world.memory)), Finished)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    row = job_row(world.database, job_id)
    assert (row.bytes_sent, row.restarts) == (len(world.data), 0)
    (upload,) = uploads(world.database, job_id)
    assert (upload.state, upload.endpoint) == ("completed", "http://elsewhere:9000")
    assert blob(world.memory, KEY) == world.data


@pytest.mark.parametrize("before", [sent_and_not_completed, sent_and_not_seen])
def test_what_was_sent_is_found_by_another_name_of_the_store(before: Any, world: World) -> None:
    job_id = before(world)
    recording = by_another_name(world.memory)
    world.run(job_id, recording)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert recording.sent() == []
    assert job_row(world.database, job_id).restarts == 0


@pytest.mark.parametrize("before", [half_sent, sent_and_not_completed, sent_and_not_seen])
def test_an_upload_that_the_present_endpoint_does_not_have_is_begun_again_from_the_source(
    before: Any, world: World
) -> None:
    job_id, moved = before(world), moved_store("endpoint")
    for _ in range(2):  # one that was being verified is only begun again by the next run
        world.run(job_id, moved)
        change(world.database, job_id, run_at=None)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert blob(moved, KEY) == world.data
    old, new = uploads(world.database, job_id)
    assert (old.state, old.endpoint, new.state, new.endpoint) == ("aborting", "", "completed", "http://elsewhere:9000")
    remarks = [attempt.remark for attempt in attempts(world.database, job_id) if attempt.remark]
    assert len(remarks) == 1
    assert "its upload was opened at AWS and is not to be found at http://elsewhere:9000" in str(remarks[0])


def test_an_endpoint_that_changes_more_often_than_an_upload_may_be_lost_fails_no_job(world: World) -> None:
    job_id = half_sent(world)
    for turn in range(5):
        moved = moved_store("endpoint")
        moved.endpoint = f"http://elsewhere-{turn}"
        assert isinstance(world.run(job_id, FaultyStore(moved, "upload_part", fail_at=3, times=99)), Rescheduled)
        due(world, job_id)
    assert isinstance(world.run(job_id, moved), Rescheduled | Finished)
    assert has_ended(world, job_id, JobState.SUCCEEDED)


@pytest.mark.parametrize("is_same", [True, False])
def test_a_small_blob_that_was_put_by_another_name_is_found_or_put_again(is_same: bool, world: World) -> None:
    world.file.write_bytes(b"small")
    job_id = world.submit()
    with pytest.raises(DeathError):
        world.run(job_id, FaultyStore(world.memory, "put", when="after", error=DeathError))
    expire_lease(world.database, job_id)
    store = by_another_name(world.memory if is_same else tiny_store(bucket="memory"))
    assert isinstance(world.run(job_id, store), Finished)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert blob(store, KEY) == b"small"
    assert [call.verb for call in store.calls].count("put") == (0 if is_same else 1)


def test_a_store_that_may_not_be_asked_for_parts_is_gone_on_with(world: World) -> None:
    job_id = half_sent(world)
    denied = FaultyStore(world.memory, "list_parts", times=99, error=lambda: PermissionDeniedError("no"))
    assert isinstance(world.run(job_id, by_another_name(denied)), Finished)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert job_row(world.database, job_id).bytes_sent == len(world.data)


def test_a_store_that_cannot_be_reached_by_its_new_name_is_asked_again_later(world: World) -> None:
    job_id = half_sent(world)
    away = FaultyStore(world.memory, "list_parts", error=lambda: StoreUnavailableError("503"))
    assert isinstance(world.run(job_id, by_another_name(away)), Rescheduled)
    due(world, job_id)
    assert isinstance(world.run(job_id, by_another_name(world.memory)), Finished)
    assert job_row(world.database, job_id).bytes_sent == len(world.data)


def test_a_job_whose_root_directory_was_changed_fails_and_its_upload_is_aborted_where_it_is(world: World) -> None:
    job_id = half_sent(world)
    assert isinstance(run_with(world, job_id, default=(world.memory, "moved")), Finished)
    row = job_row(world.database, job_id)
    assert (row.state, row.error_code) == ("failed", "configuration")
    assert "rootdirectory" in str(row.error_message)
    assert [upload.key for upload in uploads(world.database, job_id)] == [KEY]
    assert unfinished(world.memory) == []
    assert blob(world.memory, f"moved/{KEY}") is None


def test_a_completion_in_doubt_is_not_given_up_because_the_root_directory_was_changed(world: World) -> None:
    world.memory.put(KEY, OLD)
    job_id = sent_and_not_completed(world)
    run_with(world, job_id, default=(world.memory, "moved"))
    row = job_row(world.database, job_id)
    assert (row.state, row.error_code) == ("retrying", "configuration")
    due(world, job_id)
    assert isinstance(world.run(job_id), Finished)
    assert blob(world.memory, KEY) == world.data


def test_rows_of_an_unknown_operation_are_left_to_workers_that_know_it(world: World) -> None:
    unknown = [world.submit() for _ in range(8)]
    for job_id in unknown:
        change(world.database, job_id, operation="teleport", priority=5)
    known = world.submit()
    sent: list[Message] = []

    def send(message: Message) -> bool:
        sent.append(message)
        return True

    with world.worker() as runtime:
        assert Caretaker(runtime, send).sweep().published == 1
    assert [message.job_id for message in sent] == [known]
    assert try_claim(world.database, unknown[0]) is None
    assert {job_row(world.database, job_id).state for job_id in unknown} == {"queued"}
    assert {job_row(world.database, job_id).published_at for job_id in unknown} == {None}


def test_rows_of_a_newer_request_version_are_left_to_workers_that_know_it(world: World) -> None:
    newer = world.submit(request_version=REQUEST_VERSION + 1)
    assert try_claim(world.database, newer) is None
    change(world.database, newer, request_version=REQUEST_VERSION)
    assert try_claim(world.database, newer) is not None


def test_two_thousand_polls_do_not_overflow(world: World) -> None:
    job_id = sent_and_not_seen(world)
    change(world.database, job_id, polls=2000)
    outcome = world.run(job_id, LyingStore(world.memory), transfer={"verify_seconds": DAY})
    assert isinstance(outcome, Rescheduled)
    row = job_row(world.database, job_id)
    assert (row.state, row.polls, row.error_code) == ("verifying", 2001, None)


@pytest.fixture
def each_world(database: Database, tmp_path: Path) -> World:
    directory = tmp_path / "incoming"
    directory.mkdir()
    return World(database, directory, size=400)


def lose_the_answers(each_world: World, job_id: str, **sections: Any) -> Any:
    """A run whose completion takes effect, and which then hears nothing more of the store."""
    completed = False

    def after(called: str) -> None:
        nonlocal completed
        completed = completed or called == "complete_upload"
        if completed:
            raise StoreUnavailableError("no answer")

    return each_world.run(job_id, HookedStore(each_world.memory, after=after), **sections)


def test_a_permission_that_is_withdrawn_after_a_completion_aborts_nothing(each_world: World) -> None:
    job_id = each_world.submit()
    assert isinstance(lose_the_answers(each_world, job_id), Rescheduled)
    change(each_world.database, job_id, run_at=ago(1))

    def refuse(called: str) -> None:
        raise PermissionDeniedError("403")

    assert isinstance(each_world.run(job_id, HookedStore(each_world.memory, before=refuse)), Finished)
    assert [upload.state for upload in uploads(each_world.database, job_id)] == ["completing"]


def test_an_upload_that_was_lost_before_its_first_checkpoint_is_told_of_too(each_world: World) -> None:
    job_id = each_world.submit()

    def refuse(called: str) -> None:
        if called == "upload_part":
            raise StoreUnavailableError("503")

    assert isinstance(each_world.run(job_id, HookedStore(each_world.memory, before=refuse)), Rescheduled)
    (upload,) = uploads(each_world.database, job_id)
    each_world.memory.abort_upload(KEY, str(upload.upload_id))
    change(each_world.database, job_id, run_at=ago(1))
    assert isinstance(each_world.run(job_id), Finished)
    assert [attempt.remark for attempt in attempts(each_world.database, job_id)] == [
        None,
        "its upload had vanished at byte 0: begun again from byte 0",
    ]


def test_an_error_that_the_database_refuses_is_recorded_by_its_code_and_class(world: World) -> None:
    """Else the run ended with nothing recorded, and the job looked like that of a dead worker."""

    def refuse(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        if "unspeakable" in repr(parameters):
            raise ValueError("cannot be encoded")

    event.listen(world.database.engine, "before_cursor_execute", refuse)
    job_id = world.submit()
    denied = FaultyStore(world.memory, "create_upload", error=lambda: PermissionDeniedError("unspeakable"))
    assert isinstance(world.run(job_id, denied), Finished)
    assert has_ended(world, job_id, JobState.FAILED, "permission_denied")
    assert job_row(world.database, job_id).error_message == "PermissionDeniedError"
