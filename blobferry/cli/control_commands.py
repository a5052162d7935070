"""Commands that change what becomes of jobs: cancel, pause, resume, retry. Each takes several and may be repeated."""

import sys
from collections.abc import Callable, Sequence

import click

from blobferry.cli import options
from blobferry.cli.exit_status import INTERRUPTED, UNREACHABLE, followed, open_client, report
from blobferry.cli.progress import print_json
from blobferry.cli.wording import acknowledgement
from blobferry.client import Client
from blobferry.contract import JobState
from blobferry.errors import BlobferryError
from blobferry.redaction import printable
from blobferry.values import Job

Ask = Callable[[Client, str], Job]


@click.command()
@options.several
@options.wait
@options.timeout
@options.as_json
def cancel(job_ids: tuple[str, ...], wait: bool, timeout: float | None, as_json: bool) -> None:
    """End JOB... and remove what they have sent from the store; with --wait, exit 0 once they are cancelled.

    It takes effect within one part. For a job that has failed it gives up the upload that is kept for a retry.
    """
    _each("cancel", Client.cancel, job_ids, wait, timeout, as_json, wanted=JobState.CANCELLED)


@click.command()
@options.several
@options.as_json
def pause(job_ids: tuple[str, ...], as_json: bool) -> None:
    """Stop JOB... within one part and keep what they have sent, to go on with after a resume."""
    _each("pause", Client.pause, job_ids, False, None, as_json)


@click.command()
@options.several
@options.wait
@options.timeout
@options.as_json
def resume(job_ids: tuple[str, ...], wait: bool, timeout: float | None, as_json: bool) -> None:
    """Let paused JOB... go on where they were."""
    _each("resume", Client.resume, job_ids, wait, timeout, as_json)


@click.command()
@options.several
@options.wait
@options.timeout
@options.as_json
def retry(job_ids: tuple[str, ...], wait: bool, timeout: float | None, as_json: bool) -> None:
    """Let failed JOB... go on, with the parts that are still kept."""
    _each("retry", Client.retry, job_ids, wait, timeout, as_json)


def _each(
    asked: str,
    ask: Ask,
    job_ids: Sequence[str],
    wait: bool,
    timeout: float | None,
    as_json: bool,
    *,
    wanted: JobState = JobState.SUCCEEDED,
) -> None:
    """Ask for each job, whatever became of the others; leave with the highest exit status of them all."""
    if timeout is not None and not wait:
        raise click.UsageError("--timeout needs --wait")
    statuses = [0]
    with open_client(as_json) as client:
        asked_for = []
        for job_id in dict.fromkeys(job_ids):
            try:
                job = ask(client, job_id)
            except (KeyboardInterrupt, BlobferryError) as error:
                statuses.append(report(error, as_json, job_id))
                if statuses[-1] in (UNREACHABLE, INTERRUPTED):
                    break  # each of the others would wait as long, and hear the same
                continue
            asked_for.append(job)
            if not wait or not as_json:
                _acknowledge(asked, job, as_json, wait)
        if wait and INTERRUPTED not in statuses:
            statuses += [_followed(client, job, timeout, as_json, wanted) for job in asked_for]
    sys.exit(max(statuses))


def _acknowledge(asked: str, job: Job, as_json: bool, waits: bool) -> None:
    if as_json:
        print_json(job)
    else:
        goes_on = asked in ("resume", "retry") and not waits
        how = f"; to watch it: blobferry watch {job.id}" if goes_on else ""
        click.echo(printable(f"{job.id}  {acknowledgement(asked, job)}{how}"))


def _followed(client: Client, job: Job, timeout: float | None, as_json: bool, wanted: JobState) -> int:
    if wanted == JobState.CANCELLED and job.state == JobState.FAILED:
        wanted = JobState.FAILED  # it had ended before; what was asked for is done
    try:
        return followed(client, job.id, timeout, as_json, wanted=wanted)
    except KeyboardInterrupt as interrupt:
        sys.exit(report(interrupt, as_json, job.id))
    except (TimeoutError, BlobferryError) as error:
        return report(error, as_json, job.id)
