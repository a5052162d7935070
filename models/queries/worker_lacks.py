"""What each worker was seen to lack, which workers are alive, and the jobs that one leaves to the others.

A storage, a mount, a key or credentials may be missing on one worker only. Such a worker fails fast and is therefore
the first to take the next job, so it must stop taking jobs that need it while another living worker may have it.
"""

from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.orm import Session

from blobferry.jobs.needs import LACKING_FOR, STOP_AFTER, needs_of
from blobferry.redaction import cleaned
from blobferry.sql.clock import db_now
from models.job import JobRow
from models.lack import LackRow
from models.living_worker import LivingWorkerRow
from models.queries.conditions import claimable, dialect, now
from models.queries.lookups import find_job

FORGET_AFTER: Final = 24 * 3600.0  #: seconds after which rows of workers that are gone are deleted


def report_alive(session: Session, worker: str, name: str, seconds: float) -> None:
    """Count the worker as alive for ``seconds``. Safe to repeat."""
    values = {"name": name, "alive_until": db_now(seconds)}
    statement = dialect(session).insert(LivingWorkerRow).values(worker=worker, **values)
    session.execute(statement.on_conflict_do_update(index_elements=["worker"], set_=values))


def forget_gone_workers(session: Session) -> None:
    """Forget the workers that have not been alive for ``FORGET_AFTER``, and what they lacked. Safe to repeat."""
    session.execute(delete(LivingWorkerRow).where(LivingWorkerRow.alive_until < now(-FORGET_AFTER)))
    session.execute(delete(LackRow).where(LackRow.met_at < now(-FORGET_AFTER)))


def report_ended(session: Session, worker: str) -> None:
    """Forget a worker that is shutting down. Safe to repeat."""
    session.execute(delete(LivingWorkerRow).where(LivingWorkerRow.worker == worker))
    session.execute(delete(LackRow).where(LackRow.worker == worker))


def note_lack(session: Session, worker: str, name: str, need: str, reason: str) -> int:
    """Note that a job failed on this worker for want of ``need``; return how many times in a row."""
    insert, reason = dialect(session).insert(LackRow), cleaned(reason)
    first = insert.values(worker=worker, need=need, name=name, reason=reason, times=1)
    again = {"name": name, "reason": reason, "times": LackRow.times + 1, "met_at": db_now()}
    counted = first.on_conflict_do_update(index_elements=["worker", "need"], set_=again).returning(LackRow.times)
    return int(session.execute(counted).scalar_one())


def forget_lacks(session: Session, worker: str, needs: Collection[str]) -> None:
    """Forget what this worker was seen to lack, since a job that needs it has succeeded here. Safe to repeat."""
    session.execute(delete(LackRow).where(LackRow.worker == worker, LackRow.need.in_(sorted(needs))))


def count_others(session: Session, worker: str, need: str) -> int:
    """How many other workers are alive and were not lately seen to lack ``need``."""
    lacking = select(LackRow.worker).where(LackRow.need == need, lately())
    others = (
        LivingWorkerRow.worker != worker, LivingWorkerRow.alive_until > now(), LivingWorkerRow.worker.not_in(lacking)
    )  # fmt: skip
    return session.scalar(select(func.count()).select_from(LivingWorkerRow).where(*others)) or 0


def leave_to_others(session: Session, job_id: str, worker: str, *, seconds: float) -> LackRow | None:
    """Put the job off for ``seconds`` if this worker lacks what it needs and another one may have it; return the lack.

    A job that has failed before is left to others from the first time, a new one after ``STOP_AFTER`` times in a row.
    """
    lacks = session.scalars(select(LackRow).where(LackRow.worker == worker, lately())).all()
    job = find_job(session, job_id) if lacks else None
    if job is None:
        return None
    needs, enough = needs_of(job.as_row()), 1 if job.failures else STOP_AFTER
    for lack in lacks:
        if lack.need in needs and lack.times >= enough and count_others(session, worker, lack.need):
            return lack if _put_off(session, job_id, seconds) else None
    return None


def lacking_workers(session: Session) -> Sequence[LackRow]:
    """What living workers lack so that they leave jobs to others."""
    alive = select(LivingWorkerRow.worker).where(LivingWorkerRow.alive_until > now())
    found = select(LackRow).where(LackRow.times >= STOP_AFTER, LackRow.worker.in_(alive), lately())
    return session.scalars(found.order_by(LackRow.need, LackRow.name)).all()


def _put_off(session: Session, job_id: str, seconds: float) -> bool:
    """Make the job wait; False if it is not claimable now."""
    later = update(JobRow).where(JobRow.id == job_id, *claimable()).values(run_at=db_now(seconds), published_at=None)
    return bool(session.execute(later, execution_options={"synchronize_session": False}).rowcount)  # type: ignore[attr-defined]


def lately() -> ColumnElement[bool]:
    """The lack was met a short time ago."""
    return LackRow.met_at > now(-LACKING_FOR)
