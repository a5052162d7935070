"""Jobs in plain words for a terminal. Times are local; those in JSON are UTC."""

from datetime import datetime
from typing import Final

from blobferry.contract import JobState
from blobferry.redaction import printable
from blobferry.values import FileInfo, Job
from blobferry.views.job_words import in_words, problem, waits_until
from blobferry.views.sizes_and_durations import duration, in_bytes

NOTHING_MORE: Final = "nothing more will be done"
WAITS_FOR_SLOT: Final = "waits for a free worker slot"


def local_time(moment: datetime) -> str:
    """Date, time and zone, by the reader's clock."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def short_time(moment: datetime) -> str:
    """The time of day by the reader's clock, with the date unless that is today."""
    then = moment.astimezone()
    return then.strftime("%H:%M:%S" if then.date() == datetime.now().astimezone().date() else "%Y-%m-%d %H:%M")


def countdown(moment: datetime, now: datetime) -> str:
    """A future time, and how far off it is."""
    return f"{short_time(moment)} (in {duration((moment - now).total_seconds())})"


def time_ago(moment: datetime, now: datetime) -> str:
    """The age of a past time."""
    return f"{duration((now - moment).total_seconds())} ago"


def is_due(job: Job) -> bool:
    """True unless ``run_at`` is still to come."""
    return job.run_at is None or job.run_at <= job.seen_at


def briefly(job: Job, now: datetime | None = None) -> str:
    """The job's state in a few words. ``now``: the database's clock; when the job was read, unless given."""
    moment = waits_until(job, now)
    if moment is None:
        return in_words(job, now)
    if job.state == JobState.RETRYING:
        return f"retrying at {countdown(moment, now or job.seen_at)}"
    return f"not before {short_time(moment)}"


def final_line(job: Job) -> str:
    """One line about a final job."""
    if job.state != JobState.SUCCEEDED:
        why = problem(job) if job.state == JobState.FAILED else NOTHING_MORE
        return f"{job.state}: {why}"
    took = (job.finished_at - job.created_at).total_seconds() if job.finished_at else 0.0
    attempts = f", attempt {job.attempt}" if job.attempt > 1 else ""
    match job.operation:
        case "delete":
            done = f"{job.path} deleted"
        case "read_stream":
            done = f"{job.path} is in {job.dest}, {in_bytes(job.size or 0)}"
        case "move":
            done = f"{job.source} is now {_place(job)}, {in_bytes(job.size or 0)}"
        case _:
            done = f"{job.path}, {in_bytes(job.size or 0)}"
    return printable(f"succeeded: {done} in {took:.1f} s{attempts}")


def _place(job: Job) -> str:
    """The path, with its storage if that is not the job's own."""
    return f"{job.path} on storage {job.dest_storage}" if job.dest_storage else str(job.path)


def acknowledgement(requested: str, job: Job) -> str:
    """The effect of a cancel, pause, resume or retry on the job."""
    soon = "after the current part" if job.state == JobState.RUNNING else "within seconds"
    match requested, job.state:
        case "cancel", JobState.FAILED:
            return "had failed already; the upload that it kept is given up"
        case ("cancel", JobState.CANCELLED) | ("pause", JobState.PAUSED):
            return str(job.state)
        case "cancel" | "pause", _:
            return f"{requested} requested; takes effect {soon}"
        case _ if job.pause_requested:
            return "pause requested"
        case _:
            return str(job.state)


def file_table(info: FileInfo) -> list[tuple[str, str]]:
    """The answer of Stat as labels and values."""
    if info.is_dir:
        return [("path", printable(info.path)), ("kind", "directory")]
    return [
        ("path", printable(info.path)),
        ("kind", "blob"),
        ("size", f"{in_bytes(info.size)} ({info.size:,} bytes)"),
        ("modified", local_time(info.mod_time) if info.mod_time else ""),
    ]
