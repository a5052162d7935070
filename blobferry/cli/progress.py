"""How a waiting command shows a job: a bar on a terminal, plain lines elsewhere, a JSON object for each change."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from blobferry.cli.wording import briefly, done_of, in_bytes, problem, progress
from blobferry.contract import JobState
from blobferry.redaction import printable
from blobferry.values import Job

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
        now = time.monotonic()
        if self._task is None:
            # Bytes of earlier attempts are where it starts: they are no speed.
            self._task = self._bar.add_task("", total=job.size, completed=job.bytes_done, job=job, shown_at=now)
        if self._last is not None and problem(job) not in ("", problem(self._last)) and not job.is_final:
            self._bar.console.print(Text(f"attempt {self._last.attempt} ended: {problem(job)}"), soft_wrap=True)
        if self._last is not None and job.attempt != self._last.attempt:
            self._bar.reset(
                self._task, total=job.size, completed=job.bytes_done, job=job, shown_at=now
            )  # the pause is no speed
        self._last = job
        says_something = job.size is not None or not job.is_final
        self._bar.update(
            self._task, total=job.size, completed=job.bytes_done, visible=says_something, job=job, shown_at=now
        )


class _Words(ProgressColumn):
    """What the job is at; drawn anew each time, so that a countdown counts."""

    def render(self, task: Task) -> Text:
        job: Job = task.fields["job"]
        now = job.seen_at + timedelta(seconds=time.monotonic() - task.fields["shown_at"])
        style = {JobState.RETRYING: "yellow", JobState.FAILED: "red", JobState.SUCCEEDED: "green"}.get(job.state, "")
        return Text(f"{printable(briefly(job, now)):11}", style=style, no_wrap=True)


class _Bytes(ProgressColumn):
    """How far, how fast, which attempt."""

    def render(self, task: Task) -> Text:
        job: Job = task.fields["job"]
        if job.size is None:
            return Text("")
        moving = job.state == JobState.RUNNING and task.speed
        words = [
            f"{task.percentage:3.0f}%",
            done_of(job.bytes_done, job.size),
            f"{in_bytes(task.speed)}/s" if moving and task.speed else "",
            f"attempt {job.attempt}" if job.attempt > 1 else "",
        ]
        return Text("  ".join(word for word in words if word), no_wrap=True)


class _Left(TimeRemainingColumn):
    """The time left, while bytes move."""

    def render(self, task: Task) -> Text:
        job: Job = task.fields["job"]
        return super().render(task) if job.state == JobState.RUNNING and task.speed else Text("")


def _bar(console: Console) -> Progress:
    def whole() -> Column:
        return Column(no_wrap=True)  # the bar gives way, not the words

    columns = _Words(whole()), BarColumn(bar_width=None), _Bytes(whole()), _Left(compact=True, table_column=whole())
    return Progress(*columns, console=console, expand=True)
