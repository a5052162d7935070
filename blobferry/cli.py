"""The ``blobferry`` command: what Client does, from a shell.

Database and broker are BLOBFERRY_DATABASE_URL and BLOBFERRY_BROKER_URL. Results go to stdout, remarks and errors to
stderr. With ``--json``, stdout holds JSON and nothing else, errors included: ``{"error": code, "message": …}``, with
``job_id`` where there is a job; ``watch --json`` prints one object a line. Exit status: 0 done or submitted, 1 the job
failed or was cancelled, 2 usage, 3 database, broker or worker out of reach, 4 timeout, 130 interrupted.
"""

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click

from blobferry.checks import MAX_PRIORITY
from blobferry.client import Client
from blobferry.contract import JobState
from blobferry.errors import BlobferryError, UnreachableError
from blobferry.progress import print_json, shown
from blobferry.wording import ending, printable, table

NOT_SUCCEEDED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
TIMEOUT: Final = 4
INTERRUPTED: Final = 130  #: 128 + SIGINT, as shells have it

_URL = re.compile(r"[a-z][a-z0-9+.-]*://.*|file:.*", re.DOTALL)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Transfer blobs in the background, and watch them.

    Database and broker are read from BLOBFERRY_DATABASE_URL and BLOBFERRY_BROKER_URL.

    Exit status: 0 done or submitted, 1 the job failed or was cancelled, 2 usage, 3 database, broker or worker out of
    reach, 4 timeout, 130 interrupted (the job goes on).
    """
    remarks = logging.StreamHandler()
    remarks.setFormatter(_Remark())
    logging.getLogger("blobferry").addHandler(remarks)


def _pairs(context: click.Context, parameter: click.Parameter, words: tuple[str, ...]) -> Mapping[str, str] | None:
    pairs: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"needs NAME=VALUE, got {word!r}")
        if name in pairs:
            raise click.BadParameter(f"{name!r} is given twice")
        pairs[name] = value
    return pairs or None


def _moment(context: click.Context, parameter: click.Parameter, word: str | None) -> datetime | None:
    try:
        moment = None if word is None else datetime.fromisoformat(word)
    except ValueError:
        raise click.BadParameter(f"needs a time such as 2030-05-01T06:00:00+02:00, got {word!r}") from None
    if moment is not None and moment.tzinfo is None:
        raise click.BadParameter(f"needs a zone, such as {word}+00:00, got {word!r}")
    return moment


_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else, on stdout.")
_timeout_option = click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Stop waiting after this; the job goes on."
)


@main.command()
@click.argument("source", metavar="FILE|URL")
@click.argument("path")
@click.option("--storage", default="default", show_default=True, help="Name of a storage that the worker knows.")
@click.option("--no-overwrite", is_flag=True, help="Fail if there is a blob at PATH already.")
@click.option("--content-type", metavar="TYPE", help="The blob's media type, such as video/mp4.")
@click.option(
    "--metadata", multiple=True, callback=_pairs, metavar="NAME=VALUE", help="Kept with the blob; repeatable."
)
@click.option("--label", "labels", multiple=True, callback=_pairs, metavar="NAME=VALUE", help="Kept with the job.")
@click.option("--priority", type=click.IntRange(0, MAX_PRIORITY), default=0, show_default=True, help="Higher first.")
@click.option("--not-before", callback=_moment, metavar="TIME", help="ISO 8601 with zone; the job waits until then.")
@click.option("--deadline", callback=_moment, metavar="TIME", help="ISO 8601 with zone; not done by then, it fails.")
@click.option("--idempotency-key", metavar="KEY", help="Submitting the same again finds the first job.")
@click.option("--wait", is_flag=True, help="Wait for the end of the job and show its progress.")
@_timeout_option
@_json_option
def write(
    source: str, path: str, no_overwrite: bool, wait: bool, timeout: float | None, as_json: bool, **options: Any
) -> None:
    """Write FILE or URL to PATH of the storage.

    A FILE is made absolute; the worker must see the file under that same path. Prints the id of the job.
    """
    if timeout is not None and not wait:
        raise click.UsageError("--timeout needs --wait")
    if source == "-":
        raise click.BadParameter("standard input cannot be read yet", param_hint="FILE|URL")
    file = None if _URL.fullmatch(source) else Path(source).absolute()
    with _client(as_json) as client, _reported(as_json):
        job = client.write_stream(path, file or source, overwrite=not no_overwrite, **options)
    if file is not None and not file.exists():
        click.echo(f"note: there is no {printable(str(file))} here; the worker must see it under this path", err=True)
    if as_json and not wait:
        print_json(job)
    if not as_json:
        click.echo(job.id)
    if wait:
        _follow(job.id, timeout, as_json, every_change=False)
    elif not as_json:
        click.echo(f"{job.state}; to watch it: blobferry watch {job.id}", err=True)


@main.command()
@click.argument("job_id", metavar="JOB")
@_json_option
def status(job_id: str, as_json: bool) -> None:
    """Say where JOB is, why, and what comes next."""
    with _client(as_json) as client, _reported(as_json, job_id):
        job = client.get(job_id)
    if as_json:
        print_json(job)
        return
    for label, value in table(job):
        click.echo(f"{label:11} {value}")


@main.command()
@click.argument("job_id", metavar="JOB")
@_timeout_option
@_json_option
def watch(job_id: str, timeout: float | None, as_json: bool) -> None:
    """Show the progress of JOB until it ends; with --json, an object on a line of its own for each change."""
    _follow(job_id, timeout, as_json, every_change=True)


def _follow(job_id: str, timeout: float | None, as_json: bool, *, every_change: bool) -> None:
    """Show the job until it is final; leave with its exit status."""
    with _client(as_json) as client, _reported(as_json, job_id):
        with shown(as_json=as_json, every_change=every_change) as show:
            for job in client.watch(job_id, timeout=timeout):
                show(job)
        if not as_json:
            click.echo(ending(job), err=job.state != JobState.SUCCEEDED)
        elif not every_change:
            print_json(job)
    sys.exit(0 if job.state == JobState.SUCCEEDED else NOT_SUCCEEDED)


@contextmanager
def _client(as_json: bool) -> Iterator[Client]:
    with _reported(as_json):
        client = Client.from_env()
    with closing(client):
        yield client


@contextmanager
def _reported(as_json: bool, job_id: str | None = None) -> Iterator[None]:
    """Turn what Client raises into one line, or one JSON object, and an exit status."""
    try:
        yield
    except KeyboardInterrupt:
        on = f"; the job goes on, look at it with: blobferry status {job_id}" if job_id else ""
        _fail(INTERRUPTED, "interrupted", f"interrupted{on}", as_json, job_id)
    except TimeoutError as error:
        _fail(TIMEOUT, "timeout", f"{error}; it goes on, look at it with: blobferry status {job_id}", as_json, job_id)
    except UnreachableError as error:
        _fail(UNREACHABLE, error.code, str(error), as_json, job_id)
    except BlobferryError as error:  # what the client raises otherwise is about its arguments
        _fail(USAGE, error.code, str(error), as_json, job_id)


def _fail(exit_status: int, code: str, message: str, as_json: bool, job_id: str | None) -> None:
    if as_json:
        click.echo(json.dumps({"error": code, "message": message} | ({"job_id": job_id} if job_id else {})))
    else:
        click.echo(f"blobferry: {printable(message)}", err=True)
    sys.exit(exit_status)


class _Remark(logging.Formatter):
    """A log record of ours as a remark: its facts are in ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        reason = getattr(record, "reason", "")
        return printable(f"note: {record.getMessage()}" + (f" ({reason})" if reason else ""))
