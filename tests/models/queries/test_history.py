"""The history of a job's attempts."""

from blobferry.errors import StoreUnavailableError
from models import AttemptRow, Database, queries
from tests.models.rows import (
    attempts,
    change,
    claim,
    die,
    in_transaction,
    outcomes,
    submit,
)


def test_an_attempt_counts_its_own_bytes(database: Database) -> None:
    job_id = submit(database)
    die(database, job_id)
    job = claim(database, job_id)
    for total in (10, 15, 15):  # the last one is repeated: the answer to its COMMIT was lost
        in_transaction(database, queries.count_bytes_sent, job, total)
    assert [row.bytes_sent for row in attempts(database, job_id)] == [0, 15]


def test_attempts_are_mapped_onto_their_table(database: Database) -> None:
    job = claim(database, submit(database))
    with database.begin() as session:
        assert session.get(AttemptRow, (job.id, 1)) is not None


def test_a_job_that_is_resumed_after_its_attempt_ended_begins_another(database: Database) -> None:
    job_id = submit(database)
    job = claim(database, job_id)
    in_transaction(database, queries.retry_job, job, StoreUnavailableError("503"), delay=0, failures=1, max_attempts=8)
    change(database, job_id, state="queued", run_at=None)  # paused meanwhile, and resumed
    assert claim(database, job_id).attempt == 2
    assert outcomes(database, job_id) == ["retrying", None]
