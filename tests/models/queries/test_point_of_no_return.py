"""The point of no return: an earlier cancel wins, a later one comes too late."""

from cryptography.fernet import Fernet

from blobferry.contract import Phase, check_request
from blobferry.jobs.submission import insert_job
from blobferry.sealing import Sealer
from tests.models.rows import Rows


def test_a_cancel_before_the_point_of_no_return_wins(rows: Rows) -> None:
    job = rows.claim(rows.submit())
    rows.change(job.id, cancel_requested=True)
    assert not rows.pass_point_of_no_return(job, phase=Phase.COMPLETING, base_etag='"old"')
    assert rows.job_row(job.id).phase != Phase.COMPLETING


def test_a_cancel_after_the_point_of_no_return_is_too_late(rows: Rows) -> None:
    job = rows.claim(rows.submit())
    assert rows.pass_point_of_no_return(job, phase=Phase.COMPLETING, base_etag='"old"')
    rows.change(job.id, cancel_requested=True)
    assert rows.pass_point_of_no_return(job, phase=Phase.COMPLETING, base_etag='"newer"')  # a repeated commit call
    row = rows.job_row(job.id)
    assert (row.phase, row.base_etag) == ("completing", '"newer"')


def test_a_sealed_request_is_left_to_workers_that_know_what_that_is(rows: Rows) -> None:
    signed = check_request("write_stream", {"path": "/a", "source": "https://host/a?signature=1"})
    with rows.database.begin() as session:
        plain = insert_job(session.connection(), signed)
        sealed = insert_job(session.connection(), signed, sealer=Sealer([Fernet.generate_key().decode()]))
    assert (plain["request_version"], sealed["request_version"]) == (1, 2)
