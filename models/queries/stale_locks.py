"""Locks and waits that nothing justifies any more, such as those of a job that has been paused for too long."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, bindparam, delete, exists, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from models.job import JobRow
from models.path_lock import PathLockRow
from models.queries.locks import set_waits_for
from models.queries.places import has_place

LOOKED_AT_ONCE: Final = 500  #: jobs with locks, and jobs that others wait for, that one call looks at


@dataclass(slots=True)
class StaleSearch:
    """How far the search has got: the ids of jobs behind which it goes on. It begins anew after the last."""

    holder: str = ""
    blocker: str = ""


def drop_stale_locks(session: Session, *, search: StaleSearch | None = None, limit: int = LOOKED_AT_ONCE) -> int:
    """Drop the locks of jobs that have no place in line; return how many waiting jobs were woken. Safe to repeat.

    It looks at the locks of ``limit`` jobs, and at the jobs that wait for ``limit`` others, from where ``search`` has
    got to; None: from the first. ``search`` then stands behind them.
    """
    search = search if search is not None else StaleSearch()
    holders = session.scalars(_next_ids(PathLockRow.job_id), {"after": search.holder, "most": limit}).all()
    if holders:
        has_place_in_line = exists().where(JobRow.id == PathLockRow.job_id, has_place(JobRow))
        stale = delete(PathLockRow).where(PathLockRow.job_id.in_(holders), ~has_place_in_line)
        session.execute(stale, execution_options={"synchronize_session": False})
    blockers = session.scalars(_next_ids(JobRow.waits_for), {"after": search.blocker, "most": limit}).all()
    woken = _wake(session, blockers) if blockers else 0
    search.holder, search.blocker = (ids[-1] if len(ids) == limit else "" for ids in (holders, blockers))
    return woken


@cache
def _next_ids(column: InstrumentedAttribute[Any]) -> Select[Any]:
    return select(column).where(column > bindparam("after")).distinct().order_by(column).limit(bindparam("most"))


def _wake(session: Session, blockers: Sequence[str]) -> int:
    blocker = aliased(JobRow)
    holds = exists().where(PathLockRow.job_id == blocker.id)
    in_the_way: ColumnElement[bool] = or_(blocker.seq < JobRow.seq, holds)
    still_blocks = exists().where(blocker.id == JobRow.waits_for, has_place(blocker), in_the_way)
    return set_waits_for(session, and_(JobRow.waits_for.in_(blockers), ~still_blocks), None)
