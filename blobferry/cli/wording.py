"""Jobs in plain words for a terminal. Times are local; those in JSON are UTC."""

from datetime import datetime
from typing import Final

from blobferry.contract import JobState, Phase
from blobferry.redaction import printable
from blobferry.values import FileInfo, Job

#: What a running job does; uploading if its operation is not here.
_ACTIVITIES: Final = {"read_stream": "downloading", "move": "copying", "delete": "deleting"}
NOTHING_MORE: Final = "nothing more will be done"
WAITS_FOR_SLOT: Final = "waits for a free worker slot"
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def in_bytes(size: float) -> str:
    """A number of bytes, such as 1.5 GiB."""
    unit = _unit(size)
    return f"{size / 1024**unit:.{min(unit, 1)}f} {_UNITS[unit]}"


def done_of(done: int, size: int, separator: str = "/") -> str:
    """Two numbers of bytes in the unit of the second, such as 0.3/1.5 GiB."""
    unit = _unit(size)
    return f"{done / 1024**unit:.{min(unit, 1)}f}{separator}{in_bytes(size)}"


def _unit(size: float) -> int:
    return next((unit for unit in range(len(_UNITS)) if size < 1024 ** (unit + 1)), len(_UNITS) - 1)


def local_time(moment: datetime) -> str:
    """Date, time and zone, by the reader's clock."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def short_time(moment: datetime) -> str:
    """The time of day by the reader's clock, with the date unless that is today."""
    then = moment.astimezone()
    return then.strftime("%H:%M:%S" if then.date() == datetime.now().astimezone().date() else "%Y-%m-%d %H:%M")


def duration(seconds: float) -> str:
    """A duration in the largest unit of which it has at least two."""
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{max(seconds, 0):.0f} s"


def countdown(moment: datetime, now: datetime) -> str:
    """A future time, and how far off it is."""
    return f"{short_time(moment)} (in {duration((moment - now).total_seconds())})"


def time_ago(moment: datetime, now: datetime) -> str:
    """The age of a past time."""
    return f"{duration((now - moment).total_seconds())} ago"


def is_due(job: Job) -> bool:
    """True unless ``run_at`` is still to come."""
    return job.run_at is None or job.run_at <= job.seen_at


def progress(job: Job) -> str:
    """How much of the blob is transferred; "" for a delete, which moves no bytes."""
    if job.operation == "delete":
        return ""
    if job.size is None:
        return f"{in_bytes(job.bytes_done)} of an unknown size"
    part = job.bytes_done / job.size if job.size else float(job.state == JobState.SUCCEEDED)
    return f"{done_of(job.bytes_done, job.size, ' of ')} ({part:.0%})"


def problem(job: Job) -> str:
    """The code and message of the latest failure; "" without one."""
    return printable(f"{job.error_code}: {job.error_message or ''}".rstrip(": ")) if job.error_code else ""


def briefly(job: Job, now: datetime | None = None) -> str:
    """The job's state in a few words. ``now``: the database's clock; when the job was read, unless given."""
    now = now or job.seen_at
    due = job.run_at is not None and job.run_at > now
    match job.state:
        case JobState.QUEUED | JobState.RUNNING | JobState.RETRYING if job.cancel_requested:
            return "cancelling"
        case JobState.QUEUED | JobState.RUNNING | JobState.RETRYING if job.pause_requested:
            return "pausing"
        case JobState.QUEUED if due and job.run_at:
            return f"not before {short_time(job.run_at)}"
        case JobState.RUNNING if job.phase == Phase.COMPLETING:
            return "completing"
        case JobState.RUNNING if job.phase == Phase.DELETING_SOURCE:
            return "deleting the source"
        case JobState.RUNNING:
            return _ACTIVITIES.get(job.operation, "uploading")
        case JobState.RETRYING if due and job.run_at:
            return f"retrying at {countdown(job.run_at, now)}"
        case _:
            return str(job.state)


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
