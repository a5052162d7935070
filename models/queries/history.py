"""The history: one row for each attempt of a job."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Integer, Row, String, bindparam, func, select, update
from sqlalchemy.orm import Session

from blobferry.errors import BlobferryError
from blobferry.redaction import cleaned
from blobferry.sql.clock import db_now
from blobferry.sql.tables import attempts
from models.attempt import AttemptRow
from models.claimed_job import ClaimedJob
from models.queries.conditions import dialect


def described(error: BlobferryError) -> tuple[str, str]:
    """The code and the message of an error as columns keep them. Never fails: then the class's name is the message."""
    try:
        return error.code, cleaned(str(error))
    except Exception:  # a field of the error that cannot be shown
        return error.code, type(error).__name__


def open_attempt(session: Session, job: ClaimedJob) -> None:
    """Insert the attempt's row; if an earlier slice did so, only note the new worker, and take over what it counted."""
    statement = dialect(session).insert(AttemptRow).values(job_id=job.id, attempt=job.attempt, worker=job.worker)
    of_attempt = ["job_id", "attempt"]
    opened = statement.on_conflict_do_update(index_elements=of_attempt, set_={"worker": job.worker})
    sent, bytes_sent = session.execute(opened.returning(AttemptRow.sent, AttemptRow.bytes_sent)).one()
    job.sent, job.sent_before = Counter(sent or {}), job.bytes_sent - bytes_sent


def save_attempt(session: Session, job: ClaimedJob) -> None:
    """Save what the attempt has sent so far, when a slice of it ends. Safe to repeat."""
    _update_attempt(session, job, {})


def close_attempt(session: Session, job: ClaimedJob, outcome: str, error: BlobferryError | None = None) -> None:
    """Record how the attempt ended and what it has sent. An attempt that already has an outcome keeps it."""
    code, message = described(error) if error else (None, None)
    _update_attempt(session, job, {"outcome": outcome, "error_code": code, "error_message": message})


def close_abandoned_attempt(
    session: Session, job: Row[*tuple[Any, ...]], outcome: str, error: BlobferryError | None = None
) -> None:
    """Record how the attempt of a job that no run owns any more ended. What it has sent is told by the job's row.

    ``job``: its ``id``, ``attempt`` and ``bytes_sent``.
    """
    code, message = described(error) if error else (None, None)
    of_others = (AttemptRow.job_id == job.id, AttemptRow.attempt != job.attempt)
    before = session.scalar(select(func.coalesce(func.sum(AttemptRow.bytes_sent), 0)).where(*of_others)) or 0
    session.execute(
        update(AttemptRow)
        .where(AttemptRow.job_id == job.id, AttemptRow.attempt == job.attempt, AttemptRow.outcome.is_(None))
        .values(
            outcome=outcome,
            error_code=code,
            error_message=message,
            finished_at=db_now(),
            bytes_sent=job.bytes_sent - before,
        )
    )


def remark(session: Session, job: ClaimedJob, text: str) -> None:
    """Note what else happened in this attempt, replacing an earlier remark."""
    of_attempt = (AttemptRow.job_id == job.id, AttemptRow.attempt == job.attempt)
    session.execute(update(AttemptRow).where(*of_attempt).values(remark=cleaned(text)))


_OF_ATTEMPT: Final = (
    attempts.c.job_id == bindparam("of_job", type_=String),
    attempts.c.attempt == bindparam("of_attempt", type_=Integer),
    attempts.c.outcome.is_(None),
)
_SAVE: Final = update(attempts).where(*_OF_ATTEMPT)
_CLOSE: Final = _SAVE.values(finished_at=db_now())


def _update_attempt(session: Session, job: ClaimedJob, outcome: Mapping[str, Any]) -> None:
    session.execute(
        _CLOSE if outcome else _SAVE,
        {
            "of_job": job.id,
            "of_attempt": job.attempt,
            "sent": dict(job.sent) or None,
            "bytes_sent": job.bytes_sent - job.sent_before,
            **outcome,
        },
    )
