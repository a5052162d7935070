"""Which jobs are sent a message next. Few at a time: a broker that loses its messages then loses few."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import and_, func, or_, select, text, update
from sqlalchemy.orm import Session

from blobferry.sql.clock import db_now
from models.job import JobRow
from models.queries.conditions import claimable, now, waiting

PUBLISHER_LOCK: Final = 0x626C6F62_66657272  #: an arbitrary constant; "blobferr"
REPUBLISH_AFTER: Final = 30.0  #: seconds after which an unclaimed message counts as lost


def jobs_to_publish(session: Session, *, limit: int, turn: int = 0) -> list[JobRow]:
    """Choose claimable jobs and mark them published; the caller sends the messages. Returns the chosen jobs.

    Afterwards at most ``limit`` claimable jobs have a message in the broker. Highest priority first, then the oldest;
    every fifth pick, counted from ``turn``, is the oldest of any priority, so that no job starves. A job whose message
    was not claimed within 30 s is published again under the same number: the first message may still be waiting in a
    long queue, and then either one may claim the job.
    """
    if not _is_sole_publisher(session):
        return []
    lost = now(-REPUBLISH_AFTER)
    in_broker = select(func.count()).select_from(JobRow).where(*claimable(), JobRow.published_at >= lost)
    limit -= session.scalar(in_broker) or 0
    if limit <= 0:
        return []
    unpublished = (
        select(JobRow).where(*claimable(), or_(JobRow.published_at.is_(None), JobRow.published_at < lost)).limit(limit)
    ).with_for_update(skip_locked=True)
    best = list(session.scalars(unpublished.order_by(JobRow.priority.desc(), JobRow.seq)))
    oldest = list(session.scalars(unpublished.order_by(JobRow.seq)))
    picked = pick_fairly(best, oldest, limit=limit, turn=turn)
    ids = [job.id for job in picked]
    session.execute(
        update(JobRow).where(JobRow.id.in_(ids)).values(published_at=db_now()),
        execution_options={"synchronize_session": False},
    )
    return picked


def mark_unpublished(session: Session, jobs: Sequence[JobRow]) -> None:
    """Undo :func:`jobs_to_publish` for jobs whose messages could not be sent, unless they were claimed since then."""
    unsent = [and_(JobRow.id == job.id, JobRow.publish_seq == job.publish_seq) for job in jobs]
    statement = update(JobRow).where(or_(*unsent)).values(published_at=None)
    session.execute(statement, execution_options={"synchronize_session": False})


def pick_fairly(best: Sequence[JobRow], oldest: Sequence[JobRow], *, limit: int, turn: int) -> list[JobRow]:
    """Up to ``limit`` different jobs from the two orders, every fifth from ``oldest``."""
    picked: dict[str, JobRow] = {}
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
    scheduled = (*waiting(), JobRow.run_at > db_now(-since))
    row = session.execute(select(func.min(JobRow.run_at), now()).where(*scheduled)).one()
    return (row[0] - row[1]).total_seconds() if row[0] else None


def _is_sole_publisher(session: Session) -> bool:
    # Two publishers at once would each miss the messages that the other is about to send. SQLite has one writer.
    if session.get_bind().dialect.name != "postgresql":
        return True
    return bool(session.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": PUBLISHER_LOCK}))
