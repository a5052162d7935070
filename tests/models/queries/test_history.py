"""The history of a job's attempts."""

from blobferry.errors import StoreUnavailableError
from models import AttemptRow
from tests.models.rows import Rows


def test_an_attempt_counts_its_own_bytes(rows: Rows) -> None:
    job_id = rows.submit()
    rows.die(job_id)
    job = rows.claim(job_id)
    for total in (10, 15, 15):  # the last one is repeated: the answer to its COMMIT was lost
        rows.update_owned(job.id, job.token, bytes_sent=total)
    rows.expire_lease(job_id)
    rows.requeue()
    job = rows.claim(job_id)
    job.bytes_sent = 22
    for _ in range(2):
        rows.update_owned(job.id, job.token, bytes_sent=22)
        rows.close_attempt(job, "succeeded")
    assert [row.bytes_sent for row in rows.attempts(job_id)] == [0, 15, 7]


def test_attempts_are_mapped_onto_their_table(rows: Rows) -> None:
    job = rows.claim(rows.submit())
    with rows.database.begin() as session:
        assert session.get(AttemptRow, (job.id, 1)) is not None


def test_a_job_that_is_resumed_after_its_attempt_ended_begins_another(rows: Rows) -> None:
    job_id = rows.submit()
    job = rows.claim(job_id)
    rows.retry_job(job, StoreUnavailableError("503"), delay=0, failures=1, max_attempts=8)
    rows.change(job_id, state="queued", run_at=None)  # paused meanwhile, and resumed
    assert rows.claim(job_id).attempt == 2
    assert rows.outcomes(job_id) == ["retrying", None]
