"""Path locks: one writer or many readers at a time for each path of a bucket, in the order of their submission.

A job takes all of its locks in its first claim, or none, and keeps them until it ends. A job that cannot have them
waits for the job right before it in line (``waits_for``), and is neither published nor claimable until that job ends.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import (
    ColumnElement,
    Integer,
    and_,
    case,
    delete,
    exists,
    func,
    literal_column,
    or_,
    select,
    text,
    true,
    union_all,
    update,
)
from sqlalchemy.orm import Session

from blobferry.checks.source_urls import blob_url
from blobferry.contract import FINAL_STATES, UNFINISHED_UPLOADS, JobState
from blobferry.sql.index_conditions import COPIED, MOVED, UNFINISHED
from blobferry.sql.prefixes import begins_with
from models.job import JobRow
from models.path_lock import PathLockRow
from models.queries.conditions import dialect, now
from models.upload import UploadRow

_UNFINISHED: Final = sorted(state for state in JobState if state not in FINAL_STATES)


#: ``seq`` as a term to sort by. Without the sign, a database may read all jobs in the order of ``seq`` to find the last
#: one in a range of paths.
_SORTED: Final = literal_column("+seq", Integer)


@dataclass(frozen=True, slots=True)
class Hold:
    """A path that a job needs: for itself, or shared with other readers. With ``is_tree``, also everything below it."""

    bucket: str  #: identifies the bucket, endpoint included
    key: str
    is_tree: bool
    #: The path of this key in each storage that shares the bucket; "" if the tree contains the whole storage.
    names: Mapping[str, str]
    is_shared: bool = False


def take_locks(session: Session, job: JobRow, holds: Sequence[Hold]) -> str | None:
    """Take all locks that the job needs and return None; or take none and return the id of the job to wait for."""
    # FOR UPDATE: a caretaker may be dropping the locks of a job that was paused for too long.
    locks = session.scalars(select(PathLockRow).where(PathLockRow.job_id == job.id).with_for_update())
    mine = {(lock.bucket, lock.path, is_shared) for lock in locks for is_shared in {lock.is_shared, True}}
    if all((hold.bucket, hold.key, hold.is_shared) in mine for hold in holds):
        return None  # a job that holds its paths must not wait, since others may be waiting for it
    for bucket in sorted({hold.bucket for hold in holds}):
        _lock_bucket(session, bucket)
    for find_blocker in (_earlier_in_line, _later_holder):
        for hold in holds:
            blocker = find_blocker(session, job, hold)
            if blocker is not None:
                return blocker
    _insert_locks(session, job, holds)
    return None


def wait_for(session: Session, job_id: str, blocker: str) -> None:
    """Make the job wait until ``blocker`` ends. If ``blocker`` no longer blocks, the job stays claimable.

    A waiting job gives up its locks and wakes the earlier jobs that wait for it, so jobs never wait in a circle.
    """
    # FOR SHARE: without it, a blocker that ends between this SELECT and our UPDATE would never wake this job.
    still = session.scalar(select(JobRow.id).where(JobRow.id == blocker, has_place(JobRow)).with_for_update(read=True))
    if not set_waits_for(session, and_(JobRow.id == job_id, JobRow.lease_expires_at.is_(None)), still):
        return  # another worker has claimed the job in the meantime
    session.execute(delete(PathLockRow).where(PathLockRow.job_id == job_id))
    seq = select(JobRow.seq).where(JobRow.id == job_id).scalar_subquery()
    set_waits_for(session, and_(JobRow.waits_for == job_id, JobRow.seq < seq), None)


def drop_locks(session: Session, job_id: str) -> None:
    """Drop all locks of the job and wake the jobs that wait for it."""
    session.execute(delete(PathLockRow).where(PathLockRow.job_id == job_id))
    set_waits_for(session, JobRow.waits_for == job_id, None)


def set_waits_for(session: Session, which: ColumnElement[bool], blocker: object) -> int:
    """Let these jobs wait for ``blocker``, None for nobody; return how many there are."""
    statement = update(JobRow).where(which).values(waits_for=blocker, published_at=None)
    result = session.execute(statement, execution_options={"synchronize_session": False})
    return int(result.rowcount)  # type: ignore[attr-defined]


def _insert_locks(session: Session, job: JobRow, holds: Sequence[Hold]) -> None:
    rows = [
        {
            "bucket": hold.bucket,
            "path": hold.key,
            "job_id": job.id,
            "is_tree": hold.is_tree,
            "is_shared": hold.is_shared,
        }
        for hold in holds
    ]
    statement = dialect(session).insert(PathLockRow)
    kinds = {name: statement.excluded[name] for name in ("is_tree", "is_shared")}
    session.execute(statement.on_conflict_do_update(index_elements=["bucket", "path", "job_id"], set_=kinds), rows)


def _lock_bucket(session: Session, bucket: str) -> None:
    # Two claims that both read before either one writes would both succeed. SQLite has one writer at a time.
    if session.get_bind().dialect.name == "postgresql":
        lock = text("SELECT pg_advisory_xact_lock(hashtext('blobferry'), hashtext(:bucket))")
        session.execute(lock, {"bucket": bucket})


def _earlier_in_line(session: Session, job: JobRow, hold: Hold) -> str | None:
    """The last job submitted before this one that needs the path, and not only for reading if this one reads."""
    # A SELECT of its own for each way to need the path: each then has an index, of which it reads one row.
    earlier = select(JobRow.seq, JobRow.id).where(JobRow.seq < job.seq, has_place(JobRow)).limit(1)
    found = [
        select(earlier.where(text(of), needs).order_by(_SORTED.desc() if is_range else JobRow.seq.desc()).subquery())
        for storage, path in hold.names.items()
        for of, needs, is_range in _ways_to_need(hold, storage, path)
    ]
    if not found:
        return None
    all_found = union_all(*found).subquery()
    return session.scalar(select(all_found.c.id).order_by(all_found.c.seq.desc()).limit(1))


def _ways_to_need(hold: Hold, storage: str, path: str) -> Iterator[tuple[str, ColumnElement[bool], bool]]:
    """How a job may need this path of the storage: the condition of an index, what is searched, whether it is a range.

    It needs the path itself, deletes a directory above it, or, for a tree, needs a path below it.
    """
    dest_storage = case(  # the CASE leaves requests unread that may be long
        (JobRow.operation == "move", func.coalesce(JobRow.request["dest_storage"].as_string(), JobRow.storage)),
        else_=JobRow.storage,
    )
    # Not the bare column: without statistics SQLite would rather read all jobs of a storage and operation.
    is_of_storage = func.coalesce(JobRow.storage, "") == storage
    ancestors = _ancestors(path)
    if ancestors:
        deletes = and_(is_of_storage, JobRow.operation == "delete")
        yield UNFINISHED, and_(deletes, JobRow.path.in_(ancestors)), True
    ways = [
        (UNFINISHED, dest_storage == storage, JobRow.path, path),
        (MOVED, is_of_storage, JobRow.source, path),
    ]
    if hold.is_shared:
        ways[0] = (UNFINISHED, and_(dest_storage == storage, JobRow.operation != "read_stream"), JobRow.path, path)
    else:
        ways.append((COPIED, true(), JobRow.source, blob_url(storage, path)))
    for of, is_there, column, place in ways:
        yield of, and_(is_there, column == place), False
        if hold.is_tree:
            yield of, and_(is_there, begins_with(column, f"{place}/")), True


def _later_holder(session: Session, job: JobRow, hold: Hold) -> str | None:
    """A job that holds the path although it was submitted later: it was claimed before this job was due."""
    others = [PathLockRow.bucket == hold.bucket, PathLockRow.job_id != job.id]
    if hold.is_shared:
        others.append(~PathLockRow.is_shared)
    overlaps = [
        PathLockRow.path == hold.key,
        and_(PathLockRow.path.in_(_ancestors(hold.key)), PathLockRow.is_tree),
        *([begins_with(PathLockRow.path, f"{hold.key}/")] if hold.is_tree else []),
    ]
    one = select(PathLockRow.job_id).where(*others).limit(1)  # a SELECT for each, as above
    found = union_all(*(select(one.where(overlap).subquery()) for overlap in overlaps)).subquery()
    return session.scalar(select(found.c.job_id).limit(1))


def _ancestors(path: str) -> list[str]:
    """The directories above a path, deepest first."""
    found = []
    while "/" in path:
        path = path.rpartition("/")[0]
        if path:
            found.append(path)
    return found


def has_place(job: type[JobRow]) -> ColumnElement[bool]:
    """The job has its place in line: it is due, not final, and not paused without an upload."""
    uploading = exists().where(UploadRow.job_id == job.id, UploadRow.state.in_(UNFINISHED_UPLOADS))
    due = or_(job.not_before.is_(None), job.not_before <= now(), job.attempt > 0)
    return and_(job.state.in_(_UNFINISHED), due, or_(job.state != JobState.PAUSED, uploading))
