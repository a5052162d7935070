"""The checkpoint contract: what a transfer may rely on, whether it writes to memory or to SQL.

And what only SQL can know: that the job belongs to another run by now.
"""

import re
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from operator import methodcaller
from typing import Any, TypeVar

import pytest

from blobferry.contract import JobState, Phase, UploadState
from models import Database, JobRow, queries
from tests.doubles import tiny_store
from tests.models.rows import (
    attempts,
    change,
    claim,
    expire_lease,
    in_transaction,
    job_row,
    lease_of,
    part_rows,
    submit,
    uploads,
)
from worker.errors import LeaseLostError, SourceChangedError, TooManyRestartsError
from worker.jobs.mark import mark_of
from worker.jobs.sql_checkpoint import SqlCheckpoint
from worker.transfer.checkpoint import Checkpoint, MemoryCheckpoint, SavedUpload, SentPart, VisibleVersion
from worker.transfer.stop import Interrupted

BASE = VisibleVersion('"old"', datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC))
NEWER = VisibleVersion('"newer"', datetime(2026, 2, 3, tzinfo=UTC))
FINGERPRINT = {"size": 35, "mtime_ns": 1_790_000_000_123_456_789}
PARTS = [SentPart(n, (n - 1) * 10, 10, f'"{n}"', f"CRC64NVME:{b64encode(bytes(8)).decode()}") for n in (1, 2, 3)]

KINDS = ["memory", "sqlite", "postgres"]
Reopen = Callable[[], Checkpoint]
AnyCheckpoint = TypeVar("AnyCheckpoint", bound=Checkpoint)


class SqlJob:
    """A claimed job, and the checkpoints of its run."""

    def __init__(self, database: Database, *, max_restarts: int = 3) -> None:
        self.database = database
        self.store = tiny_store()
        self.max_restarts = max_restarts
        self.job_id = submit(database, size=None)
        self.job = claim(database, self.job_id)

    def open(self) -> SqlCheckpoint:
        """The checkpoint of this run."""
        return SqlCheckpoint(lease_of(self.database, self.job), self.store, max_restarts=self.max_restarts)

    def next_run(self) -> SqlCheckpoint:
        """The checkpoint of another worker, after this one has died."""
        expire_lease(self.database, self.job_id)
        self.job = claim(self.database, self.job_id)
        return self.open()

    def row(self) -> JobRow:
        return job_row(self.database, self.job_id)

    def bytes_done_and_sent(self) -> tuple[int, int]:
        return self.row().bytes_done, self.row().bytes_sent


@pytest.fixture(params=KINDS)
def reopen(request: pytest.FixtureRequest) -> Reopen:
    """Gives the checkpoint; called again, as another process would have it."""
    if request.param == "memory":
        checkpoint = MemoryCheckpoint(mark_of("job"))
        return lambda: checkpoint
    job: list[SqlJob] = []

    def open_() -> Checkpoint:
        if job:
            return job[0].next_run()
        job.append(SqlJob(request.getfixturevalue(f"{request.param}_database")))
        return job[0].open()

    return open_


@pytest.fixture
def sql(database: Database) -> SqlJob:
    return SqlJob(database)


@pytest.fixture
def run(sql: SqlJob) -> SqlCheckpoint:
    """The checkpoint of a first run that has opened its upload."""
    return opened(sql.open())


def opened(checkpoint: AnyCheckpoint, upload_id: str | None = "id-1") -> AnyCheckpoint:
    checkpoint.pin_source(35, FINGERPRINT)
    assert checkpoint.opening("videos/7.mp4", size=35, part_size=10, base=BASE) == checkpoint.load()
    if upload_id:
        assert checkpoint.opened(upload_id) == checkpoint.load()
    return checkpoint


def loaded(checkpoint: Checkpoint) -> SavedUpload:
    upload = checkpoint.load()
    assert upload is not None
    return upload


# --- the contract ----------------------------------------------------------------------------------------------------


def test_a_new_checkpoint_has_nothing_to_go_on_with(reopen: Reopen) -> None:
    assert reopen().load() is None


def test_an_upload_is_written_down_before_it_has_an_id(reopen: Reopen) -> None:
    opened(reopen(), upload_id=None)
    upload = loaded(reopen())
    assert (upload.key, upload.size, upload.part_size, upload.base) == ("videos/7.mp4", 35, 10, BASE)
    assert (upload.state, upload.upload_id, dict(upload.parts), upload.etag) == (UploadState.OPENING, None, {}, None)
    assert abs(upload.opened_at - datetime.now(UTC)) < timedelta(seconds=10)


def test_a_put_is_written_down_without_a_part_size_before_its_call(reopen: Reopen) -> None:
    checkpoint = reopen()
    checkpoint.pin_source(5, FINGERPRINT)
    checkpoint.opening("a", size=5, part_size=None, base=VisibleVersion())
    checkpoint.completing(BASE)
    assert loaded(checkpoint).state == UploadState.COMPLETING
    checkpoint = reopen()
    upload = loaded(checkpoint)
    assert (upload.part_size, upload.size, upload.base, upload.state) == (None, 5, BASE, UploadState.COMPLETING)
    with pytest.raises(SourceChangedError):
        checkpoint.pin_source(6, FINGERPRINT | {"size": 6})


