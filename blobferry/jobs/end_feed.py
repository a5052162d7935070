"""The feed of ended jobs: each end once, in no strict order of time, and none is missed.

Transactions get their numbers before they commit, so a number that is read may still be followed by lower ones. So a
cursor holds a snapshot: which transactions had ended when it was taken. The next page has the jobs whose ending
transaction was not in that snapshot and is in a newer one. A transaction that lasts for an hour delays no other's end.
"""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

from sqlalchemy import ColumnElement, Connection, Engine, func, select, text, tuple_

from blobferry.checks.arguments import check_labels, check_whole_number
from blobferry.contract import FINAL_STATES
from blobferry.errors import InvalidRequestError
from blobferry.jobs.job_options import Labels
from blobferry.jobs.job_search import has_labels
from blobferry.sql.clock import db_now
from blobferry.sql.database import reachable
from blobferry.sql.tables import JOB_COLUMNS, jobs
from blobferry.values import Job

#: An option of connections: all ends are written by one transaction after the other, or by this very one, as in a test
#: that rolls back what it did. Then a number is no transaction's, but the next one, on PostgreSQL too.
ONE_WRITER: Final = "blobferry_one_writer"
NOW: Final = "now"  #: the cursor of whoever wants only what ends from now on
MAX_LIMIT: Final = 10_000
_ENDED: Final = text("ended_in IS NOT NULL")  # as the index has it
_FINAL: Final = jobs.c.state.in_(sorted(FINAL_STATES))


@dataclass(frozen=True, slots=True)
class Ends:
    """A page of the feed: iterate it, then ask for what is ``after`` its cursor."""

    jobs: tuple[Job, ...]
    cursor: str  #: opaque text, of a few dozen bytes; also of an empty page

    def __iter__(self) -> Iterator[Job]:
        return iter(self.jobs)

    def __len__(self) -> int:
        return len(self.jobs)


def _number(value: Any) -> int:
    """A number that a column may hold. Raises ValueError."""
    if not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(value)
    return value


class _Snapshot(NamedTuple):
    """Transactions below ``next`` have ended, but for those that are ``open``."""

    next: int = 0
    open: tuple[int, ...] = ()

    @classmethod
    def of(cls, value: Any) -> Self:
        """The snapshot as JSON has it. Raises ValueError, TypeError, LookupError."""
        return cls(_number(value[0]), tuple(map(_number, value[1])))


class _Position(NamedTuple):
    """A cursor: what is in ``base`` has been read, and of ``upper``, if there is one, what is up to ``last``."""

    base: _Snapshot = _Snapshot()
    upper: _Snapshot | None = None
    last: tuple[int, int] = (0, 0)

    def as_text(self) -> str:
        return urlsafe_b64encode(json.dumps(self, separators=(",", ":")).encode()).decode().rstrip("=")

    @classmethod
    def of(cls, cursor: str) -> Self:
        """The position in a cursor. Raises InvalidRequestError."""
        try:
            base, upper, last = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
            newer = None if upper is None else _Snapshot.of(upper)
            return cls(_Snapshot.of(base), newer, (_number(last[0]), _number(last[1])))
        except (ValueError, TypeError, LookupError, RecursionError):
            raise InvalidRequestError("after: needs the cursor of an earlier answer, or 'now'") from None


def read_ends(engine: Engine, after: str | None, labels: Labels | None = None, limit: int = 100) -> Ends:
    """The jobs that have ended since the cursor; all that are kept without one.

    Args:
        engine: of the primary: a standby of PostgreSQL does not know which transactions are open.
        after: the cursor of an earlier answer, ``"now"``, or None.
        labels: the job has these labels.
        limit: the most jobs to return, 1 to 10,000.

    Raises InvalidRequestError, also for the cursor of another database, and UnreachableError.
    """
    with reachable(), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        return page_of(connection, after, labels, limit)


def page_of(connection: Connection, after: str | None, labels: Labels | None, limit: int) -> Ends:
    """As :func:`read_ends`, by this connection."""
    limit = check_whole_number(1, MAX_LIMIT)("limit", limit)
    wanted = None if labels is None else check_labels("labels", labels)
    if after == NOW:
        return Ends((), _Position(_snapshot(connection, _Snapshot())).as_text())
    position = _Position() if after is None else _Position.of(after)
    found = list[dict[str, Any]]()
    while True:
        upper = position.upper or _snapshot(connection, position.base)
        found += _rows(connection, position, upper, wanted, limit - len(found))
        if len(found) == limit:
            position = _Position(position.base, upper, (found[-1]["ended_in"], found[-1]["seq"]))
            break
        is_new, position = position.upper is None, _Position(upper)
        if is_new:  # otherwise more may have ended since then: an empty page is to say that none has
            break
    return Ends(tuple(map(Job.from_row, found)), position.as_text())


def _snapshot(connection: Connection, before: _Snapshot) -> _Snapshot:
    if connection.dialect.name == "sqlite" or ONE_WRITER in connection.get_execution_options():
        # One writer at a time: what follows has a higher number.
        last = connection.scalar(select(func.max(jobs.c.ended_in)).where(_ENDED))
        return _Snapshot(max(before.next, (last or 0) + 1))
    _, end, still_open = str(connection.scalar(text("SELECT CAST(pg_current_snapshot() AS text)"))).split(":")
    if int(end) < before.next:
        raise InvalidRequestError("after: is the cursor of another database; begin anew with after=None or 'now'")
    return _Snapshot(int(end), tuple(int(number) for number in still_open.split(",") if number))


def _rows(
    connection: Connection, position: _Position, upper: _Snapshot, labels: Mapping[str, str] | None, limit: int
) -> list[dict[str, Any]]:
    base, found = position.base, list[dict[str, Any]]()
    # First those that were open then, which all have lower numbers; each of the two is a range of the index.
    ranges: Sequence[ColumnElement[bool]] = (jobs.c.ended_in.in_(base.open), jobs.c.ended_in >= base.next)
    for number, unread in enumerate(ranges):
        if number == 0 and not base.open:
            continue
        conditions: list[Any] = [_ENDED, unread, jobs.c.ended_in < upper.next, _FINAL]
        if upper.open:
            conditions.append(jobs.c.ended_in.not_in(upper.open))
        if position.last != (0, 0):
            conditions.append(tuple_(jobs.c.ended_in, jobs.c.seq) > tuple_(*position.last))
        if labels:
            conditions.append(has_labels(connection, labels))
        columns = (*JOB_COLUMNS, jobs.c.ended_in, db_now().label("seen_at"))
        page = select(*columns).where(*conditions).order_by(jobs.c.ended_in, jobs.c.seq).limit(limit - len(found))
        found += [dict(row) for row in connection.execute(page).mappings()]
        if len(found) == limit:
            break
    return found
