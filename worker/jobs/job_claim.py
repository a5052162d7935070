"""Claims a message's job: by itself, or together with others like it."""

import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy.orm import Session

from models import ClaimedJob, queries
from models.queries import BatchedJob
from worker.errors import UnreachableError
from worker.jobs.batch.small_job import begins_batch, names_small_file, take_batch
from worker.jobs.lease import lease_clock, retry_interval
from worker.jobs.outcome import LeftToOthers, NotClaimed
from worker.jobs.path_holds import holds_of
from worker.runtime import Runtime

logger = logging.getLogger(__name__)

CLAIM_SECONDS: Final = 5.0  #: for so long a claim is repeated while the database is away
LEFT_SECONDS: Final = 2.0  #: until a job is published again that this worker has left to others
#: Seconds after which a finished job that Celery has no result of is reported by the run that finds it.
REPORT_ENDED_AFTER: Final = 10.0

Claimed = ClaimedJob | list[BatchedJob] | LeftToOthers | NotClaimed


def claim(runtime: Runtime, job_id: str, publish_seq: int | None, source: object = None) -> tuple[float, Claimed]:
    """Claim the job; return the earliest time at which its lease may have begun, by the lease clock, and the job.

    The claim is repeated while the database is away: the answer to the COMMIT may have been lost. ``source``: as the
    message has it.
    """
    began_at, is_repeated = lease_clock(), False
    is_small_file = names_small_file(runtime, source)
    while True:
        taken_at = lease_clock()
        try:
            runtime.share_capabilities()
            if is_repeated:
                with runtime.database.begin() as session:
                    queries.release_claimed(session, runtime.worker, but=job_id)
                    return taken_at, _claim_alone(session, runtime, job_id, publish_seq, is_repeated=True)
            return taken_at, _claim_as_fits(runtime, job_id, publish_seq, is_small_file=is_small_file)
        except UnreachableError as error:
            if lease_clock() - began_at > CLAIM_SECONDS:
                raise
            is_repeated = True
            logger.warning("database is away, claiming again", extra={"job_id": job_id, "reason": str(error)})
            time.sleep(retry_interval(runtime.settings.lease))


def _claim_as_fits(runtime: Runtime, job_id: str, publish_seq: int | None, *, is_small_file: bool) -> Claimed:
    """Claim the job by itself, or a batch if it is small; or see that there is nothing to claim."""
    with runtime.database.begin() as session:
        seen = queries.glance(session, job_id, runtime.worker_id, ended_before=REPORT_ENDED_AFTER)
        if seen is not None and (seen.is_claimed or seen.ended):
            return NotClaimed(seen.ended)
        if seen is not None and begins_batch(runtime, seen, publish_seq, is_small_file=is_small_file):
            job: Claimed | None = take_batch(session, runtime, seen) or None
        elif not publish_seq:  # each claim raises the number, so this may be the first
            job = _claim_new(session, runtime, job_id, publish_seq)
        else:
            job = None
        if job is not None:
            return job
    with runtime.database.begin() as session:
        return _claim_alone(session, runtime, job_id, publish_seq)


def _claim_new(session: Session, runtime: Runtime, job_id: str, publish_seq: int | None) -> ClaimedJob | None:
    return queries.claim_new_job(
        session,
        job_id,
        worker=runtime.worker,
        worker_id=runtime.worker_id,
        lease_seconds=runtime.settings.lease.seconds,
        publish_seq=publish_seq,
        holds=lambda job: holds_of(job, runtime.drivers, runtime.sealer),
    )


def _claim_alone(
    session: Session, runtime: Runtime, job_id: str, publish_seq: int | None, *, is_repeated: bool = False
) -> ClaimedJob | LeftToOthers | NotClaimed:
    """Claim one job. A job that needs what this worker lacks is left to those that may have it."""
    retention = runtime.settings.retention
    lack = queries.leave_to_others(session, job_id, runtime.worker_id, seconds=LEFT_SECONDS)
    if lack is not None:
        reason = f"left to others: this worker, {runtime.worker_name}, lacks {lack.need}: {lack.reason}"
        return LeftToOthers(reason, datetime.now(UTC) + timedelta(seconds=LEFT_SECONDS))
    job = queries.claim_job(
        session,
        job_id,
        worker=runtime.worker,
        lease_seconds=runtime.settings.lease.seconds,
        publish_seq=publish_seq,
        is_repeated=is_repeated,
        holds=lambda job: holds_of(job, runtime.drivers, runtime.sealer),
        failed_upload_seconds=retention.failed_upload_seconds,
    )
    if job is not None:
        return job
    # Perhaps because of a control request: apply it now, not in the next sweep.
    queries.apply_requests(session, limit=1, job_id=job_id, paused_upload_seconds=retention.paused_upload_seconds)
    return NotClaimed()
