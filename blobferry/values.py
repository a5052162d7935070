"""The frozen values that callers get back. Times are aware, UTC, and by the database's clock."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from blobferry.contract import FINAL_STATES, JobState, UploadState


class _Value:
    """What all of them can do."""

    __slots__ = ()

    def as_json(self) -> dict[str, Any]:
        """A dict that ``json.dumps`` takes; times are ISO 8601 with zone."""
        found = ((each.name, getattr(self, each.name)) for each in dataclasses.fields(self))  # type: ignore[arg-type]
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in found}


@dataclass(frozen=True, slots=True)
class FileInfo(_Value):
    """What ``stat`` shows of a path."""

    path: str
    size: int  #: bytes; 0 for a directory
    mod_time: datetime | None  #: aware, UTC; None for a directory
    is_dir: bool

    @classmethod
    def from_json(cls, answer: Mapping[str, Any]) -> Self:
        """What the task ``blobferry.stat`` answered."""
        mod_time = answer["mod_time"]
        moment = None if mod_time is None else datetime.fromisoformat(mod_time)
        return cls(answer["path"], answer["size"], moment, answer["is_dir"])


@dataclass(frozen=True, slots=True)
class Job(_Value):
    """A job as it was when it was read. Read it again with ``Client.get``."""

    id: str
    operation: str
    storage: str
    path: str | None  #: of the blob; of a move, the destination
    source: str | None  #: the URL that is read, without its secrets, or the path that is moved
    dest: str | None  #: the file: URL that a blob is read into
    dest_storage: str | None  #: of a move to another storage
    state: JobState
    phase: str | None  #: what a running job is at: uploading, completing, verifying, …
    size: int | None  #: bytes of the blob, as soon as the worker has seen the source
    bytes_done: int  #: bytes that need not be sent again
    attempt: int  #: 0 before the first; slices do not count
    priority: int  #: 0 to 9, higher first
    run_at: datetime | None  #: not before this
    deadline: datetime | None  #: a job that is not done by then fails
    cancel_requested: bool  #: it takes effect within one part
    pause_requested: bool  #: the same
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    worker: str | None  #: who runs it now
    error_code: str | None  #: of the latest failure
    error_message: str | None
    result: Mapping[str, Any] | None
    labels: Mapping[str, str] | None
    idempotency_key: str | None
    #: When it was read: countdowns to the other times are counted from it. Looks that differ in it alone are equal.
    seen_at: datetime = field(compare=False)

    @property
    def is_final(self) -> bool:
        """True once nothing more will happen to the job by itself."""
        return self.state in FINAL_STATES

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """The job in a row of ``blobferry_jobs``; a row that was just written is as new as ``updated_at`` says."""
        request = row["request"] or {}
        found = {
            **row,
            "state": JobState(row["state"]),
            "dest_storage": request.get("dest_storage"),
            "seen_at": row.get("seen_at") or row["updated_at"],
        }
        return cls(**{each.name: found[each.name] for each in dataclasses.fields(cls)})


@dataclass(frozen=True, slots=True)
class Attempt(_Value):
    """One try of a job. Slices of one try, and what a pause interrupted, share it."""

    attempt: int  #: from 1
    worker: str | None  #: the last one
    started_at: datetime
    finished_at: datetime | None
    outcome: str | None  #: succeeded, failed, retrying, died or cancelled; None while it lasts
    error_code: str | None
    error_message: str | None
    bytes_sent: int  #: what went over the wire, parts that were sent twice included
    remark: str | None  #: what else happened

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """The attempt in a row of ``blobferry_attempts``."""
        return cls(**{each.name: row[each.name] for each in dataclasses.fields(cls)})


@dataclass(frozen=True, slots=True)
class Upload(_Value):
    """One upload of the ledger: what a job has opened in a store, or the partial file of a ``read_stream``."""

    job_id: str
    job_state: JobState
    state: UploadState
    storage: str
    bucket: str
    endpoint: str  #: of the store; ``file://host`` for a partial file on that host
    key: str
    upload_id: str | None  #: None: the store has not answered yet, or it is a single put
    size: int | None  #: bytes of the whole blob, if known
    bytes_at_risk: int  #: bytes in its parts: stored, paid for, and lost when it is aborted
    opened_at: datetime
    kept_until: datetime | None  #: it is aborted then, unless the job goes on before; None: as long as the job lives

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """The upload in a row of ``finding.find_uploads``."""
        found = {**row, "state": UploadState(row["state"]), "job_state": JobState(row["job_state"])}
        return cls(**{each.name: found[each.name] for each in dataclasses.fields(cls)})


@dataclass(frozen=True, slots=True)
class Situation:
    """A job and all that explains why it is where it is, read together. ``job.seen_at`` is when."""

    job: Job
    attempts: tuple[Attempt, ...]  #: the oldest first
    uploads: tuple[Upload, ...]  #: the unfinished ones, the oldest first
    published_at: datetime | None  #: when a caretaker last sent a message for it; None: not since it may be claimed
    lease_expires_at: datetime | None  #: None: nobody runs it
    failures: int  #: runs in a row that ended in an error without progress
    max_attempts: int | None  #: so many of them end it, as the worker is set that counted last; None: none did
    crashes: int  #: workers that died with it
    crash_streak: int  #: the same, in a row
    restarts: int  #: uploads begun again from byte 0
    polls: int  #: looks of the Stat poll
    verify_until: datetime | None  #: when the Stat poll gives up
    waits_for: str | None  #: the id of the job that holds, or stands earlier in line for, a path that this one needs
    holder: Job | None  #: that job
    ahead: int  #: waiting jobs that are taken before this one

    def as_json(self) -> dict[str, Any]:
        """The job, with all the rest beside it, as a dict that ``json.dumps`` takes."""
        plain = ("failures", "max_attempts", "crashes", "crash_streak", "restarts", "polls", "waits_for", "ahead")
        times = ("published_at", "lease_expires_at", "verify_until")
        moments = {name: getattr(self, name) for name in times}
        return {
            **self.job.as_json(),
            **{name: None if moment is None else moment.isoformat() for name, moment in moments.items()},
            **{name: getattr(self, name) for name in plain},
            "attempts": [attempt.as_json() for attempt in self.attempts],
            "uploads": [upload.as_json() for upload in self.uploads],
        }
