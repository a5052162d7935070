"""Jobs in plain words, for people at a terminal. Times are local here; JSON has them in UTC."""

from datetime import UTC, datetime
from typing import Final

from blobferry.contract import JobState, Phase
from blobferry.values import Job

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
    """How much of the blob is where it belongs."""
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
        case JobState.RUNNING:
            return "uploading"
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
            done = "completing the upload" if job.phase == Phase.COMPLETING else progress(job)
            return f"on {printable(job.worker or 'a worker')}{since}: {done}"
        case JobState.VERIFYING:
            return "sent; it is done when Stat shows the blob" + (f", next look at {due}" if due else "")
        case JobState.RETRYING:
            return (f"at {due}" if due else "as soon as a worker has a free slot") + why
        case JobState.PAUSED:
            return "waits for a resume"
        case JobState.FAILED:
            return problem(job)
        case JobState.CANCELLED:
            return "nothing more will be sent"
        case JobState.SUCCEEDED:
            return f"Stat shows {in_bytes(job.size or 0)} at {job.path}"
    raise AssertionError(job.state)


def ending(job: Job) -> str:
    """One line about a job that is final."""
    if job.state != JobState.SUCCEEDED:
        return f"{job.state}: {situation(job)}"
    took = (job.finished_at - job.created_at).total_seconds() if job.finished_at else 0.0
    attempts = f", attempt {job.attempt}" if job.attempt > 1 else ""
    return f"succeeded: {job.path}, {in_bytes(job.size or 0)} in {took:.1f} s{attempts}"


def table(job: Job) -> list[tuple[str, str]]:
    """All that is worth knowing, as labels and values."""
    rows = [
        ("job", job.id),
        ("state", f"{job.state}: {situation(job)}"),
        ("operation", job.operation),
        ("source", job.source or ""),
        ("path", f"{job.path} on storage {job.storage}"),
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
