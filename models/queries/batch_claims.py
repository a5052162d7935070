"""The claim of a batch: a small job that has never run, together with others like it that are due.

Each job is claimed as :func:`~models.queries.claims.claim_job` would claim it, in the same order and by the same rules;
whatever is unusual about a job, or might make it wait, leaves it out, and then it is claimed by itself.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Insert,
    Row,
    Select,
    Text,
    Update,
    and_,
    bindparam,
    cast,
    exists,
    func,
    insert,
    literal,
    select,
    text,
    union,
    update,
)
from sqlalchemy.orm import Session

from blobferry.contract import FINAL_STATES, JobState
from blobferry.jobs.needs import storage_need
from blobferry.jobs.put_contents import contents_of
from blobferry.sql.clock import db_now
from blobferry.sql.index_conditions import DUE
from blobferry.sql.tables import attempts, jobs, path_locks
from models.job import JobRow
from models.lack import LackRow
from models.queries.blockers import Hold
from models.queries.conditions import claimable, now, runnable
from models.queries.given_rows import GivenRows, backend_of, bound
from models.queries.locks import lock_bucket
from models.queries.lookups import EndedJob, ended_columns
from models.queries.overlaps import must_wait
from models.queries.worker_lacks import lately

OPERATION: Final = "put_content"
WINDOW: Final = 4  #: times the size of a batch: so many of the next jobs are looked through for others like the first


class Glance(NamedTuple):
    """What a message's job looks like before anything is claimed."""

    seq: int
    storage: str
    queue: str
    publish_seq: int
    is_small: bool  #: whether it may be the first of a batch
    is_claimed: bool  #: whether a run owns it now
    ended: EndedJob | None  #: how it has ended


class BatchedJob(NamedTuple):
    """A job of a batch, as claimed."""

    seq: int
    id: str
    operation: str
    storage: str
    path: str
    queue: str
    request: Mapping[str, Any]
    contents: bytes
    token: int
    attempt: int
    publish_seq: int  #: of the next message; those with a lower number are outdated
    parent_id: str | None
    root_id: str | None


def glance(session: Session, job_id: str, worker: str, *, ended_before: float) -> Glance | None:
    """Look at a job's row, but not at its contents; None if there is no row.

    Args:
        job_id: of the job.
        worker: the id of this worker. A job on whose storage one has failed here lately begins no batch, since it may
            be others' to run; and so a batch has no lacks to forget at its end.
        ended_before: seconds after its end from which on an ended job counts as ended long ago.
    """
    row = session.execute(_glance(ended_before), {"job_id": job_id, "of_worker": worker}).one_or_none()
    if row is None:
        return None
    seq, storage, queue, publish_seq, small, claimed = row[:6]
    ended = EndedJob(*row[6:])
    how = ended if ended.state in FINAL_STATES else None
    return Glance(seq, storage, queue, publish_seq, bool(small), bool(claimed), how)


@cache
def _glance(ended_before: float) -> Select[Any]:
    is_claimed = func.coalesce(JobRow.lease_expires_at >= now(), False)
    of_storage = literal(storage_need("")).concat(JobRow.storage)
    is_lacking = exists().where(LackRow.worker == bindparam("of_worker"), LackRow.need == of_storage, lately())
    columns = (JobRow.seq, JobRow.storage, JobRow.queue, JobRow.publish_seq, and_(is_small(), ~is_lacking), is_claimed)
    return select(*columns, *ended_columns(ended_before)).where(JobRow.id == bindparam("job_id"))


