"""Jobs in plain words, for people at a terminal. Times are local here; JSON has them in UTC."""

from datetime import UTC, datetime
from typing import Final

from blobferry.contract import JobState, Phase
from blobferry.values import FileInfo, Job

#: What a running job is at.
_DOING: Final = {"read_stream": "downloading", "move": "copying", "delete": "deleting"}
_SENT: Final = "sent; it is done when Stat shows the blob"
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def printable(text: str) -> str:
    """The text without control characters: a name or an error may hold an escape sequence for the terminal."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


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


def briefly(job: Job) -> str:
    """What the job is at, in a few words."""
    due = job.run_at is not None and job.run_at > datetime.now(UTC)
    match job.state:
        case JobState.QUEUED if due and job.run_at:
            return f"not before {clock(job.run_at)}"
        case JobState.RUNNING if job.phase == Phase.COMPLETING:
            return "completing"
        case JobState.RUNNING if job.phase == Phase.DELETING_SOURCE:
            return "deleting the source"
        case JobState.RUNNING:
            return _DOING.get(job.operation, "uploading")
        case JobState.RETRYING if due and job.run_at:
            seconds = (job.run_at - datetime.now(UTC)).total_seconds()
            return f"retrying at {clock(job.run_at)} (in {seconds:.0f} s)"
        case _:
            return str(job.state)


def situation(job: Job) -> str:
    """Why the job is where it is, and what comes next."""
    due = clock(job.run_at) if job.run_at is not None and job.run_at > datetime.now(UTC) else None
    why = f" because {problem(job)}" if problem(job) else ""
    match job.state:
        case JobState.QUEUED if due:
            return f"not before {due}; then it waits for a slot of a worker"
        case JobState.QUEUED if job.attempt:
            return "between two slices: waits for a slot of a worker, then goes on where it was"
        case JobState.QUEUED:
            return "waits for a slot of a worker"
        case JobState.RUNNING:
            since = f", started {clock(job.started_at)}" if job.started_at else ""
            return f"on {printable(job.worker or 'a worker')}{since}: {_at(job)}"
        case JobState.VERIFYING:
            sent = "deleted; it is done when Stat shows nothing" if job.operation == "delete" else _SENT
            return sent + (f", next look at {due}" if due else "")
        case JobState.RETRYING:
            return (f"at {due}" if due else "as soon as a worker has a free slot") + why
        case JobState.PAUSED:
            return "waits for a resume"
        case JobState.FAILED:
            return problem(job)
        case JobState.CANCELLED:
            return "nothing more will be done"
        case JobState.SUCCEEDED:
            return _outcome(job)
    raise AssertionError(job.state)


def _at(job: Job) -> str:
    """What a running job is at."""
    match job.phase:
        case Phase.COMPLETING:
            return "completing the file" if job.operation == "read_stream" else "completing the upload"
        case Phase.DELETING_SOURCE:
            return f"Stat shows the copy; deleting {job.source}"
        case _:
            return progress(job) or f"deleting {job.path}"


def _outcome(job: Job) -> str:
    """What a job that succeeded has left behind."""
    size = in_bytes(job.size or 0)
    match job.operation:
        case "delete":
            return f"nothing is left of {job.path} and what was under it"
        case "read_stream":
            return f"{size} of {job.path} are in {job.dest}"
        case "move":
            return f"moved from {job.source}; Stat shows {size} at {job.path}"
        case _:
            return f"Stat shows {size} at {job.path}"


def ending(job: Job) -> str:
    """One line about a job that is final."""
    if job.state != JobState.SUCCEEDED:
        return f"{job.state}: {situation(job)}"
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


def table(job: Job) -> list[tuple[str, str]]:
    """All that is worth knowing, as labels and values."""
    rows = [
        ("job", job.id),
        ("state", f"{job.state}: {situation(job)}"),
        ("operation", job.operation),
        ("source", f"{job.source} on storage {job.storage}" if job.operation == "move" else job.source or ""),
        ("path", f"{job.path} on storage {job.dest_storage or job.storage}"),
        ("file", job.dest or ""),
        ("progress", progress(job)),
        ("attempt", str(job.attempt) if job.attempt else "none yet"),
        ("last error", "" if job.state in (JobState.FAILED, JobState.RETRYING) else problem(job)),
        ("labels", ", ".join(f"{name}={value}" for name, value in (job.labels or {}).items())),
        ("key", job.idempotency_key or ""),
        ("submitted", local(job.created_at)),
        ("started", local(job.started_at) if job.started_at else ""),
        ("finished", local(job.finished_at) if job.finished_at else ""),
    ]
    return [(label, printable(value)) for label, value in rows if value]


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
