"""A job in a few words and numbers. No word depends on the reader's time zone."""

from datetime import datetime
from typing import Final

from blobferry.contract import JobState, Phase
from blobferry.redaction import printable
from blobferry.values import Job
from blobferry.views.sizes_and_durations import done_of, duration, in_bytes

#: What a running job does; uploading if its operation is not here.
_ACTIVITIES: Final = {"read_stream": "downloading", "move": "copying", "delete": "deleting"}
_UNCLAIMED: Final = (JobState.QUEUED, JobState.RETRYING)


def in_words(job: Job, now: datetime | None = None) -> str:
    """What the job is at. ``now``: the database's clock; when the job was read, unless given."""
    moment = waits_until(job, now)
    if moment is not None:
        left = duration((moment - (now or job.seen_at)).total_seconds())
        return f"retrying in {left}" if job.state == JobState.RETRYING else f"starts in {left}"
    match job.state:
        case JobState.QUEUED | JobState.RUNNING | JobState.RETRYING if job.cancel_requested:
            return "cancelling"
        case JobState.QUEUED | JobState.RUNNING | JobState.RETRYING if job.pause_requested:
            return "pausing"
        case JobState.RUNNING if job.phase == Phase.COMPLETING:
            return "completing"
        case JobState.RUNNING if job.phase == Phase.DELETING_SOURCE:
            return "deleting the source"
        case JobState.RUNNING if job.phase == Phase.VERIFYING:
            return "checking what is visible"
        case JobState.RUNNING:
            return _ACTIVITIES.get(job.operation, "uploading")
        case JobState.VERIFYING:
            return "checking what is visible"
        case _:
            return str(job.state)


def waits_until(job: Job, now: datetime | None = None) -> datetime | None:
    """The time that a queued or retrying job waits for, if that is all it waits for."""
    is_asked = job.cancel_requested or job.pause_requested
    is_due = job.run_at is None or job.run_at <= (now or job.seen_at)
    return None if is_asked or is_due or job.state not in _UNCLAIMED else job.run_at


def percent(job: Job) -> int | None:
    """How much is done, 0 to 100: 100 only once the job has succeeded. None if nobody knows, as of a delete."""
    if job.operation == "delete" or job.size is None:
        return None
    if job.state == JobState.SUCCEEDED:
        return 100
    return min(job.bytes_done * 100 // job.size, 99) if job.size else 0


def progress(job: Job) -> str:
    """How much of the blob is transferred; "" for a delete, which moves no bytes."""
    if job.operation == "delete":
        return ""
    if job.size is None:
        return f"{in_bytes(job.bytes_done)} of an unknown size"
    return f"{done_of(job.bytes_done, job.size, ' of ')} ({percent(job)}%)"


def problem(job: Job) -> str:
    """The code and message of the latest failure; "" without one."""
    return printable(f"{job.error_code}: {job.error_message or ''}".rstrip(": ")) if job.error_code else ""