def test_what_is_held_is_what_another_process_finds(reopen: Reopen) -> None:
    checkpoint = opened(reopen())
    checkpoint.record(PARTS, bytes_sent=30)
    checkpoint.drop([2])
    checkpoint.completing(NEWER)
    checkpoint.refused()
    held = loaded(checkpoint)
    assert loaded(reopen()) == held


AGAIN = SentPart(2, 10, 10, '"again"', None)
SEND_ALL = methodcaller("record", PARTS, bytes_sent=30)
COMPLETING, COMPLETED = methodcaller("completing", NEWER), methodcaller("completed", '"new"', "v1")
#: What a process does with an open upload, and what another one finds.
WRITTEN: dict[str, tuple[list[Callable[[Checkpoint], None]], dict[str, Any]]] = {
    "its id": ([], {"state": UploadState.OPEN, "upload_id": "id-1"}),
    "recorded parts": (
        [methodcaller("record", PARTS[1:], bytes_sent=20), methodcaller("record", PARTS[:1], bytes_sent=10)],
        {"parts": {1: PARTS[0], 2: PARTS[1], 3: PARTS[2]}},
    ),
    "the newer values of a part that is recorded again": (
        [SEND_ALL, methodcaller("record", [AGAIN], bytes_sent=10)],
        {"parts": {1: PARTS[0], 2: AGAIN, 3: PARTS[2]}},
    ),
    "no dropped part": ([SEND_ALL, methodcaller("drop", [1, 3])], {"parts": {2: PARTS[1]}}),
    "the point of no return, and what was visible": ([COMPLETING], {"state": UploadState.COMPLETING, "base": NEWER}),
    "the point of no return that was passed again": (
        [COMPLETING, methodcaller("completing", VisibleVersion())],
        {"base": VisibleVersion()},
    ),
    "a completed upload and its parts": (
        [SEND_ALL, COMPLETING, COMPLETED],
        {"state": UploadState.COMPLETED, "etag": '"new"', "parts": {1: PARTS[0], 2: PARTS[1], 3: PARTS[2]}},
    ),
}


@pytest.mark.parametrize(("calls", "expected"), WRITTEN.values(), ids=WRITTEN)
def test_another_process_finds_what_was_written(
    calls: list[Callable[[Checkpoint], None]], expected: dict[str, Any], reopen: Reopen
) -> None:
    checkpoint = opened(reopen())
    for call in calls:
        call(checkpoint)
    upload = loaded(reopen())
    assert {name: getattr(upload, name) for name in expected} == expected


@pytest.mark.parametrize("gone", [True, False])
def test_an_abandoned_upload_is_not_gone_on_with_and_the_next_has_no_parts(gone: bool, reopen: Reopen) -> None:
    checkpoint = opened(reopen())
    checkpoint.record(PARTS, bytes_sent=30)
    checkpoint.abandon(gone=gone)
    assert checkpoint.load() is None
    checkpoint = reopen()
    assert checkpoint.load() is None
    opened(checkpoint, "id-2")
    upload = loaded(reopen())
    assert (upload.upload_id, dict(upload.parts)) == ("id-2", {})


def test_ids_are_known_once_saved_and_as_long_as_they_may_be_open(reopen: Reopen) -> None:
    checkpoint = opened(reopen(), upload_id=None)
    assert checkpoint.known_upload_ids("videos/7.mp4") == set()
    checkpoint.opened("id-1")
    assert checkpoint.known_upload_ids("videos/7.mp4") == {"id-1"}
    checkpoint.abandon(gone=False)
    opened(checkpoint, "id-2")
    assert checkpoint.known_upload_ids("videos/7.mp4") == {"id-1", "id-2"}


def test_the_same_source_can_be_pinned_again_and_another_one_not(reopen: Reopen) -> None:
    opened(reopen())
    checkpoint = reopen()
    checkpoint.pin_source(35, dict(FINGERPRINT))
    for change_ in ({"size": 36}, {"mtime_ns": 1}):
        with pytest.raises(SourceChangedError):
            checkpoint.pin_source(35, FINGERPRINT | change_)
    with pytest.raises(SourceChangedError):
        reopen().pin_source(35, FINGERPRINT | {"mtime_ns": 2})


def test_the_mark_is_the_same_in_every_run_and_another_for_every_job(reopen: Reopen) -> None:
    mark = reopen().mark
    assert reopen().mark == mark
    assert mark not in ("", mark_of("another"))


# --- only SQL --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("job_id", ["a", "ä\n☃" * 50], ids=ascii)
def test_the_mark_of_any_job_id_can_be_sent_in_a_header(job_id: str) -> None:
    assert re.fullmatch("[0-9A-Za-z]+", mark_of(job_id))
    assert mark_of(job_id) == mark_of(job_id)


