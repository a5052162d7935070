"""A glance at a message's job before anything is claimed: whether there is something to do, and for a batch."""

from functools import cache
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, bindparam, exists, func, literal, or_, select
from sqlalchemy.orm import Session

from blobferry.contract import FINAL_STATES, JobState
from blobferry.jobs.needs import storage_need
from models.job import JobRow
from models.lack import LackRow
from models.queries.conditions import claimable, now
from models.queries.lookups import EndedJob, ended_columns
from models.queries.worker_lacks import lately

OF_FILES: Final = "write_stream"  #: the operation whose jobs may write files of the worker's host
FILE: Final = "file:"  #: the beginning of the source of such a job


class Glance(NamedTuple):
    """What a message's job looks like before anything is claimed."""

    seq: int
    operation: str
    storage: str
    queue: str
    publish_seq: int
    is_small: bool  #: whether it may be the first of a batch
    is_claimed: bool  #: whether a run owns it now
    ended: EndedJob | None  #: how it has ended


def glance(session: Session, job_id: str, worker: str, *, ended_before: float) -> Glance | None:
    """Look at a job's row, but not at its contents; None if there is no row.

    Args:
        job_id: of the job.
        worker: the id of this worker. A job on whose storage one has failed here lately begins no batch, since it may
            be others' to run; nor does one that writes a file, after a failure for want of anything. So a batch has no
            lacks to forget at its end.
        ended_before: seconds after its end from which on an ended job counts as ended long ago.
    """
    row = session.execute(_glance(ended_before), {"job_id": job_id, "of_worker": worker}).one_or_none()
    if row is None:
        return None
    seq, operation, storage, queue, publish_seq, small, claimed = row[:7]
    ended = EndedJob(*row[7:])
    how = ended if ended.state in FINAL_STATES else None
    return Glance(seq, operation, storage, queue, publish_seq, bool(small), bool(claimed), how)


@cache
def _glance(ended_before: float) -> Select[Any]:
    is_claimed = func.coalesce(JobRow.lease_expires_at >= now(), False)
    needed = LackRow.need == literal(storage_need("")).concat(JobRow.storage)
    is_needed = or_(needed, JobRow.operation == OF_FILES)
    is_lacking = exists().where(LackRow.worker == bindparam("of_worker"), is_needed, lately())
    seen = (JobRow.seq, JobRow.operation, JobRow.storage, JobRow.queue, JobRow.publish_seq)
    columns = (*seen, and_(is_small(), ~is_lacking), is_claimed)
    return select(*columns, *ended_columns(ended_before)).where(JobRow.id == bindparam("job_id"))


def is_small() -> ColumnElement[bool]:
    """The job may be part of a batch: it has never run, and nothing about it is unusual.

    How large a file is, its row does not say.
    """
    is_of_file = and_(
        JobRow.operation == OF_FILES,
        func.substr(JobRow.source, 1, len(FILE)) == FILE,
        func.coalesce(JobRow.request["offset"].as_float(), 0) == 0,  # PostgreSQL's integer ends at 2 GiB
    )
    plain = (
        or_(JobRow.operation == "put_content", is_of_file),
        JobRow.state == JobState.QUEUED,
        JobRow.attempt == 0,
        JobRow.phase.is_(None),
        JobRow.message_options.is_(None),  # nothing is to follow it
        JobRow.deadline.is_(None),
    )
    return func.coalesce(and_(*claimable(), *plain), False)
