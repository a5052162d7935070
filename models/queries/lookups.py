"""Lookups: they change nothing and lock nothing."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import case, select, type_coerce
from sqlalchemy.orm import Session

from blobferry.contract import APART_REQUEST, FINAL_STATES
from blobferry.jobs.put_contents import inline_contents
from blobferry.sql.clock import db_now
from blobferry.sql.tables import jobs
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


def contents_of(session: Session, job_ids: Collection[str]) -> dict[str, bytes]:
    """The bytes of these put_content jobs, by the ids of the jobs; without those of jobs that do not exist."""
    of_version = case((JobRow.request_version < APART_REQUEST, JobRow.request))  # those of older rows are in there
    inline = type_coerce(of_version, jobs.c.request.type)
    rows = session.execute(select(JobRow.id, jobs.c.contents, inline).where(JobRow.id.in_(job_ids)))
    return {
        job_id: contents
        for job_id, apart, request in rows
        if (contents := apart if apart is not None else inline_contents(request)) is not None
    }
