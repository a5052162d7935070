"""Conditions that several statements share, and the database's time in a form that can use an index."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import BindParameter, ColumnElement, ScalarSelect, bindparam, func, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from blobferry.contract import CLAIMABLE_STATES, OPERATIONS, PAST_POINT_OF_NO_RETURN, REQUEST_VERSION
from blobferry.sql.clock import db_now
from models.job import JobRow

#: Column values of a job that no run owns.
UNOWNED: Final[Mapping[str, None]] = {"worker": None, "lease_expires_at": None, "published_at": None}


def claimable() -> list[ColumnElement[bool]]:
    """The job may be claimed now."""
    return [
        *waiting(),
        or_(JobRow.run_at.is_(None), JobRow.run_at <= now()),
        or_(past_point_of_no_return(), JobRow.deadline.is_(None), JobRow.deadline >= now()),
        or_(past_point_of_no_return(), ~JobRow.cancel_requested & ~JobRow.pause_requested),
    ]


def waiting() -> list[ColumnElement[bool]]:
    """The job waits for its time or for a worker, not for another job."""
    # Literal states, because PostgreSQL uses the partial indexes for nothing else. Operations and request versions
    # that this worker does not know are left to newer workers.
    states: BindParameter[Any] = bindparam("waiting", sorted(CLAIMABLE_STATES), expanding=True, literal_execute=True)
    known = (JobRow.operation.in_(tuple(OPERATIONS)), JobRow.request_version <= REQUEST_VERSION)
    return [JobRow.state.in_(states), JobRow.lease_expires_at.is_(None), JobRow.waits_for.is_(None), *known]


def past_point_of_no_return() -> ColumnElement[bool]:
    """Readers may already see the outcome, so a cancel comes too late."""
    return func.coalesce(JobRow.phase, "").in_(sorted(PAST_POINT_OF_NO_RETURN))


def now(seconds: float | ColumnElement[float] = 0.0) -> ScalarSelect[datetime]:
    """The database's time plus ``seconds``, for comparisons that search an index."""
    # A subquery is evaluated once per statement; the bare clock is volatile, which rules an index out.
    return select(db_now(seconds)).scalar_subquery()


def dialect(session: Session) -> Any:
    """SQLAlchemy's dialect module, whose INSERT knows ON CONFLICT."""
    return sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
