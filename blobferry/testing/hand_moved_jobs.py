"""Moves a job by hand to where a worker would bring it: the row and its history look as in life.

A test compares what ``succeed`` leaves with what a real run does.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Engine, case, func, insert, select, update

from blobferry.checks.arguments import check_job_id
from blobferry.contract import FINAL_STATES, JobState, Phase
from blobferry.errors import JobNotFoundError, TooLateError
from blobferry.jobs.job_ids import JobId
from blobferry.jobs.open_blocks import refuse_own_file
from blobferry.sql.clock import db_now
from blobferry.sql.database import reachable
from blobferry.sql.outbox_tables import ending_number
from blobferry.sql.tables import JOB_COLUMNS, attempts, jobs
from blobferry.testing.hand_made_results import result_by_hand
from blobferry.testing.told_ends import note_end

WORKER: Final = "blobferry.testing"  #: the name of the worker in rows that were moved by hand
LEASE: Final = 600.0  #: seconds; no caretaker of a test takes the job back meanwhile
_UNOWNED: Final = {"worker": None, "lease_expires_at": None, "published_at": None}
_SENDS_NOTHING: Final = ("move", "delete")  #: the store copies, or forgets
_OUTCOMES: Final = {JobState.SUCCEEDED: "succeeded", JobState.FAILED: "failed", JobState.CANCELLED: "cancelled"}


def succeed(engine: Engine, job_id: JobId, *, size: int | None, etag: str | None) -> Mapping[str, Any]:
    """End the job as succeeded; return its row."""
    with _claimed(engine, job_id, "finish") as job:
        size = job.known_size if size is None else size
        result = result_by_hand(job.row, size=size, etag=etag)
        etag = result.get("etag")
        done = {"bytes_done": size, "size": size} if "size" in result else {}
        if job.row["operation"] not in _SENDS_NOTHING:
            done["bytes_sent"] = max(size, job.row["bytes_sent"])
        return job.end(JobState.SUCCEEDED, result=result, etag=etag, error_code=None, error_message=None, **done)


def fail(engine: Engine, job_id: JobId, code: str, message: str) -> Mapping[str, Any]:
    """End the job as failed; return its row."""
    with _claimed(engine, job_id, "fail") as job:
        return job.end(JobState.FAILED, error_code=code, error_message=message)


def cancel(engine: Engine, job_id: JobId) -> Mapping[str, Any]:
    """End the job as cancelled, as a worker does upon ``Client.cancel``; return its row."""
    with _claimed(engine, job_id, "cancel") as job:
        return job.end(JobState.CANCELLED, cancel_requested=True, error_code=None, error_message=None)


def run(engine: Engine, job_id: JobId, *, bytes_done: int | None, size: int | None) -> Mapping[str, Any]:
    """Let the job be running, with so many bytes done; return its row."""
    with _claimed(engine, job_id, "run") as job:
        size = job.known_size if size is None else size
        done = job.row["bytes_done"] if bytes_done is None else bytes_done
        moved = {"size": max(size, done), "bytes_done": done, "bytes_sent": max(done, job.row["bytes_sent"])}
        return job.change(state=JobState.RUNNING, phase=Phase.UPLOADING, **moved)


def verify(engine: Engine, job_id: JobId) -> Mapping[str, Any]:
    """Let all bytes of the job be sent, and readers not see them yet; return its row."""
    with _claimed(engine, job_id, "verify") as job:
        done = {"bytes_done": job.known_size, "size": job.known_size}
        return job.change(state=JobState.VERIFYING, phase=Phase.VERIFYING, **done, **_UNOWNED)


def put_off(engine: Engine, job_id: JobId, code: str, message: str, seconds: float) -> Mapping[str, Any]:
    """Let the attempt end in an error after which the job is retried in so many seconds; return its row."""
    with _claimed(engine, job_id, "put off") as job:
        job.close_attempt("retrying", code, message)
        why = {"error_code": code, "error_message": message, "failures": jobs.c.failures + 1}
        return job.change(state=JobState.RETRYING, run_at=db_now(seconds), **_UNOWNED, **why)


def pause(engine: Engine, job_id: JobId) -> Mapping[str, Any]:
    """Let the job be paused, as a worker does upon ``Client.pause``; return its row."""
    with _claimed(engine, job_id, "pause") as job:
        return job.change(state=JobState.PAUSED, pause_requested=True, run_at=None, **_UNOWNED)


def number_ends(engine: Engine, job_ids: Iterable[str]) -> None:
    """Give the ends of these jobs numbers of their own, in this order: one transaction may have ended them all, in
    which the feed could not go on from the one to the other.
    """
    with reachable(), engine.begin() as connection:
        for job_id in job_ids:
            ended = (jobs.c.id == job_id, jobs.c.ended_in.is_not(None))
            connection.execute(update(jobs).where(*ended).values(ended_in=_next_number()))


def _next_number() -> ColumnElement[int]:
    last = select(func.coalesce(func.max(jobs.c.ended_in), 0)).scalar_subquery()
    return case((ending_number() > last, ending_number()), else_=last + 1)


@contextmanager
def _claimed(engine: Engine, job_id: JobId, asked: str) -> Iterator["_ClaimedByHand"]:
    """The job, owned by the kit until the block ends. Raises JobNotFoundError, and TooLateError if it has ended."""
    job_id = check_job_id(job_id)
    refuse_own_file(engine)
    with reachable(), engine.begin() as connection:
        touched = update(jobs).where(jobs.c.id == job_id).values(updated_at=jobs.c.updated_at)
        row = connection.execute(touched.returning(*JOB_COLUMNS, jobs.c.on_end)).mappings().one_or_none()
        if row is None:
            raise JobNotFoundError(job_id)
        if row["state"] in FINAL_STATES:
            raise TooLateError(job_id, asked, f"it is {row['state']}")
        job = _ClaimedByHand(connection, dict(row))
        job.claim()
        yield job


class _ClaimedByHand:
    def __init__(self, connection: Connection, row: dict[str, Any]) -> None:
        self._connection = connection
        self.row = row

    @property
    def known_size(self) -> int:
        """Bytes of the blob; as many as are done, if the row does not say."""
        contents = (self.row["request"] or {}).get("contents") or {}
        return int(self.row["size"] or contents.get("size") or self.row["bytes_done"] or 0)

    def claim(self) -> None:
        """As a run does: a new attempt unless one is open, and a number that outdates the messages sent before."""
        if self.row["lease_expires_at"] is None:
            opens = not self._connection.scalar(select(func.count()).where(*self._open_attempt()))
            self.change(
                token=jobs.c.token + 1,
                publish_seq=jobs.c.publish_seq + 1,
                attempt=jobs.c.attempt + int(opens),
                started_at=func.coalesce(jobs.c.started_at, db_now()),
                run_at=None,
                published_at=None,
            )
            if opens:
                opened = {"job_id": self.row["id"], "attempt": self.row["attempt"], "worker": WORKER}
                self._connection.execute(insert(attempts).values(opened))
        self.change(worker=WORKER, lease_expires_at=db_now(LEASE))

    def change(self, **values: Any) -> Mapping[str, Any]:
        """Change these columns; return the row."""
        statement = update(jobs).where(jobs.c.id == self.row["id"]).values(updated_at=db_now(), **values)
        returning = statement.returning(*JOB_COLUMNS, jobs.c.on_end, db_now().label("seen_at"))
        self.row = dict(self._connection.execute(returning).mappings().one())
        return self.row

    def end(self, state: JobState, **values: Any) -> Mapping[str, Any]:
        """End the job, with what whoever has asked is told of it, in this transaction."""
        ended = {"finished_at": db_now(), "ends": jobs.c.ends + 1, "ended_in": _next_number()}
        row = self.change(state=state, phase=None, run_at=None, **_UNOWNED, **ended, **values)
        self.close_attempt(_OUTCOMES[state], values["error_code"], values["error_message"])
        note_end(self._connection, row)
        return row

    def close_attempt(self, outcome: str, code: str | None, message: str | None) -> None:
        """Record how the attempt has ended, and what it has sent, which is what the row says beyond the others."""
        others = (attempts.c.job_id == self.row["id"], attempts.c.attempt != self.row["attempt"])
        before = self._connection.scalar(select(func.coalesce(func.sum(attempts.c.bytes_sent), 0)).where(*others)) or 0
        how: dict[str, Any] = {
            "outcome": outcome,
            "error_code": code,
            "error_message": message,
            "finished_at": db_now(),
        }
        how["bytes_sent"] = self.row["bytes_sent"] - int(before)
        self._connection.execute(update(attempts).where(*self._open_attempt()).values(how))

    def _open_attempt(self) -> tuple[Any, ...]:
        ours = (attempts.c.job_id == self.row["id"], attempts.c.attempt == self.row["attempt"])
        return (*ours, attempts.c.outcome.is_(None))
