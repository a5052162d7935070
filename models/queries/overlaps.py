"""Which of several jobs would have to wait for a path, by the rules of :mod:`models.queries.locks`."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, case, literal, select, text
from sqlalchemy.orm import InstrumentedAttribute, Session

from blobferry.checks.source_urls import blob_url
from blobferry.sql.index_conditions import COPIED, MOVED, UNFINISHED
from models.job import JobRow
from models.path_lock import PathLockRow
from models.queries.blockers import DEST_STORAGE, STORAGE, Hold, ancestors
from models.queries.given_rows import GivenRows, backend_of, bound
from models.queries.places import has_place

HELD: Final = -1  #: smaller than any ``seq``: a job that holds a path blocks also those before it

Place = tuple[str, str, str]
"""What is asked of a storage's path: the question, the storage, the path. Of a lock: the bucket and the key."""


def must_wait(session: Session, holds: Mapping[int, Hold]) -> set[int]:
    """The jobs, by ``seq``, that cannot take the one path that each needs for itself: it is no tree and not shared.

    The caller has locked the bucket, and none of the jobs holds a path already.
    """
    askers = defaultdict[Place, list[int]](list)
    for seq, hold in holds.items():
        for place in _places(hold):
            askers[place].append(seq)
    places = list(askers)
    rows = [{"at": number, "kind": kind, "of": of, "path": path} for number, (kind, of, path) in enumerate(places)]
    found = session.execute(_earliest(backend_of(session)), bound(rows))
    return {seq for number, earliest in found for seq in askers[places[number]] if earliest < seq}


def _places(hold: Hold) -> Iterator[Place]:
    for storage, path in hold.names.items():
        yield "at", storage, path
        yield "moved", storage, path
        yield "copied", storage, blob_url(storage, path)
        for above in ancestors(path):
            yield "deleted", storage, above
    yield "held", hold.bucket, hold.key
    for above in ancestors(hold.key):
        yield "held tree", hold.bucket, above


@cache
def _earliest(backend: str) -> Select[Any]:
    """For each given place: the first job in line that needs it, if there is one."""
    given = GivenRows(backend)
    kind, of, path = given.text("kind"), given.text("of"), given.text("path")
    first = case(
        (kind == "at", _first_job(UNFINISHED, JobRow.path == path, of == DEST_STORAGE)),
        (kind == "deleted", _first_job(UNFINISHED, JobRow.path == path, of == STORAGE, JobRow.operation == "delete")),
        (kind == "moved", _first_job(MOVED, JobRow.source == path, of == STORAGE)),
        (kind == "copied", _first_job(COPIED, JobRow.source == path)),
        (kind == "held", _lock(PathLockRow.bucket == of, PathLockRow.path == path)),
        (kind == "held tree", _lock(PathLockRow.bucket == of, PathLockRow.path == path, PathLockRow.is_tree)),
    )
    asked = select(given.whole("at").label("at"), first.label("earliest")).subquery()
    return select(asked.c["at"], asked.c.earliest).where(asked.c.earliest.is_not(None))


def _first_job(of: str, *wanted: ColumnElement[bool]) -> ColumnElement[int]:
    """``of``: the condition of the index that finds it."""
    return (
        select(JobRow.seq)
        .where(text(of), and_(*wanted), has_place(JobRow))
        .order_by(JobRow.seq)
        .limit(1)
        .scalar_subquery()
    )


def _lock(*wanted: ColumnElement[bool] | InstrumentedAttribute[bool]) -> ColumnElement[int]:
    return select(literal(HELD)).where(and_(*wanted)).select_from(PathLockRow).limit(1).scalar_subquery()
