"""The command listen."""

import asyncio
import inspect
import json
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

import click

from blobferry.cli import options
from blobferry.cli.exit_status import open_client, reported
from blobferry.jobs.listening import INTERVAL


@click.command()
@click.argument("name")
@options.labels("Only jobs that have this label; repeatable.")
@click.option("--interval", type=click.FloatRange(min=0.05), default=INTERVAL, show_default=True, metavar="SECONDS")
@click.option(
    "--app", "where", metavar="MODULE:NAME", help="Your client, whose functions for ends (@NAME.on) are called."
)
def listen(name: str, labels: Mapping[str, str] | None, interval: float, where: str | None) -> None:
    """Print each job that ends, as an object of JSON per line, until it is interrupted.

    The database keeps under NAME how far it has come: what ended meanwhile is printed at the next start, and what was
    printed last may be printed again. With --app, functions of yours are called instead; an error that one raises ends
    the command, and the next start calls it again.
    """
    if where is not None:
        click.echo(f"listening as {name}", err=True)
        handle = imported(where).handle(name, labels=labels, interval=interval)
        if inspect.isawaitable(handle):
            asyncio.run(cast(Any, handle))
        return
    with open_client(True) as client, reported(True):
        for job in client.listen(name, labels=labels, interval=interval):
            click.echo(json.dumps(job.as_json()))


def imported(where: str) -> Any:
    """The client that an app has under this name, found from the current directory as by ``python -m``."""
    module, _, attribute = where.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise click.BadParameter(
            f"{where!r}: {error}; needs MODULE:NAME, such as shop.jobs:ferry", param_hint="--app"
        ) from error
