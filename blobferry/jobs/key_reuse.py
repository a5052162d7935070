"""Reuse of idempotency keys: a job that failed or was cancelled gives its key to another one, once.

The key moves by one UPDATE that names the state, so of all that race for it (submits, a retry of the job) one is first,
and the others find what it has left. The job keeps a note of its successor in place of the key: it cannot be retried.
"""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, update

from blobferry.checks.arguments import REPLACED_BY
from blobferry.contract import JobState, Request, UploadState
from blobferry.sql.clock import db_now
from blobferry.sql.tables import jobs, uploads

_GIVING: Final = (str(JobState.FAILED), str(JobState.CANCELLED))
_UNCOMMITTED: Final = (str(UploadState.OPENING), str(UploadState.OPEN))  #: readers cannot see the blobs of these


def gives_key(row: Mapping[str, Any], request: Request) -> bool:
    """Whether the job in the row has ended so that the request may take its key."""
    return request.reuse is not None and row["state"] in _GIVING


def take_key(connection: Connection, row: Mapping[str, Any], job_id: str) -> bool:
    """Free the key of the job in the row for job ``job_id``, in the caller's transaction; whether it was still there.

    False if another submit has it, or the job was retried meanwhile. What the job had kept for a retry is given up."""
    is_unchanged = (jobs.c.id == row["id"], jobs.c.idempotency_key == row["idempotency_key"], jobs.c.state.in_(_GIVING))
    give = update(jobs).where(*is_unchanged).values(idempotency_key=REPLACED_BY + job_id, updated_at=db_now())
    taken = connection.execute(give).rowcount
    if taken:
        kept = (uploads.c.job_id == row["id"], uploads.c.state.in_(_UNCOMMITTED))
        connection.execute(update(uploads).where(*kept).values(recheck_at=db_now()))
    return bool(taken)
