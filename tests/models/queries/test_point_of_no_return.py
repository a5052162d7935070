"""The point of no return: an earlier cancel wins, a later one comes too late."""

from cryptography.fernet import Fernet

from blobferry.contract import Phase, check_request
from blobferry.jobs.submission import insert_job
from blobferry.sealing import Sealer
from models import Database, JobRow, queries
from tests.models.rows import (
    change,
    claim,
    in_transaction,
    job_row,
    submit,
)


def begin_completing(database: Database, job: JobRow, base_etag: str = '"old"') -> bool:
    return in_transaction(database, queries.begin_completing, job, base_etag=base_etag)


def test_a_cancel_before_the_point_of_no_return_wins(database: Database) -> None:
    job = claim(database, submit(database))
    change(database, job.id, cancel_requested=True)
    assert not begin_completing(database, job)
    assert job_row(database, job.id).phase != Phase.COMPLETING


def test_a_cancel_after_the_point_of_no_return_is_too_late(database: Database) -> None:
    job = claim(database, submit(database))
    assert begin_completing(database, job)
    change(database, job.id, cancel_requested=True)
    assert begin_completing(database, job, '"newer"')  # a repeated commit call
    row = job_row(database, job.id)
    assert (row.phase, row.base_etag) == ("completing", '"newer"')


def test_a_sealed_request_is_left_to_workers_that_know_what_that_is(database: Database) -> None:
    signed = check_request("write_stream", {"path": "/a", "source": "https://host/a?signature=1"})
    with database.begin() as session:
        plain = insert_job(session.connection(), signed)
        sealed = insert_job(session.connection(), signed, sealer=Sealer([Fernet.generate_key().decode()]))
    assert (plain["request_version"], sealed["request_version"]) == (1, 2)
