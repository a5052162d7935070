"""What the job that owns a name tells of the file: where it is, its size and time, without asking the store."""

import errno
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from pathlib import Path
from socket import gethostname
from urllib.parse import unquote, urlsplit

from blobferry.contract import JobState
from blobferry.django.owned_names import has_released
from blobferry.spooling.spooled import SpooledName
from blobferry.values import Job


class FilePlace(Enum):
    """Where a file is."""

    SPOOL = auto()  #: its job has yet to succeed
    STORE = auto()
    NOWHERE = auto()  #: it was deleted, or its job was cancelled, or will be at once
    UNKNOWN = auto()  #: no job tells, so the store must be asked


@dataclass(frozen=True, slots=True)
class OwnedFile:
    """A file of a storage, as its latest job shows it."""

    job: Job | None  #: that writes or deletes it

    @property
    def place(self) -> FilePlace:
        """Where the file is, as far as the job tells."""
        job = self.job
        if job is None:
            return FilePlace.UNKNOWN
        if job.operation == "delete":
            is_left = job.state in (JobState.FAILED, JobState.CANCELLED) and job.error_code != "path_not_found"
            return FilePlace.UNKNOWN if is_left else FilePlace.NOWHERE
        if has_released(job) or job.state == JobState.CANCELLED or job.cancel_requested:
            return FilePlace.NOWHERE
        return FilePlace.STORE if job.state == JobState.SUCCEEDED else FilePlace.SPOOL

    @property
    def is_owned(self) -> bool:
        """Whether a job has taken the name and none has given it back."""
        return self.job is not None and self.job.operation == "write_stream" and not has_released(self.job)

    @property
    def spooled(self) -> Path | None:
        """The file that is read until the job has succeeded; it may be gone."""
        return spooled_path(self.job) if self.job is not None and self.place is FilePlace.SPOOL else None

    @property
    def size(self) -> int | None:
        """Bytes, if the job tells."""
        if self.job is None or self.place not in (FilePlace.SPOOL, FilePlace.STORE):
            return None
        named = SpooledName.of_url(self.job.source)
        return named.size if self.place is FilePlace.SPOOL and named else self.job.size

    @property
    def changed_at(self) -> datetime | None:
        """When it was saved, once it is in the store when that was; None if the job does not tell."""
        if self.job is None or self.place not in (FilePlace.SPOOL, FilePlace.STORE):
            return None
        return self.job.created_at if self.place is FilePlace.SPOOL else self.job.finished_at

    def not_found(self, name: str) -> FileNotFoundError:
        """The error that says why there is nothing to read."""
        problem = "is not in the store"
        if self.job is not None and self.place is FilePlace.SPOOL:
            problem = f"job {self.job.id} is {self.job.state}, and host {gethostname()} does not see {self.job.source}"
        elif self.job is not None:
            problem = f"job {self.job.id}, a {self.job.operation}, is {self.job.state}, so there is no such file"
        return FileNotFoundError(errno.ENOENT, problem, name)


def spooled_path(job: Job) -> Path | None:
    """The spooled file that is the job's source; None for any other source."""
    if job.source is None or SpooledName.of_url(job.source) is None:
        return None
    return Path(unquote(urlsplit(job.source).path))
