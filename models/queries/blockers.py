"""Which job keeps a path from another one: an earlier one in line, or a later one that holds it already."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Boolean,
    Column,
    ColumnElement,
    Integer,
    Select,
    String,
    and_,
    bindparam,
    func,
    literal_column,
    or_,
    select,
)
from sqlalchemy.orm import Session

from blobferry.checks.source_urls import blob_url
from blobferry.sql.tables import jobs, path_locks
from models.claimed_job import ClaimedJob
from models.job import JobRow
from models.queries.places import has_place

# The conditions of partial indexes, word for word.
IS_MOVE: Final = literal_column("operation = 'move'", Boolean)
IS_COPY: Final = literal_column("substr(source, 1, 7) = 'blob://'", Boolean)


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
        yield f"{name}_length", len(place) + 1


@cache
def _blockers(shape: _Shape) -> Select[tuple[str | None, str | None]]:
    overlapping = or_(*(_needs(shape, number) for number in range(len(shape.above_names))))
    is_earlier = jobs.c.seq < bindparam("of_seq", type_=BigInteger)
    earlier = select(jobs.c.id).where(is_earlier, has_place(JobRow), overlapping).order_by(jobs.c.seq.desc()).limit(1)
    others = [path_locks.c.bucket == _text("bucket"), path_locks.c.job_id != _text("of_job")]
    if shape.is_shared:
        others.append(~path_locks.c.is_shared)
    overlaps = _is_at(path_locks.c.path, "key", is_tree=shape.is_tree)
    if shape.above_key:
        overlaps = or_(overlaps, and_(path_locks.c.is_tree, _is_above(path_locks.c.path, "key", shape.above_key)))
    later = select(path_locks.c.job_id).where(*others, overlaps).limit(1)
    return select(earlier.scalar_subquery(), later.scalar_subquery())


def _needs(shape: _Shape, number: int) -> ColumnElement[bool]:
    """The job needs this path of the storage, deletes a directory above it, or, for a tree, needs a path below it."""
    is_here = jobs.c.storage == _text(f"storage_{number}")
    dest_storage = func.coalesce(jobs.c.request["dest_storage"].as_string(), jobs.c.storage)
    at_path = and_(
        dest_storage == _text(f"storage_{number}"), _is_at(jobs.c.path, f"path_{number}", is_tree=shape.is_tree)
    )
    needs = [and_(is_here, IS_MOVE, _is_at(jobs.c.source, f"path_{number}", is_tree=shape.is_tree))]
    if shape.above_names[number]:
        above = _is_above(jobs.c.path, str(number), shape.above_names[number])
        needs.append(and_(is_here, jobs.c.operation == "delete", above))
    if shape.is_shared:
        return or_(*needs, and_(at_path, jobs.c.operation != "read_stream"))
    copied = and_(IS_COPY, _is_at(jobs.c.source, f"url_{number}", is_tree=shape.is_tree))
    return or_(*needs, at_path, copied)


def _is_at(column: Column[Any], name: str, *, is_tree: bool) -> ColumnElement[bool]:
    is_same = column == _text(name)
    if not is_tree:
        return is_same
    # Not LIKE, which ignores case on SQLite.
    return or_(is_same, func.substr(column, 1, bindparam(f"{name}_length", type_=Integer)) == _text(f"{name}_below"))


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
