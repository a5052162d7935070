"""Conditions that several statements share, and the database's time in a form that can use an index."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, ScalarSelect, func, or_, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from blobferry.contract import OPERATIONS, PAST_POINT_OF_NO_RETURN, REQUEST_VERSION
from blobferry.sql.clock import db_now
from blobferry.sql.index_conditions import WAITING
from models.job import JobRow

#: Column values of a job that no run owns.
UNOWNED: Final[Mapping[str, None]] = {"worker": None, "lease_expires_at": None, "published_at": None}


def claimable() -> list[Any]:
    """The job may be claimed now."""
    return [text(WAITING), or_(JobRow.run_at.is_(None), JobRow.run_at <= now()), *runnable()]


def runnable() -> list[ColumnElement[bool]]:
    """A job that waits may be claimed once its time has come: this worker knows it, and no request or deadline ends it.

    Operations and request versions that this worker does not know are left to newer workers.
    """
    return [
        JobRow.operation.in_(tuple(OPERATIONS)),
        JobRow.request_version <= REQUEST_VERSION,
        or_(past_point_of_no_return(), JobRow.deadline.is_(None), JobRow.deadline >= now()),
        or_(past_point_of_no_return(), ~JobRow.cancel_requested & ~JobRow.pause_requested),
    ]


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
