"""The frozen values that callers get back."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from blobferry.contract import FINAL_STATES, JobState


@dataclass(frozen=True, slots=True)
class FileInfo:
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

    def as_json(self) -> dict[str, Any]:
        """A dict that ``json.dumps`` takes; the time is ISO 8601 with zone."""
        return _as_json(self)


@dataclass(frozen=True, slots=True)
class Job:
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
    run_at: datetime | None  #: not before this
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

    @property
    def is_final(self) -> bool:
        """True once nothing more will happen to the job by itself."""
        return self.state in FINAL_STATES

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """The job in a row of ``blobferry_jobs``."""
        request = row["request"] or {}
        found = {**row, "state": JobState(row["state"]), "dest_storage": request.get("dest_storage")}
        return cls(**{field.name: found[field.name] for field in dataclasses.fields(cls)})

    def as_json(self) -> dict[str, Any]:
        """A dict that ``json.dumps`` takes; times are ISO 8601 with zone."""
        return _as_json(self)


def _as_json(value: FileInfo | Job) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    }
