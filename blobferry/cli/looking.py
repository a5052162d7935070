"""Commands that look at a job: status, watch."""

import click

from blobferry.cli import options
from blobferry.cli.reporting import follow, open_client, reported
from blobferry.progress import print_json
from blobferry.wording import table


@click.command()
@click.argument("job_id", metavar="JOB")
@options.as_json
def status(job_id: str, as_json: bool) -> None:
    """Say where JOB is, why, and what comes next."""
    with open_client(as_json) as client, reported(as_json, job_id):
        job = client.get(job_id)
    if as_json:
        print_json(job)
        return
    for label, value in table(job):
        click.echo(f"{label:11} {value}")


@click.command()
@click.argument("job_id", metavar="JOB")
@options.timeout
@options.as_json
def watch(job_id: str, timeout: float | None, as_json: bool) -> None:
    """Show the progress of JOB until it ends; with --json, an object on a line of its own for each change."""
    follow(job_id, timeout, as_json, every_change=True)
