"""What commands have in common: a client, and how errors become one line, or one JSON object, and an exit status."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Final

import click

from blobferry.cli.progress import job_display, print_json
from blobferry.cli.wording import ending
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
INTERRUPTED: Final = 130  #: 128 + SIGINT, as shells have it

#: Errors that speak of what was typed, or of the variables.
_USAGE_ERRORS: Final = (ConfigurationError, ConflictError, InvalidRequestError, JobNotFoundError)


@contextmanager
def open_client(as_json: bool) -> Iterator[Client]:
    """The client that the variables describe."""
    with reported(as_json):
        client = Client.from_env()
    with closing(client):
        yield client


@contextmanager
def reported(as_json: bool, job_id: str | None = None) -> Iterator[None]:
    """Turn what Client raises into one line, or one JSON object, and an exit status."""
    try:
        yield
    except (KeyboardInterrupt, TimeoutError, BlobferryError) as error:
        sys.exit(report(error, as_json, job_id))


def report(error: BaseException, as_json: bool, job_id: str | None = None) -> int:
    """Say what Client raised, in one line or one JSON object; return the exit status that it makes."""
    match error:
        case KeyboardInterrupt():
            on = f"; the job goes on, look at it with: blobferry status {job_id}" if job_id else ""
            status, code, message = INTERRUPTED, "interrupted", f"interrupted{on}"
        case TimeoutError():
            on = f"{error}; it goes on, look at it with: blobferry status {job_id}"
            status, code, message = TIMEOUT, "timeout", on
        case BlobferryError():
            failed = USAGE if isinstance(error, _USAGE_ERRORS) else FAILED
            status = UNREACHABLE if isinstance(error, UnreachableError) else failed
            code, message = error.code, str(error)
        case _:
            raise error
    if as_json:
        click.echo(json.dumps({"error": code, "message": message} | ({"job_id": job_id} if job_id else {})))
    else:
        click.echo(f"blobferry: {printable(message)}", err=True)
    return status


def follow(job_id: str, timeout: float | None, as_json: bool, *, every_change: bool) -> None:
    """Show the job until it is final; leave with its exit status."""
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
    """Show the job until it is final; return the exit status: 0 if it ended as ``wanted``."""
    with job_display(as_json=as_json, every_change=every_change) as show:
        for job in client.watch(job_id, timeout=timeout):
            show(job)
    if not as_json:
        click.echo(ending(job), err=job.state != wanted)
    elif not every_change:
        print_json(job)
    return 0 if job.state == wanted else FAILED


class Remark(logging.Formatter):
    """A log record of ours as a remark: its facts are in ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        """The one line."""
        reason = getattr(record, "reason", "")
        return printable(f"note: {record.getMessage()}" + (f" ({reason})" if reason else ""))
