"""Which jobs are sent a message next. Few at a time: a broker that loses its messages then loses few."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Final, Protocol, TypeVar

from sqlalchemy import Float, ScalarSelect, Select, and_, bindparam, func, or_, select, text, update
from sqlalchemy.orm import Session

from blobferry.sql.clock import db_now
from blobferry.sql.index_conditions import DUE, PUBLISHED, SCHEDULED
from models.job import JobRow
from models.message_row import MESSAGE_COLUMNS, MessageRow
from models.queries.conditions import now, runnable

PUBLISHER_LOCK: Final = 0x626C6F62_66657272  #: an arbitrary constant; "blobferr"
REPUBLISH_AFTER: Final = 30.0  #: seconds after which an unclaimed message counts as lost
DUE_AT_ONCE: Final = 200  #: scheduled jobs that one call makes due: more than it publishes, few enough to be quick

_NO_OBJECTS: Final = {"synchronize_session": False}


class Numbered(Protocol):
    """A job of a known id."""

    @property
    def id(self) -> str:
        """The id of the job."""
        ...

    @property
    def publish_seq(self) -> int:
        """The number of its message."""
        ...


Picked = TypeVar("Picked", bound=Numbered)


def jobs_to_publish(session: Session, *, limit: int, turn: int = 0) -> list[MessageRow]:
    """Choose claimable jobs and mark them published; the caller sends the messages. Returns the chosen jobs.

    Afterwards at most ``limit`` claimable jobs have a message in the broker. Highest priority first, then the oldest;
    every fifth pick, counted from ``turn``, is the oldest of any priority, so that no job starves. A job whose message
    was not claimed within 30 s is published again under the same number: the first message may still be waiting in a
    long queue, and then either one may claim the job.

    Scheduled jobs join the others in the order of their times, ``DUE_AT_ONCE`` with each call.
    """
    if not _is_sole_publisher(session):
        return []
    _make_due(session)
    limit -= _count_in_broker(session, limit)
    if limit <= 0:
        return []
    best = _unpublished(session, limit, is_best_first=True)
    oldest = _unpublished(session, limit, is_best_first=False) if best and takes_oldest(limit, turn) else []
    picked = pick_fairly(best, oldest, limit=limit, turn=turn)
    if picked:
        chosen = JobRow.seq.in_([job.seq for job in picked])
        session.execute(update(JobRow).where(chosen).values(published_at=db_now()), execution_options=_NO_OBJECTS)
    return picked


def mark_unpublished(session: Session, jobs: Sequence[Numbered]) -> None:
    """Undo :func:`jobs_to_publish` for jobs whose messages could not be sent, unless they were claimed since then."""
    unsent = [and_(JobRow.id == job.id, JobRow.publish_seq == job.publish_seq) for job in jobs]
    session.execute(update(JobRow).where(or_(*unsent)).values(published_at=None), execution_options=_NO_OBJECTS)


def takes_oldest(limit: int, turn: int) -> bool:
    """Whether one of ``limit`` picks, counted from ``turn``, is the oldest job of any priority."""
    return any(position % 5 == 4 for position in range(turn, turn + limit))


def pick_fairly(best: Sequence[Picked], oldest: Sequence[Picked], *, limit: int, turn: int) -> list[Picked]:
    """Up to ``limit`` different jobs from the two orders, every fifth from ``oldest``."""
    picked: dict[str, Picked] = {}
    for position in range(turn, turn + limit):
        order = oldest if position % 5 == 4 else best
        job = next((job for job in order if job.id not in picked), None)
        if job is None:
            break
        picked[job.id] = job
    return list(picked.values())


def seconds_to_next_run(session: Session, *, since: float = 0.0) -> float | None:
    """Seconds until the next scheduled job becomes claimable; None if none is scheduled.

    ``since``: seconds ago. A job that has become claimable since then counts too; less than 0 seconds are left to it.
    """
    row = session.execute(_next_run(), {"since": -since}).one_or_none()
    return None if row is None or row[0] is None else (row[0] - row[1]).total_seconds()


@cache
def _next_run() -> Select[datetime | None, datetime]:
    scheduled = (text(SCHEDULED), JobRow.run_at > now(bindparam("since", type_=Float)))
    return select(JobRow.run_at, now()).where(*scheduled).order_by(JobRow.run_at).limit(1)


def _make_due(session: Session) -> None:
    """Let the scheduled jobs whose time has come join those that are looked through for a publish."""
    come = (text(SCHEDULED), JobRow.run_at <= now())
    first = select(JobRow.seq).where(*come).order_by(JobRow.run_at).limit(DUE_AT_ONCE)
    found = session.scalars(first.with_for_update(skip_locked=True)).all()
    if found:
        due = update(JobRow).where(JobRow.seq.in_(found)).values(run_at=None)
        session.execute(due, execution_options=_NO_OBJECTS)


def _count_in_broker(session: Session, limit: int) -> int:
    """The number of claimable jobs that have a message in the broker; counted up to ``limit``."""
    newest = select(JobRow.published_at).where(text(PUBLISHED), *runnable()).order_by(JobRow.published_at.desc())
    # The time is compared outside: PostgreSQL takes it for granted that a third of all jobs is as new.
    found = newest.limit(limit).subquery()
    return session.scalar(select(func.count()).where(found.c.published_at >= _lost())) or 0


def _unpublished(session: Session, limit: int, *, is_best_first: bool) -> list[MessageRow]:
    """Jobs that need a message: never published, or so long ago that the message is lost."""
    order = (JobRow.priority.desc(), JobRow.seq) if is_best_first else (JobRow.seq,)
    needs_message = or_(JobRow.published_at.is_(None), JobRow.published_at < _lost())
    found = select(*MESSAGE_COLUMNS).where(text(DUE), needs_message, *runnable()).order_by(*order).limit(limit)
    return [MessageRow.of(row) for row in session.execute(found.with_for_update(skip_locked=True))]


def _lost() -> ScalarSelect[datetime]:
    return now(-REPUBLISH_AFTER)


def _is_sole_publisher(session: Session) -> bool:
    # Two publishers at once would each miss the messages that the other is about to send. SQLite has one writer.
    if session.get_bind().dialect.name != "postgresql":
        return True
    return bool(session.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": PUBLISHER_LOCK}))
