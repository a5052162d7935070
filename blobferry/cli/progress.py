"""How a waiting command shows a job: a bar on a terminal, plain lines elsewhere, a JSON object for each change."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final

import click
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from blobferry.cli.wording import briefly
from blobferry.contract import JobState
from blobferry.redaction import printable
from blobferry.values import Job
from blobferry.views.job_words import percent, problem, progress
from blobferry.views.sizes_and_durations import in_bytes

Show = Callable[[Job], None]
STEP: Final = 10  #: percent between two plain lines


@contextmanager
def job_display(*, as_json: bool, every_change: bool) -> Iterator[Show]:
    """What to call with the job whenever it has changed. With JSON, ``every_change`` prints each, else nothing is."""
    if as_json:
        yield print_json if every_change else lambda job: None
    elif sys.stdout.isatty():
        console = Console()
        with _bar(console) as bar:
            yield _Bar(bar).show
    else:
        yield _Lines().show


def print_json(job: Job) -> None:
    """The job as one line of JSON."""
    click.echo(json.dumps(job.as_json()))


class _Lines:
    """A line for each new state, attempt or ten percent."""

    def __init__(self) -> None:
        self._last: tuple[object, ...] = ()

    def show(self, job: Job) -> None:
        tenth = job.bytes_done * 100 // STEP // job.size if job.size else 0
        requests = job.cancel_requested, job.pause_requested
        now = (job.state, job.phase, job.attempt, job.error_code, requests, tenth)
        if now == self._last or job.is_final:
            return
        self._last = now
        attempt = f", attempt {job.attempt}" if job.attempt > 1 else ""
        why = f": {problem(job)}" if job.state == JobState.RETRYING else ""
        done = f"  {progress(job)}".rstrip() if job.size is not None else ""
        click.echo(f"{datetime.now().astimezone():%H:%M:%S}  {briefly(job)}{attempt}{why}{done}")


class _Bar:
    """One progress bar, and a line above it for each error."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task: TaskID | None = None
        self._last: Job | None = None

    def show(self, job: Job) -> None:
        last, self._last = self._last, job
        attempt = f"attempt {job.attempt}" if job.attempt > 1 else ""
        facts: dict[str, Any] = {"total": job.size, "completed": job.bytes_done, "job": job, "attempt": attempt}
        facts["shown_at"] = time.monotonic()
        if self._task is None:
            self._task = self._bar.add_task("", **facts)  # starts at the bytes of earlier attempts: they are no speed
        if last is not None and problem(job) not in ("", problem(last)) and not job.is_final:
            self._bar.console.print(Text(f"attempt {last.attempt} ended: {problem(job)}"), soft_wrap=True)
        if last is not None and job.attempt != last.attempt:
            self._bar.reset(self._task, **facts)  # the pause is no speed
        self._bar.update(self._task, visible=job.size is not None or not job.is_final, **facts)


class _Words(ProgressColumn):
    """What the job is at; drawn anew each time, so that a countdown counts."""

    def render(self, task: Task) -> Text:
        job: Job = task.fields["job"]
        now = job.seen_at + timedelta(seconds=time.monotonic() - task.fields["shown_at"])
        style = {JobState.RETRYING: "yellow", JobState.FAILED: "red", JobState.SUCCEEDED: "green"}.get(job.state, "")
        return Text(f"{printable(briefly(job, now)):11}", style=style, no_wrap=True)


class _Speed(ProgressColumn):
    """The speed in the units of the sizes beside it; rich's TransferSpeedColumn has decimal units only."""

    def render(self, task: Task) -> Text:
        return Text(f"{in_bytes(task.speed or 0)}/s")


class _Percent(ProgressColumn):
    """The percentage, which is 100 only at the end: rich's own is that as soon as the bytes are sent."""

    def render(self, task: Task) -> Text:
        return Text(f"{percent(task.fields['job']) or 0:>3}%", style="progress.percentage")


class _When(ProgressColumn):
    """A column that is empty unless ``applies``."""

    def __init__(self, applies: Callable[[Task], object], column: ProgressColumn) -> None:
        super().__init__(Column(no_wrap=True))  # the bar gives way, not the words
        self._applies = applies
        self._column = column

    def render(self, task: Task) -> RenderableType:
        return self._column(task) if self._applies(task) else ""


def _is_sized(task: Task) -> bool:
    return task.total is not None


def _is_moving(task: Task) -> bool:
    return _is_sized(task) and task.fields["job"].state == JobState.RUNNING and bool(task.speed)


def _bar(console: Console) -> Progress:
    return Progress(
        _Words(Column(no_wrap=True)),
        BarColumn(bar_width=None),
        _When(_is_sized, _Percent()),
        _When(_is_sized, DownloadColumn(binary_units=True)),
        _When(_is_moving, _Speed()),
        TextColumn("{task.fields[attempt]}"),
        _When(_is_moving, TimeRemainingColumn(compact=True)),
        console=console,
        expand=True,
    )
