"""The point of no return: after it readers may see the outcome, and a cancel comes too late."""

from typing import Any

from sqlalchemy import or_, update
from sqlalchemy.orm import Session

from blobferry.contract import Phase
from blobferry.sql.sqlite_connection import must_survive
from models.job import JobRow
from models.queries.claims import update_owned
from models.queries.conditions import past_point_of_no_return


def begin_completing(session: Session, job: JobRow, *, base_etag: str) -> bool:
    """Pass the point of no return before a commit call; False if a cancel came first. Raises LeaseLostError.

    ``base_etag`` is the ETag that readers see now, "" for an absent blob. A later run compares it with what is visible.
    """
    return pass_point_of_no_return(session, job, phase=Phase.COMPLETING, base_etag=base_etag)


def pass_point_of_no_return(session: Session, job: JobRow, **values: Any) -> bool:
    """Pass the point of no return, setting these columns; False if a cancel came first. Raises LeaseLostError."""
    update_owned(session, job.id, job.token)
    must_survive(session)
    in_time = (JobRow.id == job.id, or_(past_point_of_no_return(), ~JobRow.cancel_requested))
    return session.scalar(update(JobRow).where(*in_time).values(**values).returning(JobRow.id)) is not None
