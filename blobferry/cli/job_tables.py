"""Tables of jobs, of uploads, and of one job with its history, for a terminal."""

from collections.abc import Iterator, Sequence
from typing import Final

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from blobferry.cli.explanation import explanation
from blobferry.cli.wording import briefly, local_time, short_time
from blobferry.contract import JobState
from blobferry.redaction import printable
from blobferry.values import Attempt, Job, Situation, Upload
from blobferry.views.job_words import problem, progress
from blobferry.views.sizes_and_durations import done_of, duration, in_bytes

_WIDEST: Final = 10_000  #: columns of a line in a pipe, at most


def status_table(situation: Situation) -> list[tuple[str, str]]:
    """One job with its history, as labels and values."""
    job, explained = situation.job, explanation(situation)
    rows = [
        ("job", job.id),
        ("state", f"{job.state}: {explained.why}"),
        ("next", explained.next),
        *_request_rows(job),
        *_option_rows(job),
        *_time_rows(job),
        *(("lacking", lack) for lack in situation.lacks if not job.is_final),
        *(("history", _attempt(attempt, situation)) for attempt in situation.attempts),
    ]
    return [(label, printable(value)) for label, value in rows if value]


def _request_rows(job: Job) -> Iterator[tuple[str, str]]:
    yield "operation", job.operation
    yield "source", f"{job.source} on storage {job.storage}" if job.operation == "move" else job.source or ""
    yield "path", f"{job.path} on storage {job.dest_storage or job.storage}"
    yield "file", job.dest or ""
    yield "progress", progress(job)
    yield "attempt", str(job.attempt) if job.attempt else "none yet"
    if job.state not in (JobState.FAILED, JobState.RETRYING):  # where the state names the error
        yield "last error", problem(job)


def _option_rows(job: Job) -> Iterator[tuple[str, str]]:
    yield "priority", str(job.priority) if job.priority else ""
    yield "labels", ", ".join(f"{name}={value}" for name, value in (job.labels or {}).items())
    yield "key", job.idempotency_key or ""


def _time_rows(job: Job) -> Iterator[tuple[str, str]]:
    times = {
        "submitted": job.created_at,
        "deadline": job.deadline,
        "started": job.started_at,
        "finished": job.finished_at,
    }
    return ((label, local_time(moment)) for label, moment in times.items() if moment)


def _attempt(attempt: Attempt, situation: Situation) -> str:
    """One line about one attempt."""
    job, is_paused = situation.job, situation.job.state == JobState.PAUSED and attempt.outcome is None
    ended = attempt.finished_at or (job.updated_at if is_paused else job.seen_at)
    error = f"{attempt.error_code}: {attempt.error_message or ''}".rstrip(": ") if attempt.error_code else ""
    words = [
        f"{attempt.attempt}.",
        f"{short_time(attempt.started_at)},",
        f"{duration((ended - attempt.started_at).total_seconds())}",
        f"on {attempt.worker or 'a worker'},",
        f"{in_bytes(attempt.bytes_sent)} sent:",
        attempt.outcome or ("paused" if is_paused else "not ended"),
        f"({error})" if error else "",
        f"[{attempt.remark}]" if attempt.remark else "",
    ]
    return " ".join(word for word in words if word)


def print_jobs(jobs: Sequence[Job]) -> None:
    """Print a line for each job."""
    table = _table("job", "state", "operation", "path", "progress", "submitted")
    for job in jobs:
        state = briefly(job) + (f": {job.error_code}" if job.error_code and job.state != JobState.SUCCEEDED else "")
        done = done_of(job.bytes_done, job.size) if job.size is not None and job.operation != "delete" else ""
        _add(table, job.id, state, job.operation, job.path or "", done, short_time(job.created_at))
    if jobs:
        _print(table)


def print_uploads(uploads: Sequence[Upload]) -> None:
    """Print a line for each upload, and the bytes that are lost if all of them are aborted."""
    table = _table("job", "job is", "upload", "where", "at risk", "opened", "kept until")
    for upload in uploads:
        at_risk = done_of(upload.bytes_at_risk, upload.size) if upload.size else in_bytes(upload.bytes_at_risk)
        kept_until = short_time(upload.kept_until) if upload.kept_until else ""
        where = f"{upload.endpoint} {upload.key}" if upload.endpoint.startswith("file:") else _in_bucket(upload)
        opened = short_time(upload.opened_at)
        _add(table, upload.job_id, upload.job_state, upload.state, where, at_risk, opened, kept_until)
    if uploads:
        _print(table)
    count = f"{len(uploads)} upload" + ("" if len(uploads) == 1 else "s")
    click.echo(f"{count}, {in_bytes(sum(upload.bytes_at_risk for upload in uploads))} at risk")


def _in_bucket(upload: Upload) -> str:
    return f"{upload.storage}: {upload.bucket}/{upload.key}"


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD if Console().is_terminal else None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number == 0, overflow="fold")  # an id, which people copy
    return table


def _add(table: Table, *words: str) -> None:
    table.add_row(*(Text(printable(word)) for word in words))  # Text, because a name may look like markup


def _print(table: Table) -> None:
    """Print within the width of a terminal; in a pipe, as wide as needed, so that no name is broken."""
    console = Console()
    if console.is_terminal:
        console.print(table)
        return
    wide = Console(width=Console(width=_WIDEST).measure(table).maximum)
    with wide.capture() as lines:
        wide.print(table)
    for line in lines.get().splitlines():
        click.echo(line.rstrip())
