"""Cancel, pause, resume and retry: what is asked for is written into the row, in a short transaction of its own.

Who runs the job hears of it with its next checkpoint or heartbeat; a row that nobody runs is for the next message or
the caretaker. Each may be repeated, and asked for by anybody at once: the row is locked first, so what is decided about
it still holds when it is changed.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, select, update

from blobferry.checks.arguments import check_job_id
from blobferry.contract import FINAL_STATES, PAST_POINT_OF_NO_RETURN, UNFINISHED_UPLOADS, JobState, Phase, UploadState
from blobferry.errors import JobNotFoundError, TooLateError
from blobferry.sql.clock import db_now
from blobferry.sql.database import reachable
from blobferry.sql.tables import attempts, jobs, uploads

Row = Mapping[str, Any]

_UNSENT: Final = (UploadState.OPENING, UploadState.OPEN)  #: readers cannot see anything of these
#: The phase of a job whose upload readers may see, by the upload's state: too late for a cancel.
_PHASES: Final = {UploadState.COMPLETING: Phase.COMPLETING, UploadState.COMPLETED: Phase.VERIFYING}
_ANEW: Final = "submit it anew"
_COUNTERS: Final = ("failures", "crashes", "crash_streak", "restarts", "polls")
_OF_THE_END: Final = ("run_at", "finished_at", "verify_until", "published_at", "result", "waits_for")


def cancel(engine: Engine, job_id: str) -> Row:
    """Ask for the end of the job. A failed one gives up the uploads that it kept; a cancelled one stays as it is."""
    with _locked(engine, job_id) as job:
        if job.state == JobState.CANCELLED:
            return job.row
        if job.state == JobState.FAILED:
            job.keep_uploads_until(db_now(), _UNSENT)
            return job.change()
        job.refuse_succeeded("cancel", "what it has done stays; to delete the blob is another job")
        job.refuse_past_point_of_no_return("cancel")
        return job.change(cancel_requested=True)


def pause(engine: Engine, job_id: str) -> Row:
    """Ask the job to stop and to keep what it has. A paused one stays as it is."""
    with _locked(engine, job_id) as job:
        job.refuse_ended("pause")
        if job.state == JobState.PAUSED:
            return job.row
        job.refuse_past_point_of_no_return("pause")
        return job.change(pause_requested=True)


def resume(engine: Engine, job_id: str) -> Row:
    """Take a pause back. A job that is not paused, and was not asked to be, stays as it is."""
    with _locked(engine, job_id) as job:
        job.refuse_ended("resume")
        if job.state == JobState.PAUSED:
            job.keep_uploads_until(None)
            # An attempt that has ended is not gone on with: the next run is the next attempt, as after any error.
            state = JobState.RETRYING if job.attempt_is_over() else JobState.QUEUED
            due = job.row["not_before"]
            return job.change(state=state, pause_requested=False, run_at=due, published_at=None)
        return job.change(pause_requested=False) if job.row["pause_requested"] else job.row


def retry(engine: Engine, job_id: str) -> Row:
    """Let a failed job go on, with the parts that it kept. One that goes on already stays as it is."""
    with _locked(engine, job_id) as job:
        if job.state != JobState.FAILED:
            job.refuse_ended("retry")
            return job.row
        deadline = job.row["deadline"]
        if deadline is not None and deadline <= job.row["seen_at"]:
            when = deadline.isoformat(timespec="seconds")
            raise TooLateError(job_id, "retry", f"its deadline {when} is over", _ANEW)
        job.keep_uploads_until(None)
        upload = job.upload_state()
        # Where nothing is left of what was sent, the source may be another one by now.
        begins_anew = {} if upload else {"source_fingerprint": None, "size": None, "bytes_done": 0}
        return job.change(
            state=JobState.RETRYING,
            phase=_PHASES.get(UploadState(upload)) if upload else None,
            **begins_anew,
            cancel_requested=False,
            pause_requested=False,
            **dict.fromkeys(_COUNTERS, 0),
            **dict.fromkeys(_OF_THE_END),
        )


@contextmanager
def _locked(engine: Engine, job_id: str) -> Iterator["_Locked"]:
    """The job, locked until the block ends. Raises JobNotFoundError."""
    check_job_id(job_id)
    with reachable(), engine.begin() as connection:
        # An UPDATE of nothing: a SELECT locks nothing on SQLite.
        touched = update(jobs).where(jobs.c.id == job_id).values(updated_at=jobs.c.updated_at)
        row = connection.execute(touched.returning(*jobs.c, db_now().label("seen_at"))).mappings().one_or_none()
        if row is None:
            raise JobNotFoundError(job_id)
        yield _Locked(connection, dict(row))


class _Locked:
    """A job whose row nobody else can change."""

    def __init__(self, connection: Connection, row: Row) -> None:
        self._connection = connection
        self.row = row
        self.state = row["state"]

    def change(self, **values: Any) -> Row:
        """Its row after the change."""
        statement = update(jobs).where(jobs.c.id == self.row["id"]).values(updated_at=db_now(), **values)
        returning = statement.returning(*jobs.c, db_now().label("seen_at"))
        return dict(self._connection.execute(returning).mappings().one())

    def keep_uploads_until(self, moment: db_now | None, states: tuple[UploadState, ...] = UNFINISHED_UPLOADS) -> None:
        """When a caretaker aborts its unfinished uploads: at the moment, or not while the job lives."""
        ours = (uploads.c.job_id == self.row["id"], uploads.c.state.in_([str(state) for state in states]))
        self._connection.execute(update(uploads).where(*ours).values(recheck_at=moment))

    def upload_state(self) -> str | None:
        """The state of its newest upload that was not given up: one to go on with, or one that readers may see."""
        given_up = [str(state) for state in (UploadState.ABORTING, UploadState.GONE)]
        theirs = select(uploads.c.state).where(uploads.c.job_id == self.row["id"], uploads.c.state.not_in(given_up))
        return self._connection.scalar(theirs.order_by(uploads.c.id.desc()).limit(1))

    def attempt_is_over(self) -> bool:
        """Whether its latest attempt has an outcome."""
        latest = (attempts.c.job_id == self.row["id"], attempts.c.attempt == self.row["attempt"])
        return self._connection.scalar(select(attempts.c.outcome).where(*latest)) is not None

    def refuse_ended(self, asked: str) -> None:
        """Raise TooLateError if it is final, or will be: a cancel is not taken back."""
        self.refuse_succeeded(asked, "there is nothing left to do")
        if self.state == JobState.FAILED:
            raise self._too_late(asked, "retry lets it go on")
        if self.state == JobState.CANCELLED or self.row["cancel_requested"]:
            raise self._too_late(asked, f"what it had sent is given up, {_ANEW}")

    def refuse_succeeded(self, asked: str, advice: str) -> None:
        """Raise TooLateError if it is done."""
        if self.state == JobState.SUCCEEDED:
            raise self._too_late(asked, advice)

    def refuse_past_point_of_no_return(self, asked: str) -> None:
        """Raise TooLateError if readers may see the outcome any moment."""
        if self.row["phase"] in PAST_POINT_OF_NO_RETURN:
            raise self._too_late(asked, "readers may see the outcome any moment: wait for its end")

    def _too_late(self, asked: str, advice: str) -> TooLateError:
        where = f"it is {self.state}" if self.state not in FINAL_STATES else f"it has {self.state}"
        if self.state == JobState.CANCELLED:
            where = "it is cancelled"
        elif self.row["phase"] in PAST_POINT_OF_NO_RETURN:
            where += f" (phase {self.row['phase']})"
        elif self.row["cancel_requested"]:
            where += ", and its cancel was asked for"
        return TooLateError(self.row["id"], asked, where, advice)
