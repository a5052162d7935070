"""The outbox: who is told that a job has ended, written in the transaction of that end, so that nothing is forgotten.

A job for which nobody has asked anything costs no statement here.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final, NamedTuple

from sqlalchemy import Float, Insert, Select, Update, bindparam, insert, literal, select, text, update
from sqlalchemy.orm import Session

from blobferry.contract import RECEIVERS, JobState
from blobferry.sql.clock import db_now
from blobferry.sql.outbox_tables import AT_THE_END, DUE_DELIVERY, deliveries, ending_number
from blobferry.sql.tables import jobs
from models.queries.conditions import now
from models.queries.webhook_notes import OfJob, note_webhooks

#: What each UPDATE that ends a job sets as well.
ENDED: Final[Mapping[str, Any]] = {"ends": jobs.c.ends + 1, "ended_in": ending_number()}


class TaskDelivery(NamedTuple):
    """The end of a job, for a task of the app."""

    id: int
    job_id: str
    sequence: int  #: of the ends of this job, from 1: a failed job that is retried ends again
    job_state: str  #: and the next ones, as they were at that end
    size: int | None
    error_code: str | None
    error_message: str | None
    ended_at: datetime
    operation: str
    storage: str
    path: str | None
    labels: Mapping[str, str] | None
    root_id: str | None
    on_end: Mapping[str, Any]
    tries: int  #: this one included

    @property
    def receiver(self) -> Mapping[str, Any]:
        """The signature of the task that is told."""
        found: Mapping[str, Any] = self.on_end[RECEIVERS[JobState(self.job_state)]]
        return found


def note_end(session: Session, state: JobState, ended: Mapping[str, OfJob]) -> None:
    """Write a delivery for each receiver of this state that these jobs, by id, have, and for those of their storages.

    In the transaction that has ended them, after the UPDATE that did, which sets ``ENDED``.
    """
    told = [job_id for job_id, (_, receivers) in ended.items() if receivers and RECEIVERS[state] in receivers]
    if told:
        session.execute(_note(), {"told": told})
    note_webhooks(session, ended)


def take_deliveries(session: Session, *, limit: int, hold_seconds: float) -> list[TaskDelivery]:
    """Take those that have been due for longest; nobody else takes them for ``hold_seconds``.

    The caller sends them after the COMMIT. What it does not report as delivered meanwhile is due again then.
    """
    taken = session.scalars(_take(), {"limit": limit}).all()
    if not taken:
        return []
    session.execute(_hold(), {"taken": taken, "hold": hold_seconds})
    return [TaskDelivery(*row) for row in session.execute(_read(), {"taken": taken})]


def note_delivered(session: Session, ids: Sequence[int]) -> None:
    """These have arrived. Safe to repeat."""
    session.execute(_arrived(), {"taken": list(ids)})


def put_off_deliveries(session: Session, ids: Sequence[int], seconds: float) -> None:
    """These have not left, which counts as no try; they are due again after so many seconds."""
    session.execute(_hold().values(tries=deliveries.c.tries - 1), {"taken": list(ids), "hold": seconds})


@cache
def _note() -> Insert:
    seen = {"kind": literal("task"), **AT_THE_END}
    told = select(*seen.values()).where(jobs.c.id.in_(bindparam("told", expanding=True)))
    return insert(deliveries).from_select(list(seen), told)


@cache
def _take() -> Select[Any]:
    due = select(deliveries.c.id).where(text(DUE_DELIVERY), deliveries.c.due_at <= now())
    return due.order_by(deliveries.c.due_at).limit(bindparam("limit")).with_for_update(skip_locked=True)


@cache
def _hold() -> Update:
    until = db_now(bindparam("hold", type_=Float))
    return _of_taken().values(due_at=until, tries=deliveries.c.tries + 1)


@cache
def _arrived() -> Update:
    return _of_taken().values(state="delivered", delivered_at=db_now())


def _of_taken() -> Update:
    return update(deliveries).where(deliveries.c.id.in_(bindparam("taken", expanding=True)))


@cache
def _read() -> Select[Any]:
    columns = [getattr(deliveries.c if name in deliveries.c else jobs.c, name) for name in TaskDelivery._fields]
    of_taken = deliveries.c.id.in_(bindparam("taken", expanding=True))
    return select(*columns).join(jobs, jobs.c.id == deliveries.c.job_id).where(of_taken).order_by(deliveries.c.id)
