"""Tables of jobs, of uploads, and of one job with its history, for a terminal."""

from collections.abc import Iterator, Sequence

import click

from blobferry.cli.delivery_words import delivery_line
from blobferry.cli.explanation import explanation
from blobferry.cli.printed_tables import add_line, new_table, print_table
from blobferry.cli.wording import briefly, local_time, short_time
from blobferry.contract import JobState
from blobferry.redaction import printable
from blobferry.values import Attempt, Delivery, Job, Situation, Upload
from blobferry.views.job_words import problem, progress
from blobferry.views.sizes_and_durations import done_of, duration, in_bytes


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
        *(("told", delivery_line(delivery)) for delivery in _last_of_each(situation)),
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


def _last_of_each(situation: Situation) -> Iterator[Delivery]:
    """The last delivery to each receiver."""
    seen = set[tuple[str, str]]()
    for delivery in situation.deliveries:
        receiver = (delivery.kind, delivery.receiver)
        if receiver not in seen:
            seen.add(receiver)
            yield delivery


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
    table = new_table("job", "state", "operation", "path", "progress", "submitted")
    for job in jobs:
        state = briefly(job) + (f": {job.error_code}" if job.error_code and job.state != JobState.SUCCEEDED else "")
        done = done_of(job.bytes_done, job.size) if job.size is not None and job.operation != "delete" else ""
        add_line(table, job.id, state, job.operation, job.path or "", done, short_time(job.created_at))
    if jobs:
        print_table(table)


def print_uploads(uploads: Sequence[Upload]) -> None:
    """Print a line for each upload, and the bytes that are lost if all of them are aborted."""
    table = new_table("job", "job is", "upload", "where", "at risk", "opened", "kept until")
    for upload in uploads:
        at_risk = done_of(upload.bytes_at_risk, upload.size) if upload.size else in_bytes(upload.bytes_at_risk)
        kept_until = short_time(upload.kept_until) if upload.kept_until else ""
        where = f"{upload.endpoint} {upload.key}" if upload.endpoint.startswith("file:") else _in_bucket(upload)
        opened = short_time(upload.opened_at)
        add_line(table, upload.job_id, upload.job_state, upload.state, where, at_risk, opened, kept_until)
    if uploads:
        print_table(table)
    count = f"{len(uploads)} upload" + ("" if len(uploads) == 1 else "s")
    click.echo(f"{count}, {in_bytes(sum(upload.bytes_at_risk for upload in uploads))} at risk")


def _in_bucket(upload: Upload) -> str:
    return f"{upload.storage}: {upload.bucket}/{upload.key}"
