"""Whether any message is missing, found out by one statement: runs ask that when they end, and mostly none is."""

from functools import cache
from typing import NamedTuple

from sqlalchemy import Select, and_, bindparam, func, or_, select, text
from sqlalchemy.orm import Session

from blobferry.sql.index_conditions import DUE, PUBLISHED, SCHEDULED
from blobferry.sql.outbox_tables import DUE_DELIVERY, deliveries
from models.job import JobRow
from models.queries.conditions import now, runnable
from models.queries.due_messages import REPUBLISH_AFTER


class MissingMessages(NamedTuple):
    """What is to be sent."""

    of_jobs: bool  #: fewer than so many claimable jobs have a message in the broker, and another one has none
    of_ends: bool  #: the end of a job is to be told to somebody now


def missing_messages(session: Session, *, limit: int) -> MissingMessages:
    """Whether :func:`jobs_to_publish` with this ``limit``, and :func:`take_deliveries`, would find something.

    It changes nothing and takes no lock.
    """
    of_jobs, of_ends = session.execute(_missing_messages(), {"most": limit}).one()
    return MissingMessages(bool(of_jobs), bool(of_ends))


@cache
def _missing_messages() -> Select[bool, bool]:
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
    untold = select(deliveries.c.id).where(text(DUE_DELIVERY), deliveries.c.due_at <= now())
    first_untold = untold.order_by(deliveries.c.due_at).limit(1).scalar_subquery()
    return select(and_(count < bindparam("most"), unsent), first_untold.is_not(None))
