"""The commands status, watch, jobs and uploads."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import click

from blobferry.cli import options
from blobferry.cli.exit_status import follow, open_client, reported
from blobferry.cli.explanation import explanation
from blobferry.cli.job_tables import print_jobs, print_uploads, status_table
from blobferry.contract import OPERATIONS, JobState
from blobferry.jobs.job_filter import MAX_LIMIT


@click.command()
@click.argument("job_id", metavar="JOB")
@options.as_json
def status(job_id: str, as_json: bool) -> None:
    """Show the state of a job, the reason, the next step and the history.

    With --json, prints an object with the fields of JOB, its attempts, its unfinished uploads and the explanation.
    """
    with open_client(as_json) as client, reported(as_json, job_id):
        situation = client.situation(job_id)
    if as_json:
        click.echo(json.dumps({**situation.as_json(), "explanation": str(explanation(situation))}))
        return
    before = ""
    for label, value in status_table(situation):
        click.echo(f"{'' if label == before else label:11} {value}")
        before = label


@click.command()
@click.argument("job_id", metavar="JOB")
@options.timeout
@options.as_json
def watch(job_id: str, timeout: float | None, as_json: bool) -> None:
    """Show the progress of a job until it ends.

    With --json, prints an object per line, one for each change.
    """
    follow(job_id, timeout, as_json, every_change=True)


@click.command()
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([str(state) for state in JobState]),
    help="Repeatable.",
)
@click.option("--since", callback=options.past, metavar="TIME|1h", help="Only jobs submitted then or later.")
@click.option("--until", callback=options.past, metavar="TIME|1h", help="Only jobs submitted before then.")
@click.option("--operation", type=click.Choice(list(OPERATIONS)), help="Only jobs of this operation.")
@click.option("--storage", metavar="NAME", help="Only jobs submitted for this storage.")
@click.option("--under", metavar="PATH", help="Only jobs for this path or one below it.")
@options.labels("Only jobs with this label; repeatable.")
@click.option("--limit", type=click.IntRange(1, MAX_LIMIT), default=100, show_default=True, help="At most so many.")
@click.option("--ids", "only_ids", is_flag=True, help="Print an id a line: blobferry retry $(blobferry jobs … --ids)")
@options.as_json
def jobs(
    states: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
    labels: Mapping[str, str] | None,
    limit: int,
    only_ids: bool,
    as_json: bool,
    **exact: Any,
) -> None:
    """List jobs that match all options, the newest first.

    A TIME is in ISO 8601 with a zone, such as 2030-05-01T06:00:00+02:00; 90s, 15m, 1h and 7d are that long ago. With
    --json, prints an array.
    """
    with open_client(as_json) as client, reported(as_json):
        found = client.jobs(state=states or None, since=since, until=until, labels=labels, limit=limit, **exact)
    if as_json:
        click.echo(json.dumps([job.as_json() for job in found]))
    elif only_ids:
        for job in found:
            click.echo(job.id)
    else:
        print_jobs(found)


@click.command()
@click.option("--job", "job_id", metavar="JOB", help="Only uploads of this job.")
@click.option("--all", "finished", is_flag=True, help="Include completed and aborted uploads.")
@click.option("--limit", type=click.IntRange(1, MAX_LIMIT), default=1000, show_default=True, help="At most so many.")
@options.as_json
def uploads(job_id: str | None, finished: bool, limit: int, as_json: bool) -> None:
    """List unfinished uploads and the bytes at risk.

    Bytes at risk are stored and paid for, and lost if the upload is aborted. With --json, prints an array.
    """
    with open_client(as_json) as client, reported(as_json, job_id):
        found = client.uploads(job_id, finished=finished, limit=limit)
    if as_json:
        click.echo(json.dumps([upload.as_json() for upload in found]))
    else:
        print_uploads(found)
