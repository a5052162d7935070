"""How a run releases or ends its job."""

from datetime import UTC, datetime, timedelta

import pytest

from blobferry.contract import JobState
from blobferry.errors import BlobferryError, DeleteIncompleteError, InvalidPartError, StoreError, StoreUnavailableError
from models import Database, JobRow, queries
from tests.models.rows import (
    add_upload,
    ago,
    attempts,
    change,
    claim,
    die,
    in_transaction,
    job_row,
    outcomes,
    submit,
    try_claim,
    uploads,
)


def assert_unowned(row: JobRow) -> None:
    assert (row.worker, row.lease_expires_at, row.published_at) == (None, None, None)


def test_a_released_job_may_be_claimed_after_the_delay(database: Database) -> None:
    job = claim(database, submit(database))
    in_transaction(database, queries.release_job, job, JobState.VERIFYING, delay=60, polls=3)
    row = job_row(database, job.id)
    assert (row.state, row.polls) == ("verifying", 3)
    assert row.run_at is not None
    assert timedelta(seconds=50) < row.run_at - datetime.now(UTC) < timedelta(seconds=70)
    assert_unowned(row)
    assert try_claim(database, job.id) is None


def test_a_retried_job_says_why_and_when(database: Database) -> None:
    job = claim(database, submit(database))
    with database.begin() as session:
        queries.retry_job(
            session, job, StoreUnavailableError("503 from the store"), delay=60, failures=4, max_attempts=8
        )
    row = job_row(database, job.id)
    assert (row.state, row.failures, row.error_code, row.error_message) == (
        "retrying",
        4,
        "store_unavailable",
        "503 from the store",
    )
    assert_unowned(row)
    (attempt,) = attempts(database, job.id)
    assert (attempt.outcome, attempt.error_code) == ("retrying", "store_unavailable")
    assert attempt.finished_at is not None


def test_a_finished_job_has_a_result_and_no_error_of_earlier_attempts(database: Database) -> None:
    job_id = submit(database)
    die(database, job_id)
    job = claim(database, job_id)
    change(database, job_id, size=30, bytes_done=10)
    job = job_row(database, job_id)
    in_transaction(database, queries.finish_job, job, {"etag": '"1"'})
    row = job_row(database, job_id)
    assert (row.state, row.phase, row.run_at) == ("succeeded", None, None)
    assert (row.error_code, row.error_message) == (None, None)
    assert (row.result, row.bytes_done) == ({"etag": '"1"'}, 30)
    assert row.finished_at is not None
    assert_unowned(row)
    assert outcomes(database, job_id) == ["died", "succeeded"]


@pytest.mark.parametrize("keep", [0.0, 3600.0])
def test_a_failed_job_gives_its_upload_up_at_once_or_later(database: Database, keep: float) -> None:
    job = claim(database, submit(database))
    open_, done = add_upload(database, job.id), add_upload(database, job.id, state="completed")
    in_transaction(database, queries.fail_job, job, InvalidPartError("bad part"), failed_upload_seconds=keep)
    row = job_row(database, job.id)
    assert (row.state, row.error_code, row.error_message) == ("failed", "invalid_part", "bad part")
    assert_unowned(row)
    found = {upload.id: upload for upload in uploads(database, job.id)}
    assert found[done].state == "completed"
    assert found[open_].state == ("open" if keep else "aborting")
    assert (found[open_].recheck_at is not None) == bool(keep)
    assert outcomes(database, job.id) == ["failed"]


def test_a_cancelled_job_gives_its_upload_up_at_once(database: Database) -> None:
    job = claim(database, submit(database))
    add_upload(database, job.id)
    in_transaction(database, queries.cancel_job, job)
    row = job_row(database, job.id)
    assert (row.state, row.error_code) == ("cancelled", None)
    assert [upload.state for upload in uploads(database, job.id)] == ["aborting"]
    assert outcomes(database, job.id) == ["cancelled"]


def test_the_stat_poll_counts_its_looks_until_its_time_is_over(database: Database) -> None:
    job_id = submit(database)
    for _ in range(2):
        job = claim(database, job_id)
        with database.begin() as session:
            assert queries.poll_again(session, job, 60)
            queries.release_job(session, job, JobState.VERIFYING)
    job = claim(database, job_id)
    until = job_row(database, job.id).verify_until
    assert until is not None
    in_transaction(database, queries.poll_again, job, 6000)
    assert job_row(database, job.id).verify_until == until  # counted from the first look
    change(database, job.id, verify_until=ago(0.001))
    assert not in_transaction(database, queries.poll_again, job, 60)
    assert job_row(database, job.id).polls == 3, "of three runs"


class UnspeakableError(StoreError, code="unspeakable"):
    """An error that cannot be shown."""

    def __str__(self) -> str:
        raise UnicodeError("no")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (StoreUnavailableError("404 Not\0Found"), "404 Not\\x00Found"),
        (StoreUnavailableError("file \udcff"), "file \\udcff"),
        (StoreUnavailableError("one\r\n\x1b[2Jtwo"), "one\\r\\n\\x1b[2Jtwo"),
        (DeleteIncompleteError("/a", [["/a/\0", "AccessDenied"]], "s3"), "\\x00"),
        (StoreUnavailableError("x" * 100_000), "x" * 3999 + "…"),
        (UnspeakableError(""), "UnspeakableError"),
    ],
    ids=["zero byte", "surrogate", "control characters", "a key", "length", "no message"],
)
@pytest.mark.parametrize("ending", ["retry", "fail"])
def test_whatever_others_have_written_an_error_is_recorded(
    database: Database, error: BlobferryError, message: str, ending: str
) -> None:
    job = claim(database, submit(database))
    if ending == "retry":
        in_transaction(database, queries.retry_job, job, error, delay=0, failures=1, max_attempts=8)
    else:
        in_transaction(database, queries.fail_job, job, error)
    row, (attempt,) = job_row(database, job.id), attempts(database, job.id)
    assert (row.error_code, attempt.error_code) == (error.code, error.code)
    assert message in str(row.error_message)
    assert attempt.error_message == row.error_message


def test_a_remark_is_cleaned_as_well(database: Database) -> None:
    job = claim(database, submit(database))
    in_transaction(database, queries.remark, job, "its upload\0 vanished")
    assert attempts(database, job.id)[0].remark == "its upload\\x00 vanished"
