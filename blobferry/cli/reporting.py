"""What commands have in common: a client, and how errors become one line, or one JSON object, and an exit status."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Final

import click

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
from blobferry.progress import print_json, shown
from blobferry.wording import ending, printable

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
    except KeyboardInterrupt:
        on = f"; the job goes on, look at it with: blobferry status {job_id}" if job_id else ""
        _fail(INTERRUPTED, "interrupted", f"interrupted{on}", as_json, job_id)
    except TimeoutError as error:
        _fail(TIMEOUT, "timeout", f"{error}; it goes on, look at it with: blobferry status {job_id}", as_json, job_id)
    except UnreachableError as error:
        _fail(UNREACHABLE, error.code, str(error), as_json, job_id)
    except BlobferryError as error:
        _fail(USAGE if isinstance(error, _USAGE_ERRORS) else FAILED, error.code, str(error), as_json, job_id)


def follow(job_id: str, timeout: float | None, as_json: bool, *, every_change: bool) -> None:
    """Show the job until it is final; leave with its exit status."""
    with open_client(as_json) as client, reported(as_json, job_id):
        with shown(as_json=as_json, every_change=every_change) as show:
            for job in client.watch(job_id, timeout=timeout):
                show(job)
        if not as_json:
            click.echo(ending(job), err=job.state != JobState.SUCCEEDED)
        elif not every_change:
            print_json(job)
    sys.exit(0 if job.state == JobState.SUCCEEDED else FAILED)


def _fail(exit_status: int, code: str, message: str, as_json: bool, job_id: str | None) -> None:
    if as_json:
        click.echo(json.dumps({"error": code, "message": message} | ({"job_id": job_id} if job_id else {})))
    else:
        click.echo(f"blobferry: {printable(message)}", err=True)
    sys.exit(exit_status)


class Remark(logging.Formatter):
    """A log record of ours as a remark: its facts are in ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        """The one line."""
        reason = getattr(record, "reason", "")
        return printable(f"note: {record.getMessage()}" + (f" ({reason})" if reason else ""))
