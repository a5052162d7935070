"""The commands cancel, pause, resume and retry. Each takes several jobs and may be repeated."""

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

Control = Callable[[Client, str], Job]


@click.command()
@options.several
@options.wait
@options.timeout
@options.as_json
def cancel(job_ids: tuple[str, ...], wait: bool, timeout: float | None, as_json: bool) -> None:
    """Cancel jobs.

    Each JOB stops within one part, and what it has sent is removed from the store. A job that has failed gives up the
    upload that it keeps for a retry. With --wait, exits 0 once all jobs are cancelled.
    """
    _each("cancel", Client.cancel, job_ids, wait, timeout, as_json, wanted=JobState.CANCELLED)


@click.command()
@options.several
@options.as_json
def pause(job_ids: tuple[str, ...], as_json: bool) -> None:
    """Pause jobs.

    Each JOB stops within one part and keeps what it has sent, until 'blobferry resume' lets it continue.
    """
    _each("pause", Client.pause, job_ids, False, None, as_json)


@click.command()
@options.several
@options.wait
@options.timeout
@options.as_json
def resume(job_ids: tuple[str, ...], wait: bool, timeout: float | None, as_json: bool) -> None:
    """Let paused jobs continue where they were."""
    _each("resume", Client.resume, job_ids, wait, timeout, as_json)


@click.command()
@options.several
@click.option("--source", metavar="FILE|URL", help="Read this instead: another place of the same content, for one JOB.")
@options.wait
@options.timeout
@options.as_json
def retry(job_ids: tuple[str, ...], source: str | None, wait: bool, timeout: float | None, as_json: bool) -> None:
    """Let failed jobs continue with the parts that are still kept.

    With --source, the job goes on from another URL or file of the same content, such as a presigned URL that was signed
    anew. What was sent is compared with it.
    """
    if source is not None and len(job_ids) != 1:
        raise click.UsageError("--source needs exactly one JOB")
    replaced = None if source is None else options.absolute_file(source) or source
    _each("retry", lambda client, job_id: client.retry(job_id, source=replaced), job_ids, wait, timeout, as_json)


def _each(
    name: str,
    control: Control,
    job_ids: Sequence[str],
    wait: bool,
    timeout: float | None,
    as_json: bool,
    *,
    wanted: JobState = JobState.SUCCEEDED,
) -> None:
    """Control each job, whatever happens to the others; exit with the highest status of them all."""
    if timeout is not None and not wait:
        raise click.UsageError("--timeout needs --wait")
    statuses = [0]
    with open_client(as_json) as client:
        controlled = []
        for job_id in dict.fromkeys(job_ids):
            try:
                job = control(client, job_id)
            except (KeyboardInterrupt, BlobferryError) as error:
                statuses.append(report(error, as_json, job_id))
                if statuses[-1] in (UNREACHABLE, INTERRUPTED):
                    break  # the other jobs would meet the same outage, after the same timeout
                continue
            controlled.append(job)
            if not (wait and as_json):
                _acknowledge(name, job, as_json, wait)
        if wait and INTERRUPTED not in statuses:
            statuses += [_followed(client, job, timeout, as_json, wanted) for job in controlled]
    sys.exit(max(statuses))


def _acknowledge(name: str, job: Job, as_json: bool, waits: bool) -> None:
    if as_json:
        print_json(job)
        return
    watch = f"; to watch it: blobferry watch {job.id}" if name in ("resume", "retry") and not waits else ""
    click.echo(printable(f"{job.id}  {acknowledgement(name, job)}{watch}"))


def _followed(client: Client, job: Job, timeout: float | None, as_json: bool, wanted: JobState) -> int:
    if wanted == JobState.CANCELLED and job.state == JobState.FAILED:
        wanted = JobState.FAILED  # it had failed before; the cancel has given up its upload
    try:
        return followed(client, job.id, timeout, as_json, wanted=wanted)
    except KeyboardInterrupt as interrupt:
        sys.exit(report(interrupt, as_json, job.id))
    except (TimeoutError, BlobferryError) as error:
        return report(error, as_json, job.id)
