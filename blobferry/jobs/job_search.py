"""The jobs that match a filter, the newest first, without reading the whole table for a few of them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    and_,
    exists,
    func,
    literal,
    or_,
    select,
    text,
    type_coerce,
    union_all,
)
from sqlalchemy.dialects.postgresql import JSONB

from blobferry.contract import JobState
from blobferry.jobs.job_filter import JobFilter
from blobferry.sql.clock import db_now
from blobferry.sql.index_conditions import OF_STATE
from blobferry.sql.prefixes import begins_with
from blobferry.sql.tables import JOB_COLUMNS, jobs
from blobferry.values import Job

Conditions = Sequence[ColumnElement[bool]]

#: Of the newest jobs, so many for each one that is wanted are compared with a path before its index is asked: under a
#: path that most jobs have, the index would bring them all.
LOOK_BACK: Final = 10


def find_jobs(connection: Connection, wanted: JobFilter) -> list[Job]:
    """The newest jobs that match, the newest first.

    Jobs of some states or times, or under a path, are found by an index. The other arguments are compared with one job
    after another, so a listing by them alone reads as many jobs as it takes to find ``limit``.
    """
    matching = _matching(connection, wanted)
    under = _under(wanted)
    if wanted.since is not None or wanted.until is not None or under:
        matching += [jobs.c.state.in_([str(state) for state in wanted.states])] if wanted.states else []
    if wanted.since is not None or wanted.until is not None:
        return _listed(connection, [*matching, *under], wanted.limit, jobs.c.created_at.desc(), jobs.c.seq.desc())
    if under:
        return _find_under(connection, [*matching, *under], wanted.limit)
    if wanted.states:
        matching = [*matching, jobs.c.seq.in_(_newest_of(wanted.states, matching, wanted.limit))]
    return _listed(connection, matching, wanted.limit, jobs.c.seq.desc())


def _find_under(connection: Connection, matching: Conditions, limit: int) -> list[Job]:
    """The newest jobs that match, a path among it."""
    start = select(func.max(jobs.c.seq)).scalar_subquery() - LOOK_BACK * limit
    latest = _listed(connection, [*matching, jobs.c.seq > start], limit, jobs.c.seq.desc())
    if len(latest) == limit:
        return latest
    # "+ 0": no index has this order, so the path's is read, and not one job after another by the order's.
    of_path = select(jobs.c.seq).where(*matching).order_by((jobs.c.seq + 0).desc()).limit(limit)
    return _listed(connection, [jobs.c.seq.in_(of_path)], limit, jobs.c.seq.desc())


def _listed(connection: Connection, matching: Conditions, limit: int, *order: ColumnElement[Any]) -> list[Job]:
    found = select(*JOB_COLUMNS, db_now().label("seen_at")).where(*matching).order_by(*order).limit(limit)
    return [Job.from_row(dict(row)) for row in connection.execute(found).mappings()]


def _matching(connection: Connection, wanted: JobFilter) -> list[ColumnElement[bool]]:
    """The conditions of the filter but for the states and the path."""
    conditions: list[ColumnElement[bool]] = []
    if wanted.since is not None:
        conditions.append(jobs.c.created_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(jobs.c.created_at < wanted.until)
    if wanted.operation is not None:
        conditions.append(jobs.c.operation == wanted.operation)
    if wanted.storage is not None:
        conditions.append(jobs.c.storage == wanted.storage)
    if wanted.labels:
        conditions.append(has_labels(connection, wanted.labels))
    return conditions


def _under(wanted: JobFilter) -> list[ColumnElement[bool]]:
    """The condition of the path, if there is one."""
    if wanted.under is None or wanted.under == "/":
        return []
    return [or_(jobs.c.path == wanted.under, begins_with(jobs.c.path, f"{wanted.under}/"))]


def _newest_of(
    states: Sequence[JobState], matching: Sequence[ColumnElement[bool]], limit: int
) -> CompoundSelect[tuple[int]]:
    """The newest jobs of each state; each is read from the end of the index that has it."""
    newest = select(jobs.c.seq).where(*matching).order_by(jobs.c.seq.desc()).limit(limit)
    of_states = (newest.where(text(OF_STATE[state])) for state in states)
    return union_all(*(select(of_state.subquery()) for of_state in of_states))


def has_labels(connection: Connection, labels: Mapping[str, str]) -> ColumnElement[bool]:
    """The job has these labels, and perhaps others."""
    if connection.dialect.name == "postgresql":
        return type_coerce(jobs.c.labels, JSONB).contains(dict(labels))
    # Not a JSON path: SQLite's syntax of paths cannot express a name with a quotation mark.
    conditions = []
    for name, value in labels.items():
        label = func.json_each(jobs.c.labels).table_valued("key", "value").alias()
        pair = select(literal(1)).select_from(label).where(label.c.key == name, label.c.value == value)
        conditions.append(exists(pair))
    return and_(*conditions)
