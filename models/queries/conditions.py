"""Conditions that many statements have in common, and the database's time as they need it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import BindParameter, ColumnElement, ScalarSelect, bindparam, func, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from blobferry.contract import CLAIMABLE_STATES, OPERATIONS, PAST_RETURN, REQUEST_VERSION
from blobferry.sql.clock import db_now
from models.job import Job

#: Columns of a job that no run owns.
NOBODY: Final[Mapping[str, None]] = {"worker": None, "lease_expires_at": None, "published_at": None}


def claimable() -> list[ColumnElement[bool]]:
    """May be claimed now."""
    return [
        *waiting(),
        or_(Job.run_at.is_(None), Job.run_at <= now()),
        or_(past_return(), Job.deadline.is_(None), Job.deadline >= now()),
        or_(past_return(), ~Job.cancel_requested & ~Job.pause_requested),
    ]


def waiting() -> list[ColumnElement[bool]]:
    """Waits for its time or for a worker, and for no other job."""
    # The states stand in the statement itself, so that PostgreSQL sees that the partial indexes serve it. Jobs of an
    # operation or a request version that this one does not know are left to workers that do.
    states: BindParameter[Any] = bindparam("waiting", sorted(CLAIMABLE_STATES), expanding=True, literal_execute=True)
    known = (Job.operation.in_(tuple(OPERATIONS)), Job.request_version <= REQUEST_VERSION)
    return [Job.state.in_(states), Job.lease_expires_at.is_(None), Job.waits_for.is_(None), *known]


def past_return() -> ColumnElement[bool]:
    """Readers may see the outcome: too late for a cancel."""
    return func.coalesce(Job.phase, "").in_(sorted(PAST_RETURN))


def now(seconds: float = 0.0) -> ScalarSelect[datetime]:
    """The database's time, plus ``seconds``, to search an index for."""
    # As a subquery it is evaluated once; the clock alone is volatile.
    return select(db_now(seconds)).scalar_subquery()


def dialect(session: Session) -> Any:
    """The module with this database's own INSERT."""
    return sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
