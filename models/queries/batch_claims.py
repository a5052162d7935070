"""The claim of a batch: a small job that has never run, together with others of its kind that are due.

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
    bindparam,
    cast,
    func,
    insert,
    select,
    text,
    union,
    update,
)
from sqlalchemy.orm import Session

from blobferry.contract import JobState
from blobferry.jobs.put_contents import contents_of
from blobferry.sql.clock import db_now
from blobferry.sql.index_conditions import DUE
from blobferry.sql.tables import attempts, jobs, path_locks
from models.job import JobRow
from models.queries.blockers import Hold
from models.queries.conditions import runnable
from models.queries.given_rows import GivenRows, backend_of, bound
from models.queries.glances import Glance, is_small
from models.queries.locks import lock_bucket
from models.queries.overlaps import must_wait

WINDOW: Final = 4  #: times the size of a batch: so many of the next jobs are looked through for others like the first


class BatchedJob(NamedTuple):
    """A job of a batch, as claimed."""

    seq: int
    id: str
    operation: str
    storage: str
    path: str
    source: str | None  #: without secrets, for display
    queue: str
    request: Mapping[str, Any]
    contents: bytes | None  #: of a put_content
    token: int
    attempt: int
    publish_seq: int  #: of the next message; those with a lower number are outdated
    parent_id: str | None
    root_id: str | None
    on_end: Mapping[str, Any] | None  #: who is told of its end
    removes_source: bool


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
    """Claim the first job, and others of its kind, storage and queue that are due; none at all if not the first one.

    Takes jobs among the next ``WINDOW`` x ``most_jobs`` that are due, highest priority first, then the oldest, as
    messages are sent. Each takes its path at once. A job that another transaction has locked is passed over.

    Args:
        first: the job of the message.
        worker: the name of the process that will run them.
        lease_seconds: how long the run owns them without a heartbeat.
        most_jobs: how many jobs, the first included.
        most_bytes: of their contents together. The first one counts, but is taken in any case. Nothing is known of the
            files that jobs write.
        hold_of: returns the need of the one path that a job writes; None if the storage has no such path.
    """
    candidates = session.execute(
        _candidates(),
        {
            "first": first.seq,
            "operation": first.operation,
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
    return BatchedJob(**{**row._mapping, "contents": contents_of(row.contents, row.request)})


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
    alike = (*(getattr(JobRow, name) == bindparam(name) for name in ("operation", "storage", "queue")), is_small())
    of_request = func.length(cast(JobRow.request, Text))  # of an earlier version, which has them in there
    size: ColumnElement[Any] = func.coalesce(func.length(jobs.c.contents), of_request, 0)
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