def claim_batch(
    session: Session,
    first: Glance,
    *,
    worker: str,
    lease_seconds: float,
    most_jobs: int,
    most_bytes: int,
    hold_of: Callable[[str], Hold | None],
) -> list[BatchedJob]:
    """Claim the first job, and others of its storage and queue that are due; none at all if not the first one.

    Takes jobs among the next ``WINDOW`` x ``most_jobs`` that are due, highest priority first, then the oldest, as
    messages are sent. Each takes its path at once. A job that another transaction has locked is passed over.

    Args:
        first: the job of the message.
        worker: the name of the process that will run them.
        lease_seconds: how long the run owns them without a heartbeat.
        most_jobs: how many jobs, the first included.
        most_bytes: of their contents together. The first one counts, but is taken in any case.
        hold_of: returns the need of the one path that a job writes; None if the storage has no such path.
    """
    candidates = session.execute(
        _candidates(),
        {
            "first": first.seq,
            "storage": first.storage,
            "queue": first.queue,
            "window": WINDOW * most_jobs,
            "most": most_jobs,
        },
    ).all()
    if not candidates or candidates[0].seq != first.seq:
        return []
    holds = _within(candidates, most_bytes, hold_of)
    if first.seq not in holds:
        return []
    lock_bucket(session, holds[first.seq].bucket)
    blocked = must_wait(session, holds)
    if first.seq in blocked:
        return []
    seqs = [seq for seq in holds if seq not in blocked]
    ours = {"seqs": seqs, "owner": worker}
    claimed = [_batched(row) for row in session.execute(_claim(lease_seconds), ours)]
    session.execute(_open_attempts(), {"seqs": seqs})
    locks = [{"bucket": holds[job.seq].bucket, "path": holds[job.seq].key, "job_id": job.id} for job in claimed]
    session.execute(_insert_locks(backend_of(session)), bound(locks))
    return sorted(claimed, key=lambda job: seqs.index(job.seq))


def is_small() -> ColumnElement[bool]:
    """The job may be part of a batch: it has never run, and nothing about it is unusual."""
    plain = (
        JobRow.operation == OPERATION,
        JobRow.state == JobState.QUEUED,
        JobRow.attempt == 0,
        JobRow.phase.is_(None),
        JobRow.message_options.is_(None),  # nothing is to follow it
        JobRow.deadline.is_(None),
    )
    return func.coalesce(and_(*claimable(), *plain), False)


def _within(candidates: Sequence[Any], most_bytes: int, hold_of: Callable[[str], Hold | None]) -> dict[int, Hold]:
    """The paths of those that are not too many bytes, by ``seq``."""
    holds: dict[int, Hold] = {}
    taken = 0
    for candidate in candidates:
        hold = hold_of(candidate.path)
        if hold is None or (holds and taken + candidate.size > most_bytes):
            continue
        holds[candidate.seq] = hold
        taken += candidate.size
    return holds


def _batched(row: Row[Any]) -> BatchedJob:
    return BatchedJob(**{**row._mapping, "contents": contents_of(row.contents, row.request) or b""})


@cache
def _candidates() -> Select[Any]:
    """The first job and others like it: number, path, and bytes of the contents, about."""
    first = bindparam("first", type_=jobs.c.seq.type)
    due = (
        select(JobRow.seq)
        .where(text(DUE), *runnable())
        .order_by(JobRow.priority.desc(), JobRow.seq)
        .limit(bindparam("window"))
    )
    near = union(select(first.label("seq")), select(due.subquery().c.seq)).subquery()
    alike = (JobRow.storage == bindparam("storage"), JobRow.queue == bindparam("queue"), is_small())
    of_request = func.length(cast(JobRow.request, Text))  # of an earlier version, which has them in there
    size: ColumnElement[Any] = func.coalesce(func.length(jobs.c.contents), of_request)
    found: Select[Any] = (
        select(JobRow.seq, JobRow.path, size.label("size"))
        .join(near, near.c.seq == JobRow.seq)
        .where(*alike)
        .order_by(JobRow.seq != first, JobRow.priority.desc(), JobRow.seq)
        .limit(bindparam("most"))
        .with_for_update(skip_locked=True, of=JobRow)
    )
    return found


@cache
def _claim(lease_seconds: float) -> Update:
    return (
        update(jobs)
        .where(jobs.c.seq.in_(bindparam("seqs", expanding=True)))
        .values(
            token=jobs.c.token + 1,
            publish_seq=jobs.c.publish_seq + 1,
            attempt=jobs.c.attempt + 1,
            state=JobState.RUNNING,
            worker=bindparam("owner"),
            lease_expires_at=db_now(lease_seconds),
            started_at=func.coalesce(jobs.c.started_at, db_now()),
            updated_at=db_now(),
            run_at=None,
            published_at=None,
        )
        .returning(*(jobs.c[name] for name in BatchedJob._fields))
    )


@cache
def _open_attempts() -> Insert:
    opened = select(jobs.c.id, jobs.c.attempt, jobs.c.worker).where(jobs.c.seq.in_(bindparam("seqs", expanding=True)))
    return insert(attempts).from_select(["job_id", "attempt", "worker"], opened)


@cache
def _insert_locks(backend: str) -> Insert:
    given = GivenRows(backend)
    names = ["bucket", "path", "job_id"]
    return insert(path_locks).from_select(names, select(*(given.text(name) for name in names)))