def test_the_row_counts_bytes_done_and_sent_and_the_history_its_own(run: SqlCheckpoint, sql: SqlJob) -> None:
    assert not run.progressed
    run.record(PARTS[:1], bytes_sent=0, progressed=False)  # adopted
    assert not run.progressed
    run.record(PARTS[1:], bytes_sent=20)
    assert run.progressed
    assert sql.bytes_done_and_sent() == (30, 20)
    run.drop([3])
    assert sql.bytes_done_and_sent() == (20, 20)
    checkpoint = sql.next_run()
    checkpoint.load()
    checkpoint.record(PARTS[2:], bytes_sent=10)
    checkpoint.completing(BASE)
    checkpoint.completed('"new"', "v1")
    row = sql.row()
    assert (row.bytes_done, row.bytes_sent, row.phase, row.etag, row.version_id) == (35, 30, "verifying", '"new"', "v1")
    in_transaction(sql.database, queries.release_job, sql.job, JobState.QUEUED)
    assert [attempt.bytes_sent for attempt in attempts(sql.database, sql.job_id)] == [20, 10]


def test_a_part_that_is_recorded_again_counts_once_as_done(run: SqlCheckpoint, sql: SqlJob) -> None:
    run.record(PARTS, bytes_sent=30)
    run.drop([2])
    run.record([PARTS[1]], bytes_sent=10)
    assert sql.bytes_done_and_sent() == (30, 40)


def test_a_cancel_that_came_first_wins_over_the_point_of_no_return(run: SqlCheckpoint, sql: SqlJob) -> None:
    change(sql.database, sql.job_id, cancel_requested=True)
    with pytest.raises(Interrupted):
        run.completing(NEWER)
    (upload,) = uploads(sql.database, sql.job_id)
    assert (upload.state, upload.base_etag) == ("open", '"old"')
    assert sql.row().phase == Phase.UPLOADING


def test_an_abandoned_upload_is_aborting_or_gone_and_the_job_begins_at_byte_0(sql: SqlJob) -> None:
    for gone, state in ((False, "aborting"), (True, "gone")):
        checkpoint = opened(sql.open())
        checkpoint.record(PARTS, bytes_sent=30)
        checkpoint.abandon(gone=gone)
        assert uploads(sql.database, sql.job_id)[-1].state == state
        assert (sql.row().bytes_done, sql.row().phase) == (0, "uploading")
    assert sql.row().restarts == 2


def test_an_upload_that_never_had_an_id_does_not_count_as_a_restart(sql: SqlJob) -> None:
    opened(sql.open(), upload_id=None).abandon(gone=True)
    assert sql.row().restarts == 0


def test_too_many_restarts_end_it_with_the_upload_still_to_be_found(database: Database) -> None:
    sql = SqlJob(database, max_restarts=1)
    checkpoint = opened(sql.open())
    checkpoint.abandon(gone=True)
    opened(checkpoint, "id-2")
    with pytest.raises(TooManyRestartsError):
        checkpoint.abandon(gone=False)
    assert [upload.state for upload in uploads(database, sql.job_id)] == ["gone", "open"]


def test_what_stat_has_to_show_is_the_same_in_every_run(run: SqlCheckpoint, sql: SqlJob) -> None:
    run.record(PARTS, bytes_sent=30)
    run.completing(BASE)
    run.completed('"new"', None)
    expected = sql.next_run().expected()
    assert (expected.size, expected.mark) == (35, mark_of(sql.job_id))
    assert expected.answered == '"new"'


WRITES: dict[str, Callable[[SqlCheckpoint], None]] = {
    "pin_source": methodcaller("pin_source", 35, FINGERPRINT | {"etag": '"2"'}, is_compared=True),
    "opening": methodcaller("opening", "a", size=1, part_size=1, base=VisibleVersion()),
    "opened": methodcaller("opened", "id-9"),
    "record": methodcaller("record", PARTS[:1], bytes_sent=10),
    "drop": methodcaller("drop", [1]),
    "completing": COMPLETING,
    "completed": COMPLETED,
    "abandon": methodcaller("abandon", gone=False),
}


def rows_of(sql: SqlJob) -> list[Any]:
    """Whatever a checkpoint writes."""
    ledger = uploads(sql.database, sql.job_id)
    parts = [{row.part_number for row in part_rows(sql.database, upload.id)} for upload in ledger]
    return [sql.row().as_row(), *parts, *[(row.id, row.state, row.upload_id, row.base_etag) for row in ledger]]


@pytest.mark.parametrize("name", WRITES)
def test_a_run_without_its_lease_writes_nothing(name: str, run: SqlCheckpoint, sql: SqlJob) -> None:
    run.record(PARTS[1:], bytes_sent=20)
    expire_lease(sql.database, sql.job_id)
    claim(sql.database, sql.job_id, worker="host:2")
    before = rows_of(sql)
    assert {2, 3} in before
    with pytest.raises(LeaseLostError):
        WRITES[name](run)
    assert rows_of(sql) == before


@pytest.mark.parametrize("name", WRITES)
def test_a_run_whose_lease_is_late_but_still_its_own_may_write(name: str, run: SqlCheckpoint, sql: SqlJob) -> None:
    expire_lease(sql.database, sql.job_id)
    WRITES[name](run)
