"""Lookups: they change nothing and lock nothing."""

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
    """The job if it is final, else None; and whether it ended more than ``seconds`` ago."""
    is_old = JobRow.finished_at < now(-seconds)
    ended = select(JobRow, is_old).where(JobRow.id == job_id, JobRow.state.in_(FINAL_STATES))
    row = session.execute(ended).one_or_none()
    return (row[0], bool(row[1])) if row else (None, False)


def find_job(session: Session, job_id: str) -> JobRow | None:
    """The job's row, or None."""
    return session.scalars(select(JobRow).where(JobRow.id == job_id)).one_or_none()


def is_pruned(session: Session, job_id: str) -> bool:
    """Whether the job existed and was pruned."""
    return session.get(TombstoneRow, job_id) is not None
