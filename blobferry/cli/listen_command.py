"""The command listen."""

import json
from collections.abc import Mapping

import click

from blobferry.cli import options
from blobferry.cli.exit_status import open_client, reported
from blobferry.jobs.listening import listen as listen_to_ends


@click.command()
@click.argument("name")
@options.labels("Only jobs that have this label; repeatable.")
@click.option("--interval", type=click.FloatRange(min=0.05), default=1.0, show_default=True, metavar="SECONDS")
def listen(name: str, labels: Mapping[str, str] | None, interval: float) -> None:
    """Print each job that ends, as an object of JSON per line, until it is interrupted.

    The database keeps under NAME how far it has come: what ended meanwhile is printed at the next start, and what was
    printed last may be printed again.
    """
    with open_client(True) as client, reported(True):
        for job in listen_to_ends(client, name, labels=labels, interval=interval):
            click.echo(json.dumps(job.as_json()))
