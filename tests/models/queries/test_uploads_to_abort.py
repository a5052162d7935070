"""Uploads that no job needs any more: when each is aborted."""

from tests.models.rows import Rows, ago
from worker.errors import InvalidPartError


def to_abort(rows: Rows) -> list[int]:
    return [upload.id for upload in rows.uploads_to_abort(limit=100, files_of="file://here")]


def test_only_what_was_given_up_is_aborted(rows: Rows) -> None:
    job_id = rows.submit()
    states = ("opening", "open", "completing", "completed", "aborting", "gone")
    made = {state: rows.add_upload(job_id, state=state) for state in states}
    assert to_abort(rows) == [made["aborting"]]


def test_a_failed_jobs_upload_is_kept_for_its_retention_and_then_aborted(rows: Rows) -> None:
    job = rows.claim(rows.submit())
    upload = rows.add_upload(job.id)
    rows.fail_job(job, InvalidPartError("x"), failed_upload_seconds=3600)
    assert to_abort(rows) == []
    rows.change_upload(upload, recheck_at=ago(1))
    assert to_abort(rows) == [upload]
    (row,) = rows.uploads(job.id)
    assert (row.state, row.recheck_at) == ("aborting", None)


def test_an_aborted_upload_is_looked_at_once_more_and_then_never_again(rows: Rows) -> None:
    upload = rows.add_upload(rows.submit(), state="aborting")
    rows.upload_is_gone(upload, recheck_seconds=3600)
    assert to_abort(rows) == []
    rows.change_upload(upload, recheck_at=ago(1))
    assert to_abort(rows) == [upload]
    rows.upload_is_gone(upload, recheck_seconds=None)
    assert to_abort(rows) == []
