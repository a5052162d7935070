"""The commands stat, list and url, which a worker answers at once; a URL may need none."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

import click

from blobferry.cli import options
from blobferry.cli.exit_status import open_client, reported
from blobferry.cli.wording import file_table
from blobferry.client import READ_TIMEOUT, Client
from blobferry.redaction import printable

Answer = TypeVar("Answer")

_timeout = click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=READ_TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="Give up if no worker has answered by then.",
)


@click.command()
@click.argument("path")
@options.storage
@_timeout
@options.as_json
def stat(path: str, storage: str, timeout: float, as_json: bool) -> None:
    """Show the blob or directory at PATH."""
    info = answer(lambda client: client.stat(path, storage=storage, timeout=timeout), as_json)
    if as_json:
        print_answer(info.as_json())
        return
    for label, value in file_table(info):
        click.echo(f"{label:11} {value}")


@click.command("list")
@click.argument("path")
@click.option("--after", metavar="CHILD", help="Only the paths that follow this one.")
@click.option("--limit", type=int, help="At most so many paths; 10,000 are the most of one answer.")
@click.option("--recursive", is_flag=True, help="All blobs below PATH, at any depth.")
@options.storage
@_timeout
@options.as_json
def list_(
    path: str, after: str | None, limit: int | None, recursive: bool, storage: str, timeout: float, as_json: bool
) -> None:
    """List the paths directly under PATH.

    Prints one path per line; with --json, an array.
    """
    means: dict[str, Any] = {"after": after, "limit": limit, "recursive": recursive}
    children = answer(lambda client: client.list(path, **means, storage=storage, timeout=timeout), as_json)
    if as_json:
        print_answer(children)
        return
    for child in children:
        click.echo(printable(child))


@click.command()
@click.argument("path")
@click.option(
    "--method", type=click.Choice(["GET", "HEAD", "PUT"]), default="GET", show_default=True, help="Allowed method."
)
@click.option("--expires", callback=options.due, metavar="TIME|1h", help="When, or in what time [default: 20m]")
@click.option("--disposition", metavar="TEXT", help="Content-Disposition of the answer: 'attachment; filename=…'")
@click.option("--download-as", metavar="NAME", help="The name under which a browser saves the answer.")
@click.option("--content-type", metavar="TYPE", help="Content-Type of the answer; of a PUT, what it has to send.")
@options.storage
@_timeout
@options.as_json
def url(
    path: str,
    method: str,
    expires: datetime | timedelta | None,
    disposition: str | None,
    download_as: str | None,
    content_type: str | None,
    storage: str,
    timeout: float,
    as_json: bool,
) -> None:
    """Print a URL of the blob at PATH that needs no credentials.

    It is signed here if the worker's variables of the storage are set, or BLOBFERRY_CONFIG, else by a worker. What a
    PUT has to send is said on stderr. With --json, prints {"url": …}, for such a PUT {"url": …, "headers": {…}}.
    """
    named = "content-type" if method == "PUT" else "response-content-type"
    headers = {"response-content-disposition": disposition, "download-as": download_as, named: content_type}
    allowed = {"method": method, "expiry": expires, **headers}
    found = answer(lambda client: client.url_for(path, allowed, storage=storage, timeout=timeout), as_json)
    if as_json:
        print_answer({"url": found, "headers": dict(found.headers)} if found.headers else {"url": found})
        return
    click.echo(found)
    for name, value in found.headers.items():
        click.echo(f"blobferry: the PUT has to send: {name}: {value}", err=True)


def answer(ask: Callable[[Client], Answer], as_json: bool) -> Answer:
    """The worker's answer; its error is reported as any other."""
    with open_client(as_json) as client, reported(as_json):
        return ask(client)
    raise AssertionError("reported exits after an error")


def print_answer(value: Any) -> None:
    """Print an answer as JSON."""
    click.echo(json.dumps(value))
