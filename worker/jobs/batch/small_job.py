"""Takes a batch, if a message's job is one that may be the first of a batch."""

from typing import Final

from sqlalchemy.orm import Session

from models import queries
from models.queries import BatchedJob, Glance
from worker.jobs.path_holds import written_hold
from worker.runtime import Runtime
from worker.units import MIB

MOST_BYTES: Final = 8 * MIB  #: of the contents of a batch


def begins_batch(runtime: Runtime, seen: Glance, publish_seq: int | None) -> bool:
    """Whether the job may be the first of a batch. ``publish_seq`` is the number of the message."""
    is_current = seen.is_small and publish_seq in (None, seen.publish_seq)
    return is_current and runtime.settings.transfer.batch_jobs > 1 and seen.storage in runtime.drivers


def take_batch(session: Session, runtime: Runtime, first: Glance) -> list[BatchedJob]:
    """Claim the job and others like it; none if it has to be claimed by itself, or has been claimed meanwhile.

    After an empty answer the caller ends the transaction, which may have locked rows, before it claims the job.
    """
    return queries.claim_batch(
        session,
        first,
        worker=runtime.worker,
        lease_seconds=runtime.settings.lease.seconds,
        most_jobs=runtime.settings.transfer.batch_jobs,
        most_bytes=MOST_BYTES,
        hold_of=lambda path: written_hold(first.storage, path, runtime.drivers),
    )
