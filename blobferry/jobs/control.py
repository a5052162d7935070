"""Cancel, pause, resume and retry: write the control request into the job's row, in a short transaction of its own.

A running job reads the request with its next checkpoint or heartbeat; otherwise the next message or the caretaker
applies it. Each function may be repeated, and called by many at once: it locks the row before it decides.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, select, update

from blobferry.checks.arguments import check_job_id
from blobferry.contract import FINAL_STATES, PAST_POINT_OF_NO_RETURN, UNFINISHED_UPLOADS, JobState, Phase, UploadState
from blobferry.errors import JobNotFoundError, TooLateError
from blobferry.jobs.job_ids import JobId
from blobferry.jobs.open_blocks import heed_open_blocks
from blobferry.jobs.replaced_source import ReplacedSource
from blobferry.sql.clock import db_now
from blobferry.sql.database import reachable
from blobferry.sql.tables import JOB_COLUMNS, attempts, jobs, uploads
from blobferry.values import successor

Row = Mapping[str, Any]
Change = Callable[[Engine, JobId], Row]
"""``change(engine, job_id)`` returns the row after the change. Raises JobNotFoundError and TooLateError."""

_UNCOMMITTED: Final = (UploadState.OPENING, UploadState.OPEN)  #: readers cannot see the blobs of these
#: The phase at which a retry continues if readers may see the blob, by the state of the upload.
_PHASES: Final = {UploadState.COMPLETING: Phase.COMPLETING, UploadState.COMPLETED: Phase.VERIFYING}
_SUBMIT_AGAIN: Final = "submit it again"
_COUNTERS: Final = ("failures", "crashes", "crash_streak", "restarts", "polls")
_END_COLUMNS: Final = ("run_at", "finished_at", "verify_until", "published_at", "result", "waits_for")


def cancel(engine: Engine, job_id: JobId) -> Row:
    """Request the end of the job. A failed job gives up the uploads that it kept; a cancelled one is unchanged."""
    with _locked(engine, job_id) as job:
        if job.state == JobState.CANCELLED:
            return job.row
        if job.state == JobState.FAILED:
            job.keep_uploads_until(db_now(), _UNCOMMITTED)
            return job.change()
        job.refuse_succeeded("cancel", "its result stays; to remove the blob, submit a delete")
        job.refuse_past_point_of_no_return("cancel")
        return job.change(cancel_requested=True)


def pause(engine: Engine, job_id: JobId) -> Row:
    """Request that the job stops and keeps its upload. A paused one is unchanged."""
    with _locked(engine, job_id) as job:
        job.refuse_ended("pause")
        if job.state == JobState.PAUSED:
            return job.row
        job.refuse_past_point_of_no_return("pause")
        return job.change(pause_requested=True)


def resume(engine: Engine, job_id: JobId) -> Row:
    """End a pause, or withdraw the request for one. Other jobs are unchanged."""
    with _locked(engine, job_id) as job:
        job.refuse_ended("resume")
        if job.state == JobState.PAUSED:
            job.keep_uploads_until(None)
            # An attempt with an outcome is over: the next run is the next attempt, as after any error.
            state = JobState.RETRYING if job.attempt_is_over() else JobState.QUEUED
            due = job.row["not_before"]
            return job.change(state=state, pause_requested=False, run_at=due, published_at=None)
        return job.change(pause_requested=False) if job.row["pause_requested"] else job.row


def retry(engine: Engine, job_id: JobId, source: ReplacedSource | None = None) -> Row:
    """Let a failed job continue with the parts that it kept. A job that has not ended is unchanged.

    ``source`` is read instead of the job's own. Raises TooLateError for it if the job has not failed, unless it is that
    of the job already; InvalidRequestError if the job has no source.
    """
    with _locked(engine, job_id) as job:
        if source is not None:
            source.check_operation(job.row)
        if job.state != JobState.FAILED:
            job.refuse_ended("retry")
            if source is not None and not source.is_that_of(job.row):
                where = f"it is {job.state}, and only a failed job takes another source"
                raise TooLateError(job.row["id"], "retry", where, "wait for its end")
            return job.row
        if (other := successor(job.row["idempotency_key"])) is not None:
            raise TooLateError(job.row["id"], "retry", f"job {other} has its idempotency key and goes on instead")
        deadline = job.row["deadline"]
        if deadline is not None and deadline <= job.row["seen_at"]:
            when = deadline.isoformat(timespec="seconds")
            raise TooLateError(job.row["id"], "retry", f"its deadline was {when}", _SUBMIT_AGAIN)
        job.keep_uploads_until(None)
        upload = job.upload_state()
        # Without an upload it starts from byte 0, so the source may have changed since.
        values = source.columns(job.row) if source is not None else {}
        if not upload:
            values |= {"source_fingerprint": None, "size": None, "bytes_done": 0}
        return job.change(
            state=JobState.RETRYING,
            phase=_PHASES.get(UploadState(upload)) if upload else None,
            **values,
            cancel_requested=False,
            pause_requested=False,
            **dict.fromkeys(_COUNTERS, 0),
            **dict.fromkeys(_END_COLUMNS),
        )


@contextmanager
def _locked(engine: Engine, job_id: JobId) -> Iterator["_Locked"]:
    """The job, its row locked until the block ends. Raises JobNotFoundError."""
    job_id = check_job_id(job_id)
    heed_open_blocks(engine, "the request stays")
    with reachable(), engine.begin() as connection:
        # An UPDATE that changes nothing: on SQLite a SELECT takes no lock.
        touched = update(jobs).where(jobs.c.id == job_id).values(updated_at=jobs.c.updated_at)
        row = connection.execute(touched.returning(*JOB_COLUMNS, db_now().label("seen_at"))).mappings().one_or_none()
        if row is None:
            raise JobNotFoundError(job_id)
        yield _Locked(connection, dict(row))


class _Locked:
    """A job whose row is locked."""

    def __init__(self, connection: Connection, row: Row) -> None:
        self._connection = connection
        self.row = row
        self.state = row["state"]

    def change(self, **values: Any) -> Row:
        """Change these columns; return the new row."""
        statement = update(jobs).where(jobs.c.id == self.row["id"]).values(updated_at=db_now(), **values)
        returning = statement.returning(*JOB_COLUMNS, db_now().label("seen_at"))
        return dict(self._connection.execute(returning).mappings().one())

    def keep_uploads_until(self, moment: db_now | None, states: tuple[UploadState, ...] = UNFINISHED_UPLOADS) -> None:
        """Set when the caretaker aborts its uploads in these states; None: not while the job lives."""
        ours = (uploads.c.job_id == self.row["id"], uploads.c.state.in_([str(state) for state in states]))
        self._connection.execute(update(uploads).where(*ours).values(recheck_at=moment))

    def upload_state(self) -> str | None:
        """The state of its newest upload that can be continued or whose blob readers may see; None without one."""
        given_up = [str(state) for state in (UploadState.ABORTING, UploadState.GONE)]
        newest = select(uploads.c.state).where(uploads.c.job_id == self.row["id"], uploads.c.state.not_in(given_up))
        return self._connection.scalar(newest.order_by(uploads.c.id.desc()).limit(1))

    def attempt_is_over(self) -> bool:
        """Whether its latest attempt has an outcome."""
        latest = (attempts.c.job_id == self.row["id"], attempts.c.attempt == self.row["attempt"])
        return self._connection.scalar(select(attempts.c.outcome).where(*latest)) is not None

    def refuse_ended(self, asked: str) -> None:
        """Raise TooLateError if it is final or being cancelled: a cancel cannot be withdrawn."""
        self.refuse_succeeded(asked, "there is nothing left to do")
        if self.state == JobState.FAILED:
            raise self._too_late(asked, "retry lets it continue")
        if self.state == JobState.CANCELLED or self.row["cancel_requested"]:
            raise self._too_late(asked, f"what it had sent is given up, {_SUBMIT_AGAIN}")

    def refuse_succeeded(self, asked: str, advice: str) -> None:
        """Raise TooLateError if it has succeeded."""
        if self.state == JobState.SUCCEEDED:
            raise self._too_late(asked, advice)

    def refuse_past_point_of_no_return(self, asked: str) -> None:
        """Raise TooLateError if readers may see the outcome at any moment."""
        if self.row["phase"] in PAST_POINT_OF_NO_RETURN:
            raise self._too_late(asked, "readers may see the outcome at any moment; wait for its end")

    def _too_late(self, asked: str, advice: str) -> TooLateError:
        where = f"it is {self.state}" if self.state not in FINAL_STATES else f"it has {self.state}"
        if self.state == JobState.CANCELLED:
            where = "it is cancelled"
        elif self.row["phase"] in PAST_POINT_OF_NO_RETURN:
            where += f" (phase {self.row['phase']})"
        elif self.row["cancel_requested"]:
            where += ", and a cancel is requested"
        return TooLateError(self.row["id"], asked, where, advice)
