"""Jobs in plain words, for people at a terminal. Times are local here; JSON has them in UTC."""

from datetime import datetime
from typing import Final

from blobferry.contract import JobState, Phase
from blobferry.redaction import printable
from blobferry.values import FileInfo, Job

#: What a running job is at.
_DOING: Final = {"read_stream": "downloading", "move": "copying", "delete": "deleting"}
NOTHING_MORE: Final = "nothing more will be done"
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def in_bytes(size: float) -> str:
    """A number of bytes to three or four digits."""
    unit = _unit(size)
    return f"{size / 1024**unit:.{min(unit, 1)}f} {_UNITS[unit]}"


def share(done: int, size: int, word: str = "/") -> str:
    """Two numbers of bytes in the unit of the second."""
    unit = _unit(size)
    return f"{done / 1024**unit:.{min(unit, 1)}f}{word}{in_bytes(size)}"


def _unit(size: float) -> int:
    return next((unit for unit in range(len(_UNITS)) if size < 1024 ** (unit + 1)), len(_UNITS) - 1)


def local(moment: datetime) -> str:
    """A time as the reader's clock shows it, with its zone."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def clock(moment: datetime) -> str:
    """The time of day by the reader's clock; with the day, unless that is today."""
    then = moment.astimezone()
    return then.strftime("%H:%M:%S" if then.date() == datetime.now().astimezone().date() else "%Y-%m-%d %H:%M")


def duration(seconds: float) -> str:
    """A stretch of time in its largest unit that says something."""
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{max(seconds, 0):.0f} s"


def coming(moment: datetime, now: datetime) -> str:
    """A time to come, and how far off it is."""
    return f"{clock(moment)} (in {duration((moment - now).total_seconds())})"


def past(moment: datetime, now: datetime) -> str:
    """How long ago it was."""
    return f"{duration((now - moment).total_seconds())} ago"


def progress(job: Job) -> str:
    """How much of the blob is where it belongs; "" for a delete, which moves no bytes."""
    if job.operation == "delete":
        return ""
    if job.size is None:
        return f"{in_bytes(job.bytes_done)} of a size that is not known yet"
    part = job.bytes_done / job.size if job.size else float(job.state == JobState.SUCCEEDED)
    return f"{share(job.bytes_done, job.size, ' of ')} ({part:.0%})"


def problem(job: Job) -> str:
    """The code and message of the latest failure; "" if there is none."""
    return printable(f"{job.error_code}: {job.error_message or ''}".rstrip(": ")) if job.error_code else ""


def briefly(job: Job, now: datetime | None = None) -> str:
    """What the job is at, in a few words; ``now`` by the database's clock, if later than when it was read."""
    now = now or job.seen_at
    due = job.run_at is not None and job.run_at > now
    match job.state:
        case JobState.QUEUED | JobState.RUNNING | JobState.RETRYING if job.cancel_requested:
            return "cancelling"
        case JobState.QUEUED | JobState.RUNNING | JobState.RETRYING if job.pause_requested:
            return "pausing"
        case JobState.QUEUED if due and job.run_at:
            return f"not before {clock(job.run_at)}"
        case JobState.RUNNING if job.phase == Phase.COMPLETING:
            return "completing"
        case JobState.RUNNING if job.phase == Phase.DELETING_SOURCE:
            return "deleting the source"
        case JobState.RUNNING:
            return _DOING.get(job.operation, "uploading")
        case JobState.RETRYING if due and job.run_at:
            return f"retrying at {coming(job.run_at, now)}"
        case _:
            return str(job.state)


def ending(job: Job) -> str:
    """One line about a job that is final."""
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
            done = f"{job.source} is {_place(job)} now, {in_bytes(job.size or 0)}"
        case _:
            done = f"{job.path}, {in_bytes(job.size or 0)}"
    return printable(f"succeeded: {done} in {took:.1f} s{attempts}")


def _place(job: Job) -> str:
    """The path; with its storage, where that is not the job's own."""
    return f"{job.path} on storage {job.dest_storage}" if job.dest_storage else str(job.path)


def acknowledgement(asked: str, job: Job) -> str:
    """What becomes of a cancel, pause, resume or retry that was asked for."""
    soon = "after the part in hand" if job.state == JobState.RUNNING else "within seconds"
    match asked, job.state:
        case "cancel", JobState.FAILED:
            return "had failed before; the upload that it kept is given up"
        case ("cancel", JobState.CANCELLED) | ("pause", JobState.PAUSED):
            return str(job.state)
        case "cancel" | "pause", _:
            return f"{asked} asked for; takes effect {soon}"
        case _ if job.pause_requested:
            return "pause asked for"
        case _:
            return str(job.state)


def file_table(info: FileInfo) -> list[tuple[str, str]]:
    """What Stat shows of a path, as labels and values."""
    if info.is_dir:
        return [("path", printable(info.path)), ("kind", "directory")]
    return [
        ("path", printable(info.path)),
        ("kind", "blob"),
        ("size", f"{in_bytes(info.size)} ({info.size:,} bytes)"),
        ("modified", local(info.mod_time) if info.mod_time else ""),
    ]
