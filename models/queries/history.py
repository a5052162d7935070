"""The history: one row for each attempt of a job."""

from collections import Counter
from collections.abc import Mapping

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from blobferry.errors import BlobferryError
from blobferry.redaction import cleaned
from blobferry.sql.clock import db_now
from models.attempt import AttemptRow
from models.job import JobRow
from models.queries.conditions import dialect


def described(error: BlobferryError) -> tuple[str, str]:
    """The code and the message of an error as columns keep them. Never fails: then the class's name is the message."""
    try:
        return error.code, cleaned(str(error))
    except Exception:  # a field of the error that cannot be shown
        return error.code, type(error).__name__


def open_attempt(session: Session, job: JobRow) -> None:
    """Insert the attempt's row; if an earlier slice did so, only note the new worker."""
    statement = dialect(session).insert(AttemptRow).values(job_id=job.id, attempt=job.attempt, worker=job.worker)
    of_attempt = ["job_id", "attempt"]
    session.execute(statement.on_conflict_do_update(index_elements=of_attempt, set_={"worker": job.worker}))


def close_attempt(session: Session, job_id: str, attempt: int, *, outcome: str, error: BlobferryError | None) -> None:
    """Record how the attempt ended. An attempt that already has an outcome keeps it."""
    code, message = described(error) if error else (None, None)
    session.execute(
        update(AttemptRow)
        .where(AttemptRow.job_id == job_id, AttemptRow.attempt == attempt, AttemptRow.outcome.is_(None))
        .values(outcome=outcome, error_code=code, error_message=message, finished_at=db_now())
    )


def remark(session: Session, job: JobRow, text: str) -> None:
    """Note what else happened in this attempt, replacing an earlier remark."""
    of_attempt = (AttemptRow.job_id == job.id, AttemptRow.attempt == job.attempt)
    session.execute(update(AttemptRow).where(*of_attempt).values(remark=cleaned(text)))


def count_attempts_on_the_wire(session: Session, job: JobRow, attempts: Mapping[str, int]) -> None:
    """Add a run's attempts on the wire, by verb, to those of the attempt, whose slices share them. Not repeatable."""
    of_attempt = (AttemptRow.job_id == job.id, AttemptRow.attempt == job.attempt)
    before = session.execute(select(AttemptRow.sent).where(*of_attempt)).scalar_one_or_none()
    total = dict(Counter(before or {}) + Counter(attempts))
    if total:
        session.execute(update(AttemptRow).where(*of_attempt).values(sent=total))


def count_bytes_sent(session: Session, job: JobRow, total: int) -> None:
    """Set the job's bytes sent to ``total`` and add the increase to this attempt's. Safe to repeat."""
    new = total - select(JobRow.bytes_sent).where(JobRow.id == job.id).scalar_subquery()
    of_attempt = (AttemptRow.job_id == job.id, AttemptRow.attempt == job.attempt)
    session.execute(update(AttemptRow).where(*of_attempt).values(bytes_sent=AttemptRow.bytes_sent + new))
    of_job = update(JobRow).where(JobRow.id == job.id).values(bytes_sent=total)
    session.execute(of_job, execution_options={"synchronize_session": False})
