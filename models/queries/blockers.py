"""Which job keeps a path from another one: an earlier one in line, or a later one that holds it already."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Column,
    ColumnElement,
    Integer,
    Select,
    String,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    null,
    select,
    text,
    true,
    union_all,
)
from sqlalchemy.orm import Session

from blobferry.checks.source_urls import blob_url
from blobferry.sql.index_conditions import COPIED, MOVED, UNFINISHED
from blobferry.sql.prefixes import lies_within, prefix_end
from blobferry.sql.tables import jobs, path_locks
from models.claimed_job import ClaimedJob
from models.job import JobRow
from models.queries.places import has_place

# Not the bare column: without statistics SQLite would rather read all jobs of a storage and operation.
STORAGE: Final = func.coalesce(jobs.c.storage, "")
#: Where the job's path is. The CASE leaves requests unread that may be long.
DEST_STORAGE: Final = case(
    (jobs.c.operation == "move", func.coalesce(jobs.c.request["dest_storage"].as_string(), jobs.c.storage)),
    else_=jobs.c.storage,
)
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


def find_blocker(session: Session, job: ClaimedJob, holds: Sequence[Hold]) -> str | None:
    """The id of the job that this one has to wait for, since it needs one of these paths; None if there is none.

    An earlier one in line is the last that was submitted before this one and needs the path, and not only for reading
    if this one reads. A later one holds the path because it was claimed before this job was due.
    """
    later: str | None = None
    for hold in holds:
        above = [ancestors(path) for path in hold.names.values()]
        shape = _Shape(hold.is_tree, hold.is_shared, tuple(map(len, above)), len(ancestors(hold.key)))
        values = dict(_values(hold, above))
        row = session.execute(_blockers(shape), {"of_job": job.id, "of_seq": job.seq, **values}).one()
        if row[0] is not None:
            return str(row[0])
        later = later or row[1]
    return later


@dataclass(frozen=True, slots=True)
class _Shape:
    """What the statement for a hold depends on, besides values. Each shape is compiled once."""

    is_tree: bool
    is_shared: bool
    above_names: tuple[int, ...]  #: number of directories above the path, by name
    above_key: int


def _values(hold: Hold, above: Sequence[Sequence[str]]) -> Iterator[tuple[str, Any]]:
    yield "bucket", hold.bucket
    places = [*hold.names.items()]
    for number, (storage, path) in enumerate(places):
        yield f"storage_{number}", storage
        yield from _place(f"path_{number}", path, is_tree=hold.is_tree)
        if not hold.is_shared:
            yield from _place(f"url_{number}", blob_url(storage, path), is_tree=hold.is_tree)
        for depth, directory in enumerate(above[number]):
            yield f"above_{number}_{depth}", directory
    yield from _place("key", hold.key, is_tree=hold.is_tree)
    for depth, directory in enumerate(ancestors(hold.key)):
        yield f"above_key_{depth}", directory


def _place(name: str, place: str, *, is_tree: bool) -> Iterator[tuple[str, Any]]:
    yield name, place
    if is_tree:
        yield f"{name}_below", f"{place}/"
        yield f"{name}_end", prefix_end(f"{place}/")


@cache
def _blockers(shape: _Shape) -> Select[tuple[str | None, str | None]]:
    # A SELECT of its own for each way to need the path: each then has an index, of which it reads one row.
    is_earlier = jobs.c.seq < bindparam("of_seq", type_=BigInteger)
    earlier = select(jobs.c.seq, jobs.c.id).where(is_earlier, has_place(JobRow)).limit(1)
    needing = [
        select(earlier.where(text(of), needs).order_by(_SORTED.desc() if is_range else jobs.c.seq.desc()).subquery())
        for number in range(len(shape.above_names))
        for of, needs, is_range in _ways_to_need(shape, number)
    ]
    others = [path_locks.c.bucket == _text("bucket"), path_locks.c.job_id != _text("of_job")]
    if shape.is_shared:
        others.append(~path_locks.c.is_shared)
    holder = select(path_locks.c.job_id).where(*others).limit(1)
    holding = [select(holder.where(overlaps).subquery()) for overlaps in _ways_to_hold(shape)]
    later = union_all(*holding).subquery()
    return select(_last_of(needing), select(later.c.job_id).limit(1).scalar_subquery())


def _last_of(needing: Sequence[Select[Any]]) -> ColumnElement[str | None]:
    if not needing:
        return cast(null(), String)
    found = union_all(*needing).subquery()
    return select(found.c.id).order_by(found.c.seq.desc()).limit(1).scalar_subquery()


def _ways_to_need(shape: _Shape, number: int) -> Iterator[tuple[str, ColumnElement[bool], bool]]:
    """How a job may need this path of the storage: the condition of an index, what is searched, whether it is a range.

    It needs the path itself, deletes a directory above it, or, for a tree, needs a path below it.
    """
    storage = _text(f"storage_{number}")
    if shape.above_names[number]:
        above = _is_above(jobs.c.path, str(number), shape.above_names[number])
        yield UNFINISHED, and_(storage == STORAGE, jobs.c.operation == "delete", above), True
    at_path = storage == DEST_STORAGE
    if shape.is_shared:
        at_path = and_(at_path, jobs.c.operation != "read_stream")
    ways = [
        (UNFINISHED, at_path, jobs.c.path, f"path_{number}"),
        (MOVED, storage == STORAGE, jobs.c.source, f"path_{number}"),
    ]
    if not shape.is_shared:
        ways.append((COPIED, true(), jobs.c.source, f"url_{number}"))
    for of, is_there, column, name in ways:
        yield of, and_(is_there, column == _text(name)), False
        if shape.is_tree:
            yield of, and_(is_there, _is_below(column, name)), True


def _ways_to_hold(shape: _Shape) -> Iterator[ColumnElement[bool]]:
    yield path_locks.c.path == _text("key")
    if shape.above_key:
        yield and_(path_locks.c.is_tree, _is_above(path_locks.c.path, "key", shape.above_key))
    if shape.is_tree:
        yield _is_below(path_locks.c.path, "key")


def _is_below(column: Column[Any], name: str) -> ColumnElement[bool]:
    return lies_within(column, _text(f"{name}_below"), _text(f"{name}_end"))


def _is_above(column: Column[Any], name: str, depth: int) -> ColumnElement[bool]:
    return column.in_([_text(f"above_{name}_{number}") for number in range(depth)])


def _text(name: str) -> BindParameter[str]:
    return bindparam(name, type_=String)


def ancestors(path: str) -> list[str]:
    """The directories above a path, deepest first."""
    found = []
    while "/" in path:
        path = path.rpartition("/")[0]
        if path:
            found.append(path)
    return found
