"""Webhooks on their way: those that are due are taken, and what became of each try is noted.

A delivery that is taken is held: nobody else takes it for a while, so that a worker that is killed meanwhile delays it
and loses nothing. Its next try, or that there is none, is decided by the database's clock.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from functools import cache
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Float,
    Select,
    String,
    Update,
    bindparam,
    case,
    func,
    select,
    text,
    update,
)
from sqlalchemy.orm import Session

from blobferry.sql.clock import db_now
from blobferry.sql.outbox_tables import WAITING_WEBHOOK, deliveries
from blobferry.sql.tables import jobs
from models.queries.conditions import now

#: When its tries began.
_BEGAN: Final = func.coalesce(deliveries.c.resent_at, deliveries.c.ended_at)


class WebhookDelivery(NamedTuple):
    """The end of a job, for a webhook."""

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
    url: str  #: perhaps sealed
    endpoint: str  #: the same for display
    host: str
    secret: str  #: the name of those that sign it
    tries: int  #: this one included
    taken_at: datetime  #: by the database's clock


class FailedTry(NamedTuple):
    """A try of a delivery that is not the last one, unless its time is over."""

    id: int
    tries: int  #: as it was taken
    status: int | None
    error: str
    delay: float  #: seconds until the next one


def webhooks_are_due(session: Session, *, busy: Collection[str], secrets: Collection[str]) -> bool:
    """Whether :func:`take_webhooks` would find one. It takes no lock."""
    return session.scalar(_first_due(), {"busy": list(busy), "secrets": list(secrets)}) is not None


def take_webhooks(
    session: Session, *, limit: int, busy: Collection[str], secrets: Collection[str], hold_seconds: float
) -> list[WebhookDelivery]:
    """Take those that have been due for longest, one for each host; nobody else takes them for ``hold_seconds``.

    Args:
        session: the caller posts them after the COMMIT.
        limit: how many.
        busy: hosts that get no more now.
        secrets: the names of those that this worker has; other deliveries are left to others.
        hold_seconds: what is not noted meanwhile is due again then.
    """
    given = {"most": limit, "busy": list(busy), "secrets": list(secrets)}
    taken = session.scalars(_take(), given).all()
    if not taken:
        return []
    session.execute(_hold(), {"taken": taken, "hold": hold_seconds})
    return [WebhookDelivery(*row) for row in session.execute(_read(), {"taken": taken})]


def note_webhook_delivered(session: Session, delivery_id: int, status: int) -> None:
    """It has arrived. Safe to repeat."""
    arrived = {"state": "delivered", "delivered_at": db_now(), "tried_at": db_now(), "error": None, "status": status}
    session.execute(_of(delivery_id).values(**arrived))


def note_webhook_failed(session: Session, failed: FailedTry, *, give_up_seconds: float) -> bool:
    """It has not; return whether that was the last try, as the next one would come after ``give_up_seconds``.

    Nothing is changed if somebody else has tried it since then.
    """
    is_over = db_now(failed.delay - give_up_seconds) > _BEGAN
    statement = _of(failed.id).where(deliveries.c.tries == failed.tries)
    values = {"status": failed.status, "error": failed.error, "tried_at": db_now(), "due_at": db_now(failed.delay)}
    state = case((is_over, "given_up"), else_="waiting")
    noted = session.scalar(statement.values(state=state, **values).returning(deliveries.c.state))
    return bool(noted == "given_up")


def note_webhook_gone(session: Session, delivery: WebhookDelivery, error: str) -> None:
    """The endpoint wants no more of this job: end this delivery and all others to it that wait."""
    session.execute(_of(delivery.id).values(status=410, error=error, tried_at=db_now()))
    same = (deliveries.c.job_id == delivery.job_id, deliveries.c.endpoint == delivery.endpoint)
    session.execute(update(deliveries).where(*same, deliveries.c.state == "waiting").values(state="gone"))


def give_up_unsigned(session: Session, secrets: Collection[str], *, give_up_seconds: float) -> int:
    """Give up what no worker has signed for so long; ``secrets``: the names of those that this worker has."""
    why = "no worker has tried it that has its secret, webhooks.secrets."
    given = {"secrets": list(secrets), "over": -give_up_seconds, "why": why}
    return int(session.execute(_give_up(), given).rowcount)  # type: ignore[attr-defined]


def unsigned_webhooks(session: Session, secrets: Collection[str]) -> list[str]:
    """The names of the secrets, other than these, that webhooks wait for."""
    waiting = select(deliveries.c.secret).where(*_due(), ~_signable()).distinct()
    return sorted(session.scalars(waiting, {"secrets": list(secrets)}))


def _of(delivery_id: int) -> Update:
    return update(deliveries).where(deliveries.c.id == delivery_id, deliveries.c.state == "waiting")


def _due() -> list[ColumnElement[bool]]:
    return [text(WAITING_WEBHOOK), deliveries.c.due_at <= now()]  # type: ignore[list-item]


def _signable() -> ColumnElement[bool]:
    return deliveries.c.secret.in_(bindparam("secrets", expanding=True))


def _idle() -> ColumnElement[bool]:
    return deliveries.c.host.not_in(bindparam("busy", expanding=True))


@cache
def _first_due() -> Select[Any]:
    return select(deliveries.c.id).where(*_due(), _signable(), _idle()).order_by(deliveries.c.due_at).limit(1)


@cache
def _take() -> Select[Any]:
    place = func.row_number().over(partition_by=deliveries.c.host, order_by=(deliveries.c.due_at, deliveries.c.id))
    ranked = select(deliveries.c.id, deliveries.c.due_at, place.label("place")).where(*_due(), _signable(), _idle())
    first = ranked.subquery()
    chosen = select(first.c.id).where(first.c.place == 1).order_by(first.c.due_at).limit(bindparam("most"))
    # Its conditions once more: another worker may have taken it between the two.
    return select(deliveries.c.id).where(deliveries.c.id.in_(chosen), *_due()).with_for_update(skip_locked=True)


@cache
def _hold() -> Update:
    until = db_now(bindparam("hold", type_=Float))
    return _of_taken().values(due_at=until, tries=deliveries.c.tries + 1)


def _of_taken() -> Update:
    return update(deliveries).where(deliveries.c.id.in_(bindparam("taken", expanding=True)))


@cache
def _read() -> Select[Any]:
    names = WebhookDelivery._fields[:-1]
    columns = [getattr(deliveries.c if name in deliveries.c else jobs.c, name) for name in names]
    of_taken = deliveries.c.id.in_(bindparam("taken", expanding=True))
    seen = select(*columns, db_now().label("taken_at")).join(jobs, jobs.c.id == deliveries.c.job_id)
    return seen.where(of_taken).order_by(deliveries.c.id)


@cache
def _give_up() -> Update:
    is_old = now(bindparam("over", type_=Float)) > _BEGAN
    error = func.coalesce(deliveries.c.error, bindparam("why", type_=String) + deliveries.c.secret)
    unsigned = update(deliveries).where(*_due(), ~_signable(), is_old)
    return unsigned.values(state="given_up", error=error)
