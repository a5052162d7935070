"""Takes a batch, if a message's job is one that may be the first of a batch."""

from typing import Final

from sqlalchemy.orm import Session

from models import queries
from models.queries import BatchedJob, Glance
from models.queries.glances import OF_FILES
from worker.jobs.path_holds import written_hold
from worker.runtime import Runtime
from worker.transfer.sources.small_files import is_perhaps_small
from worker.units import MIB

MOST_BYTES: Final = 8 * MIB  #: of the contents of a batch, or of its files


def largest_file(runtime: Runtime) -> int:
    """Bytes of the largest file that is sent in a batch: of one put, and so that any batch has not too many bytes."""
    return min(runtime.engine.part_size, MOST_BYTES // runtime.settings.transfer.batch_jobs)


def names_small_file(runtime: Runtime, source: object) -> bool:
    """Whether the source in a message is a file that is small, by a look at it. Never raises, whatever it is.

    A row does not say how large its file is. So it is the message that leads to the look, before anything is claimed; a
    wrong answer costs a little time, and nothing else depends on it.
    """
    is_file = isinstance(source, str) and source.startswith("file:")
    return is_file and is_perhaps_small(str(source), largest_file(runtime))


def begins_batch(runtime: Runtime, seen: Glance, publish_seq: int | None, *, is_small_file: bool) -> bool:
    """Whether the job may be the first of a batch.

    Args:
        runtime: of this process.
        seen: its row.
        publish_seq: the number of the message.
        is_small_file: whether the message has led to a small file; a job that writes a file begins no batch otherwise.
    """
    is_current = seen.is_small and publish_seq in (None, seen.publish_seq)
    is_known = is_small_file or seen.operation != OF_FILES
    return is_current and is_known and runtime.settings.transfer.batch_jobs > 1 and seen.storage in runtime.drivers


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
