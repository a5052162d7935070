"""Lookups: they change nothing and lock nothing."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from blobferry.contract import FINAL_STATES
from blobferry.sql.clock import db_now
from blobferry.sql.tables import jobs
from models.job import JobRow
from models.queries.conditions import now
from models.tombstone import TombstoneRow


def time_now(session: Session) -> datetime:
    """The database's time."""
    return session.scalars(select(db_now())).one()


class EndedJob(NamedTuple):
    """How a job has ended, as far as Celery is told."""

    state: str
    publish_seq: int
    is_followed: bool  #: whether other tasks are sent at its end
    error_code: str | None
    error_message: str | None
    result: Mapping[str, Any] | None
    is_old: bool  #: whether it ended long ago


def ended_columns(seconds: float) -> list[ColumnElement[Any]]:
    """The columns of an :class:`EndedJob`; ``seconds`` after its end it is old. Nothing large is among them."""
    is_followed, is_old = JobRow.message_options.is_not(None), func.coalesce(JobRow.finished_at < now(-seconds), False)
    names = ("error_code", "error_message", "result")
    return [jobs.c.state, jobs.c.publish_seq, is_followed, *(jobs.c[name] for name in names), is_old]


def find_ended(session: Session, job_id: str, seconds: float) -> EndedJob | None:
    """How the job has ended; None if it is not final. ``seconds`` after its end it is old."""
    ended = select(*ended_columns(seconds)).where(JobRow.id == job_id, JobRow.state.in_(FINAL_STATES))
    row = session.execute(ended).one_or_none()
    return EndedJob(*row) if row else None


def find_job(session: Session, job_id: str) -> JobRow | None:
    """The job's row, or None."""
    return session.scalars(select(JobRow).where(JobRow.id == job_id)).one_or_none()


def is_pruned(session: Session, job_id: str) -> bool:
    """Whether the job existed and was pruned."""
    return session.get(TombstoneRow, job_id) is not None
