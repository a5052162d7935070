"""The commands deliveries and redeliver: who was told of the ends of jobs."""

import json
from collections.abc import Sequence

import click

from blobferry.cli import options
from blobferry.cli.delivery_words import delivery_line, print_deliveries
from blobferry.cli.exit_status import open_client, reported
from blobferry.jobs.job_filter import MAX_LIMIT
from blobferry.redaction import printable
from blobferry.values import Delivery


@click.command()
@click.argument("job_id", metavar="[JOB]", required=False)
@click.option("--failed", is_flag=True, help="Only those that were given up, or whose endpoint is gone.")
@click.option("--limit", type=click.IntRange(1, MAX_LIMIT), default=100, show_default=True, help="At most so many.")
@options.as_json
def deliveries(job_id: str | None, failed: bool, limit: int, as_json: bool) -> None:
    """List who was, or is to be, told of the ends of jobs, the newest first.

    These are the webhooks and tasks that were asked for, of all jobs or of JOB. With --json, prints an array.
    """
    with open_client(as_json) as client, reported(as_json, job_id):
        found = client.deliveries(job_id, failed=failed, limit=limit)
    if as_json:
        _print_json(found)
    else:
        print_deliveries(found)


@click.command()
@click.argument("which", metavar="JOB|NUMBER")
@options.as_json
def redeliver(which: str, as_json: bool) -> None:
    """Tell of an end again.

    All receivers of the last end of JOB, or the one delivery of that NUMBER, which 'blobferry deliveries' shows. Its
    tries begin anew, and its event keeps its id.
    """
    with open_client(as_json) as client, reported(as_json):
        again = client.redeliver(int(which) if which.isascii() and which.isdecimal() else which)
    if as_json:
        _print_json(again)
        return
    for delivery in again:
        click.echo(printable(f"{delivery.id}  {delivery_line(delivery)}"))


def _print_json(found: Sequence[Delivery]) -> None:
    click.echo(json.dumps([delivery.as_json() for delivery in found]))
