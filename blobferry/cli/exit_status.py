"""Exit statuses: each error becomes one line, or one JSON object, and the status of the command."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Final

import click

from blobferry.cli.progress import job_display, print_json
from blobferry.cli.wording import final_line
from blobferry.client import Client
from blobferry.contract import JobState
from blobferry.errors import (
    BlobferryError,
    ConfigurationError,
    ConflictError,
    InvalidRequestError,
    JobNotFoundError,
    UnreachableError,
)
from blobferry.redaction import printable

FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
TIMEOUT: Final = 4
INTERRUPTED: Final = 130  #: 128 + SIGINT, as shells report it

#: Errors about the command line or the variables.
_USAGE_ERRORS: Final = (ConfigurationError, ConflictError, InvalidRequestError, JobNotFoundError)


@contextmanager
def open_client(as_json: bool) -> Iterator[Client]:
    """A client from the environment."""
    with reported(as_json):
        client = Client.from_env()
    with closing(client):
        yield client


@contextmanager
def reported(as_json: bool, job_id: str | None = None) -> Iterator[None]:
    """Report what Client raises and exit with its status."""
    try:
        yield
    except (KeyboardInterrupt, TimeoutError, BlobferryError) as error:
        sys.exit(report(error, as_json, job_id))


def report(error: BaseException, as_json: bool, job_id: str | None = None, *, where: str = "") -> int:
    """Print the error as one line or one JSON object; return its exit status. ``where``: in what was given."""
    match error:
        case KeyboardInterrupt():
            status, code, message = INTERRUPTED, "interrupted", f"interrupted{_job_continues(job_id)}"
        case TimeoutError():
            status, code, message = TIMEOUT, "timeout", f"{error}{_job_continues(job_id)}"
        case BlobferryError():
            failed = USAGE if isinstance(error, _USAGE_ERRORS) else FAILED
            status = UNREACHABLE if isinstance(error, UnreachableError) else failed
            code, message = error.code, f"{where}: {error}" if where else str(error)
        case _:
            raise error
    if as_json:
        click.echo(json.dumps({"error": code, "message": message} | ({"job_id": job_id} if job_id else {})))
    else:
        click.echo(f"blobferry: {printable(message)}", err=True)
    return status


def _job_continues(job_id: str | None) -> str:
    return "" if job_id is None else f"; the job continues, show it with: blobferry status {job_id}"


def follow(job_id: str, timeout: float | None, as_json: bool, *, every_change: bool) -> None:
    """Show the job until it is final; exit with its status."""
    with open_client(as_json) as client, reported(as_json, job_id):
        status = followed(client, job_id, timeout, as_json, every_change=every_change)
    sys.exit(status)


def followed(
    client: Client,
    job_id: str,
    timeout: float | None,
    as_json: bool,
    *,
    every_change: bool = False,
    wanted: JobState = JobState.SUCCEEDED,
) -> int:
    """Show the job until it is final; return the exit status, which is 0 if it ended as ``wanted``.

    Args:
        client: an open client.
        job_id: of an existing job.
        timeout: seconds; after them this raises TimeoutError.
        as_json: print JSON.
        every_change: with JSON, print the job after each change, not only at its end.
        wanted: the final state that counts as success.
    """
    with job_display(as_json=as_json, every_change=every_change) as show:
        for job in client.watch(job_id, timeout=timeout):
            show(job)
    if not as_json:
        click.echo(final_line(job), err=job.state != wanted)
    elif not every_change:
        print_json(job)
    return 0 if job.state == wanted else FAILED


class Remark(logging.Formatter):
    """A log record as one line for stderr."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return printable(f"note: {record.getMessage()}")
