"""The frozen values that Client returns. Times are aware, in UTC, by the database's clock."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Self

from blobferry.checks.arguments import REPLACED_BY
from blobferry.contract import FINAL_STATES, RECEIVERS, JobState, UploadState
from blobferry.messages.end_events import event_id


def successor(key: str | None) -> str | None:
    """The id of the job that has taken the key of a job; None if none has. ``key``: of its row."""
    return key.removeprefix(REPLACED_BY) if key is not None and key.startswith(REPLACED_BY) else None


class JsonValue:
    """A value that can be written as JSON."""

    __slots__ = ()

    @classmethod
    def _from(cls, found: Mapping[str, Any]) -> Self:
        return cls(**{each.name: found[each.name] for each in dataclasses.fields(cls)})  # type: ignore[arg-type]

    def as_json(self) -> dict[str, Any]:
        """A dict for ``json.dumps``; times are ISO 8601 with zone."""
        found = ((each.name, getattr(self, each.name)) for each in dataclasses.fields(self))  # type: ignore[arg-type]
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in found}


@dataclass(frozen=True, slots=True)
class FileInfo(JsonValue):
    """A blob, or else a directory, as ``stat`` shows it."""

    path: str
    size: int  #: bytes; 0 for a directory
    mod_time: datetime | None  #: aware, UTC; None for a directory
    is_dir: bool

    @classmethod
    def from_json(cls, answer: Mapping[str, Any]) -> Self:
        """The answer of the task ``blobferry.stat``."""
        mod_time = answer["mod_time"]
        moment = None if mod_time is None else datetime.fromisoformat(mod_time)
        return cls(answer["path"], answer["size"], moment, answer["is_dir"])


@dataclass(frozen=True, slots=True)
class Job(JsonValue):
    """A job at the time of reading. Read it again with ``Client.get``."""

    id: str
    operation: str
    storage: str
    path: str | None  #: of the blob; the destination of a move
    source: str | None  #: the URL of the source, without secrets, or the path that is moved
    dest: str | None  #: the file: URL of the file that a blob is read into
    dest_storage: str | None  #: the other storage of a move
    state: JobState
    phase: str | None  #: how far it has got: uploading, completing, verifying, …
    size: int | None  #: bytes of the blob, once the worker has opened the source
    bytes_done: int  #: bytes that will not be sent again
    attempt: int  #: 0 before the first; not counted by slices
    priority: int  #: 0 to 9, higher first
    run_at: datetime | None  #: not before this
    deadline: datetime | None  #: a job that has not succeeded by then fails
    cancel_requested: bool  #: takes effect within one part
    pause_requested: bool  #: takes effect within one part
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    worker: str | None  #: the worker that runs it now
    error_code: str | None  #: of the latest failure
    error_message: str | None
    result: Mapping[str, Any] | None
    labels: Mapping[str, str] | None
    idempotency_key: str | None
    #: When it was read, which countdowns start from. Jobs that differ only in it are equal.
    seen_at: datetime = field(compare=False)
    replaces: str | None = None  #: in the answer of a submit with ``reuse``: the ended job that had the key until now
    replaced_by: str | None = None  #: the job that has the key of this one, which failed or was cancelled

    @property
    def is_final(self) -> bool:
        """True once the job has succeeded, failed or been cancelled."""
        return self.state in FINAL_STATES

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """The job in a row of ``blobferry_jobs``. Without ``seen_at`` the row was read at its ``updated_at``."""
        request = row["request"] or {}
        seen_at = row.get("seen_at") or row["updated_at"]
        known = {"state": JobState(row["state"]), "dest_storage": request.get("dest_storage"), "seen_at": seen_at}
        known["replaces"], known["replaced_by"] = row.get("replaces"), successor(row["idempotency_key"])
        if known["replaced_by"] is not None:
            known["idempotency_key"] = None
        return cls._from({**row, **known})


@dataclass(frozen=True, slots=True)
class Attempt(JsonValue):
    """One attempt of a job, with all its slices and pauses."""

    attempt: int  #: from 1
    worker: str | None  #: the last one, if slices ran on several
    started_at: datetime
    finished_at: datetime | None
    outcome: str | None  #: succeeded, failed, retrying, died or cancelled; None until it ends
    error_code: str | None
    error_message: str | None
    bytes_sent: int  #: over the wire, including parts that were sent twice
    remark: str | None  #: another event, such as an upload that was lost and started again
    sent: Mapping[str, int] | None  #: requests on the wire by verb ("put", "upload_part"), repeated ones included

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """The attempt in a row of ``blobferry_attempts``."""
        return cls._from(row)


@dataclass(frozen=True, slots=True)
class Upload(JsonValue):
    """A multipart upload or put of a job, or the partial file of a ``read_stream``."""

    job_id: str
    job_state: JobState
    state: UploadState
    storage: str
    bucket: str
    endpoint: str  #: of the store; ``file://host`` for a partial file on that host
    key: str
    upload_id: str | None  #: None until the store has answered, and for a single put
    size: int | None  #: bytes of the whole blob, if known
    bytes_at_risk: int  #: bytes of its parts, which are stored and paid for, and lost if it is aborted
    opened_at: datetime
    kept_until: datetime | None  #: aborted then unless the job continues before; None: kept while the job lives

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """The upload in a row of ``job_queries.find_uploads``."""
        return cls._from({**row, "state": UploadState(row["state"]), "job_state": JobState(row["job_state"])})


@dataclass(frozen=True, slots=True)
class Delivery(JsonValue):
    """The end of a job, and one receiver that is to learn it: a task of the app, or a webhook."""

    id: int
    job_id: str
    event_id: str  #: the same for all receivers of this end, and at each try; a webhook's ``webhook-id``
    sequence: int  #: of the ends of this job, from 1
    job_state: JobState  #: in which it ended
    kind: str  #: task or webhook
    receiver: str  #: the name of the task, or the URL without its secrets
    secret: str | None  #: the name of the secrets that sign a webhook
    state: str  #: waiting, delivered, given_up (after 24 hours), or gone (answered 410)
    tries: int  #: since the end, or since it was redelivered
    status: int | None  #: of the last answer; None: there was none
    error: str | None  #: why the last try has failed
    ended_at: datetime
    tried_at: datetime | None  #: when the last try of a webhook ended
    due_at: datetime | None  #: when the next one begins; None: there is none
    delivered_at: datetime | None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """The delivery in a row of ``blobferry_deliveries``, with ``on_end`` of its job."""
        state = "waiting" if row["state"] == "due" else row["state"]
        known = {"state": state, "job_state": JobState(row["job_state"]), "receiver": row["endpoint"]}
        if row["kind"] == "task":
            option = RECEIVERS[JobState(row["job_state"])]
            known["receiver"] = (row["on_end"] or {}).get(option, {}).get("task", "")
        event = event_id(row["job_id"], row["sequence"])
        return cls._from({**row, **known, "event_id": event, "due_at": row["due_at"] if state == "waiting" else None})


_NESTED: Final = frozenset({"job", "attempts", "uploads", "holder", "deliveries"})


@dataclass(frozen=True, slots=True)
class Situation(JsonValue):
    """A job with everything that explains its state, read together at ``job.seen_at``."""

    job: Job
    attempts: tuple[Attempt, ...]  #: the oldest first
    uploads: tuple[Upload, ...]  #: the unfinished ones, the oldest first
    published_at: datetime | None  #: when it was last published; None: not since it became claimable
    lease_expires_at: datetime | None  #: None: no run owns it
    failures: int  #: runs in a row that ended in an error without progress
    max_attempts: int | None  #: ``retry.max_attempts`` of the worker that last recorded a failure; None before
    crashes: int  #: workers that died with it
    crash_streak: int  #: workers in a row that died with it
    restarts: int  #: uploads started again from byte 0
    polls: int  #: polls of Stat that did not yet show the blob
    verify_until: datetime | None  #: when the Stat poll gives up
    waits_for: str | None  #: the job that holds, or is earlier in line for, a path that this one needs
    holder: Job | None  #: that job
    ahead: int  #: number of waiting jobs that come first
    workers: int | None = None  #: number of workers that are alive on this database
    lacks: tuple[str, ...] = ()  #: the workers that leave it to others, and what they lack
    deliveries: tuple[Delivery, ...] = ()  #: of its ends, the newest first

    def as_json(self) -> dict[str, Any]:
        """The fields of the job and of the situation in one dict for ``json.dumps``."""
        return {
            **self.job.as_json(),
            **{name: value for name, value in JsonValue.as_json(self).items() if name not in _NESTED},
            "attempts": [attempt.as_json() for attempt in self.attempts],
            "uploads": [upload.as_json() for upload in self.uploads],
            "deliveries": [delivery.as_json() for delivery in self.deliveries],
        }
