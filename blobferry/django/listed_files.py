"""What is in a directory of a storage: files in the store, and those that are on their way to it."""

from collections.abc import Iterator
from typing import Final

from blobferry.contract import JobState
from blobferry.django.owned_names import owner_key
from blobferry.django.stored_files import StoredFiles
from blobferry.jobs.job_filter import States
from blobferry.values import Job

MOST_JOBS: Final = 10_000
_ENDING: Final = (JobState.QUEUED, JobState.RUNNING, JobState.VERIFYING, JobState.RETRYING, JobState.PAUSED)
_SPOOLED: Final = (*_ENDING, JobState.FAILED)


def listed_files(stored: StoredFiles, path: str) -> tuple[list[str], list[str]]:
    """The names of the directories and of the files in the directory, in order."""
    above = path.rstrip("/") + "/"
    names = set(stored.names(path))
    names -= {job.path.removeprefix(above) for job in _jobs(stored, path, "delete", _ENDING) if job.path}
    names |= {job.path.removeprefix(above) for job in _jobs(stored, path, "write_stream", _SPOOLED) if job.path}
    directories = {name.partition("/")[0] for name in names if "/" in name}
    return sorted(directories), sorted(name for name in names if "/" not in name)


def _jobs(stored: StoredFiles, path: str, operation: str, states: States) -> Iterator[Job]:
    """Those below the directory that own their name."""
    under = path.rstrip("/") or "/"
    asked = {"operation": operation, "state": states, "storage": stored.storage, "under": under, "limit": MOST_JOBS}
    found = stored.ferry.jobs(**asked)  # type: ignore[arg-type]
    return (job for job in found if job.path and job.path != under and job.idempotency_key == owner_key(job.path))
