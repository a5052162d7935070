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


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it was when it was read. Read it again with ``Client.get``."""

    id: str
    operation: str
    storage: str
    path: str | None  #: the destination
    source: str | None
    state: JobState
    phase: str | None  #: what a running job is at: uploading, completing, verifying
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
        values = {field.name: row[field.name] for field in dataclasses.fields(cls)}
        return cls(**values | {"state": JobState(row["state"])})

    def as_json(self) -> dict[str, Any]:
        """A dict that ``json.dumps`` takes; times are ISO 8601 with zone."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        }
