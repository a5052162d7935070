"""Uploads that no job needs any more: when each is aborted."""

from models import Database, queries
from tests.models.rows import (
    add_upload,
    ago,
    change_upload,
    claim,
    in_transaction,
    submit,
    uploads,
)
from worker.errors import InvalidPartError


def to_abort(database: Database) -> list[int]:
    with database.begin() as session:
        return [upload.id for upload in queries.uploads_to_abort(session, limit=100, files_of="file://here")]


def gone(database: Database, upload: int, recheck_seconds: float | None) -> None:
    in_transaction(database, queries.upload_is_gone, upload, recheck_seconds=recheck_seconds)


def test_only_what_was_given_up_is_aborted(database: Database) -> None:
    job_id = submit(database)
    states = ("opening", "open", "completing", "completed", "aborting", "gone")
    made = {state: add_upload(database, job_id, state=state) for state in states}
    assert to_abort(database) == [made["aborting"]]


def test_a_failed_jobs_upload_is_kept_for_its_retention_and_then_aborted(database: Database) -> None:
    job = claim(database, submit(database))
    upload = add_upload(database, job.id)
    in_transaction(database, queries.fail_job, job, InvalidPartError("x"), failed_upload_seconds=3600)
    assert to_abort(database) == []
    change_upload(database, upload, recheck_at=ago(1))
    assert to_abort(database) == [upload]
    (row,) = uploads(database, job.id)
    assert (row.state, row.recheck_at) == ("aborting", None)


def test_an_aborted_upload_is_looked_at_once_more_and_then_never_again(database: Database) -> None:
    upload = add_upload(database, submit(database), state="aborting")
    gone(database, upload, recheck_seconds=3600)
    assert to_abort(database) == []
    change_upload(database, upload, recheck_at=ago(1))
    assert to_abort(database) == [upload]
    gone(database, upload, recheck_seconds=None)
    assert to_abort(database) == []
