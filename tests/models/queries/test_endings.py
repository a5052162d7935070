"""How a run releases or ends its job."""

from datetime import UTC, datetime, timedelta

import pytest

from blobferry.contract import JobState, Phase
from blobferry.errors import BlobferryError, DeleteIncompleteError, InvalidPartError, StoreError, StoreUnavailableError
from models import JobRow
from tests.models.rows import Rows, ago


def assert_unowned(row: JobRow) -> None:
    assert (row.worker, row.lease_expires_at, row.published_at) == (None, None, None)


def test_a_released_job_may_be_claimed_after_the_delay(rows: Rows) -> None:
    job = rows.claim(rows.submit())
    rows.release_job(job, JobState.VERIFYING, delay=60, polls=3)
    row = rows.job_row(job.id)
    assert (row.state, row.polls) == ("verifying", 3)
    assert timedelta(seconds=50) < row.run_at - datetime.now(UTC) < timedelta(seconds=70)
    assert_unowned(row)
    assert rows.try_claim(job.id) is None


def test_a_retried_job_says_why_and_when(rows: Rows) -> None:
    job = rows.claim(rows.submit())
    rows.retry_job(job, StoreUnavailableError("503 from the store"), delay=60, failures=4, max_attempts=8)
    row = rows.job_row(job.id)
    assert (row.state, row.failures) == ("retrying", 4)
    assert (row.error_code, row.error_message) == ("store_unavailable", "503 from the store")
    assert_unowned(row)
    (attempt,) = rows.attempts(job.id)
    assert (attempt.outcome, attempt.error_code) == ("retrying", "store_unavailable")
    assert attempt.finished_at is not None


def test_a_finished_job_has_a_result_and_no_error_of_earlier_attempts(rows: Rows) -> None:
    job_id = rows.submit()
    rows.die(job_id)
    rows.claim(job_id)
    rows.change(job_id, size=30, bytes_done=10)
    rows.finish_job(rows.owned(job_id), {"etag": '"1"'})
    row = rows.job_row(job_id)
    assert (row.state, row.phase, row.run_at, row.error_code, row.error_message) == ("succeeded", *[None] * 4)
    assert (row.result, row.bytes_done) == ({"etag": '"1"'}, 30)
    assert row.finished_at is not None
    assert_unowned(row)
    assert rows.outcomes(job_id) == ["died", "succeeded"]


@pytest.mark.parametrize("keep", [0.0, 3600.0])
def test_a_failed_job_gives_its_upload_up_at_once_or_later(rows: Rows, keep: float) -> None:
    job = rows.claim(rows.submit())
    open_, done = rows.add_upload(job.id), rows.add_upload(job.id, state="completed")
    rows.fail_job(job, InvalidPartError("bad part"), failed_upload_seconds=keep)
    row = rows.job_row(job.id)
    assert (row.state, row.error_code, row.error_message) == ("failed", "invalid_part", "bad part")
    assert_unowned(row)
    found = {upload.id: upload for upload in rows.uploads(job.id)}
    assert found[done].state == "completed"
    assert found[open_].state == ("open" if keep else "aborting")
    assert (found[open_].recheck_at is not None) == bool(keep)
    assert rows.outcomes(job.id) == ["failed"]


def test_a_refusal_after_the_point_of_no_return_leaves_the_upload_for_a_second_look(rows: Rows) -> None:
    """The row that a run holds is the one of its claim; what it did since is in SQL."""
    job = rows.claim(rows.submit())
    rows.add_upload(job.id, state="completing")
    assert rows.pass_point_of_no_return(job, phase=Phase.COMPLETING)
    rows.fail_job(job, StoreUnavailableError("late"))
    (upload,) = rows.uploads(job.id)
    assert upload.recheck_at is not None


def test_a_cancelled_job_gives_its_upload_up_at_once(rows: Rows) -> None:
    job = rows.claim(rows.submit())
    rows.add_upload(job.id)
    rows.cancel_job(job)
    row = rows.job_row(job.id)
    assert (row.state, row.error_code) == ("cancelled", None)
    assert [upload.state for upload in rows.uploads(job.id)] == ["aborting"]
    assert rows.outcomes(job.id) == ["cancelled"]


def test_the_stat_poll_counts_its_looks_until_its_time_is_over(rows: Rows) -> None:
    job_id = rows.submit()
    for _ in range(2):
        job = rows.claim(job_id)
        assert rows.poll_again(job, 60)
        rows.release_job(job, JobState.VERIFYING)
    job = rows.claim(job_id)
    until = rows.job_row(job.id).verify_until
    assert until is not None
    rows.poll_again(job, 6000)
    assert rows.job_row(job.id).verify_until == until  # counted from the first look
    rows.change(job.id, verify_until=ago(0.001))
    assert not rows.poll_again(job, 60)
    assert rows.job_row(job.id).polls == 3, "of three runs"


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
    rows: Rows, error: BlobferryError, message: str, ending: str
) -> None:
    job = rows.claim(rows.submit())
    if ending == "retry":
        rows.retry_job(job, error, delay=0, failures=1, max_attempts=8)
    else:
        rows.fail_job(job, error)
    row, (attempt,) = rows.job_row(job.id), rows.attempts(job.id)
    assert (row.error_code, attempt.error_code) == (error.code, error.code)
    assert message in str(row.error_message)
    assert attempt.error_message == row.error_message


def test_a_remark_is_cleaned_as_well(rows: Rows) -> None:
    job = rows.claim(rows.submit())
    rows.remark(job, "its upload\0 vanished")
    assert rows.attempts(job.id)[0].remark == "its upload\\x00 vanished"
