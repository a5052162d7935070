"""Looks at a job that change nothing."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from blobferry.contract import FINAL_STATES
from blobferry.sql.clock import db_now
from models.job import JobRow
from models.queries.conditions import now
from models.tombstone import TombstoneRow


def time_now(session: Session) -> datetime:
    """The database's time."""
    return session.scalars(select(db_now())).one()


def find_ended(session: Session, job_id: str, seconds: float) -> tuple[JobRow | None, bool]:
    """The job if it is final, and whether it has been for ``seconds``."""
    settled = JobRow.finished_at < now(-seconds)
    row = session.execute(
        select(JobRow, settled).where(JobRow.id == job_id, JobRow.state.in_(FINAL_STATES))
    ).one_or_none()
    return (row[0], bool(row[1])) if row else (None, False)


def find_job(session: Session, job_id: str) -> JobRow | None:
    """The job as it is now."""
    return session.scalars(select(JobRow).where(JobRow.id == job_id)).one_or_none()


def is_pruned(session: Session, job_id: str) -> bool:
    """True if there was such a job, long finished."""
    return session.get(TombstoneRow, job_id) is not None
