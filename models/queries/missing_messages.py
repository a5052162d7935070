"""Whether any job needs a message, found out by one statement: runs ask that when they end, and mostly none does."""

from functools import cache
from typing import Any

from sqlalchemy import Select, and_, bindparam, exists, func, literal, or_, select
from sqlalchemy.orm import Session

from models.job import JobRow
from models.queries.conditions import claimable, now
from models.queries.due_messages import REPUBLISH_AFTER


def lacks_messages(session: Session, *, limit: int) -> bool:
    """Whether fewer than ``limit`` claimable jobs have a message in the broker, and another one has none.

    Then :func:`jobs_to_publish` finds some. It changes nothing and takes no lock.
    """
    return bool(session.scalar(_lacks_messages(), {"most": limit}))


@cache
def _lacks_messages() -> Select[Any]:
    lost = now(-REPUBLISH_AFTER)
    sent = select(literal(1)).where(*claimable(), JobRow.published_at >= lost).limit(bindparam("most")).subquery()
    count = select(func.count()).select_from(sent).scalar_subquery()
    unsent = exists().where(*claimable(), or_(JobRow.published_at.is_(None), JobRow.published_at < lost))
    return select(and_(count < bindparam("most"), unsent))
