"""Whether any job needs a message, found out by one statement: runs ask that when they end, and mostly none does."""

from functools import cache
from typing import Any

from sqlalchemy import Select, and_, bindparam, func, or_, select, text
from sqlalchemy.orm import Session

from blobferry.sql.index_conditions import DUE, PUBLISHED, SCHEDULED
from models.job import JobRow
from models.queries.conditions import now, runnable
from models.queries.due_messages import REPUBLISH_AFTER


def lacks_messages(session: Session, *, limit: int) -> bool:
    """Whether fewer than ``limit`` claimable jobs have a message in the broker, and another one has none.

    Then :func:`jobs_to_publish` finds some. It changes nothing and takes no lock.
    """
    return bool(session.scalar(_lacks_messages(), {"most": limit}))


@cache
def _lacks_messages() -> Select[Any]:
    lost = now(-REPUBLISH_AFTER)
    newest = select(JobRow.published_at).where(text(PUBLISHED), *runnable()).order_by(JobRow.published_at.desc())
    sent = newest.limit(bindparam("most")).subquery()
    count = select(func.count()).where(sent.c.published_at >= lost).scalar_subquery()
    needs_message = or_(JobRow.published_at.is_(None), JobRow.published_at < lost)
    # One at a time, since each has an index: those that are due, and those whose time has come since the last publish.
    # In its order, since for EXISTS PostgreSQL would rather read the table until it finds one.
    due = select(JobRow.seq).where(text(DUE), needs_message, *runnable()).order_by(JobRow.priority.desc(), JobRow.seq)
    come = select(JobRow.seq).where(text(SCHEDULED), JobRow.run_at <= now(), *runnable()).order_by(JobRow.run_at)
    unsent = func.coalesce(due.limit(1).scalar_subquery(), come.limit(1).scalar_subquery()).is_not(None)
    return select(and_(count < bindparam("most"), unsent))
