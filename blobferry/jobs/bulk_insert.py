"""One INSERT of many rows, and the jobs that were submitted before under the keys of some of them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, select

from blobferry.contract import Request
from blobferry.errors import ConflictError
from blobferry.jobs.idempotency import check_same
from blobferry.jobs.job_rows import NewRow, insert_several
from blobferry.jobs.key_reuse import gives_key, take_key
from blobferry.jobs.submission import TRIES
from blobferry.sealing import Sealer
from blobferry.sql.sqlite_connection import must_survive
from blobferry.sql.tables import JOB_COLUMNS, jobs

READ: Final = 100  #: existing rows that are read at once

_Key = tuple[str, str, str]


def insert_chunk(connection: Connection, rows: Sequence[NewRow], sealer: Sealer, *, start: int) -> list[str]:
    """Insert the rows by one statement; return the ids of their jobs, those of existing ones where a key is known.

    ``start``: the position of the first row among all, for errors. Raises ConflictError for a key that was used for
    another request, ConfigurationError if the ``sealer`` lacks the key to compare two of them.
    """
    ids: dict[int, str] = {}
    for _ in range(TRIES):
        left = [position for position in range(len(rows)) if position not in ids]
        inserted = _insert(connection, [rows[position] for position in left])
        ids.update((position, rows[position]["id"]) for position in left if rows[position]["id"] in inserted)
        known = {position: rows[position] for position in left if position not in ids}
        ids.update(_existing(connection, known, sealer, start))
        if len(ids) == len(rows):
            return [ids[position] for position in range(len(rows))]
    # A row exists, but the caller's snapshot (REPEATABLE READ) is older than it.
    position = next(position for position in range(len(rows)) if position not in ids)
    raise ConflictError(rows[position]["idempotency_key"] or "", rows[position]["id"], start + position)


def _insert(connection: Connection, rows: Sequence[NewRow]) -> set[str]:
    """The ids of the rows that were inserted."""
    filled = [name for name in rows[0] if name in jobs.c and any(row[name] is not None for row in rows)]
    values = [{name: row[name] for name in filled} for row in rows]
    must_survive(connection)
    return set(connection.scalars(insert_several(connection.dialect.name), values))


def _existing(
    connection: Connection, known: Mapping[int, NewRow], sealer: Sealer, start: int
) -> Iterator[tuple[int, str]]:
    """The positions and ids of the jobs that have the keys of these rows already, unless they were deleted."""
    positions = list(known)
    for some in (positions[first : first + READ] for first in range(0, len(positions), READ)):
        found = _by_key(connection, [known[position] for position in some])
        for position in some:
            row, existing = known[position], found.get(_key(known[position]))
            if existing is not None:
                asked = (row["operation"], row["storage"], row["path"], row["request"])
                request = Request(*asked, reuse=row["reuse"], relative=row["relative"])
                try:
                    if gives_key(existing, request):
                        take_key(connection, existing, row["id"])
                        continue  # the next try inserts the row, or finds who was first
                    check_same(existing, row, request, sealer)
                except ConflictError as error:
                    raise ConflictError(error.idempotency_key, error.job_id, start + position) from None
                yield position, existing["id"]


def _by_key(connection: Connection, rows: Sequence[NewRow]) -> dict[_Key, dict[str, Any]]:
    keys: dict[tuple[str, str], list[str]] = {}
    for asked in rows:
        keys.setdefault((asked["storage"], asked["operation"]), []).append(asked["idempotency_key"])
    found: dict[_Key, dict[str, Any]] = {}
    for (storage, operation), wanted in keys.items():
        of_these = (jobs.c.storage == storage, jobs.c.operation == operation, jobs.c.idempotency_key.in_(wanted))
        for existing in connection.execute(select(*JOB_COLUMNS, jobs.c.on_end).where(*of_these)).mappings():
            row = dict(existing)
            found[_key(row)] = row
    return found


def _key(row: Mapping[str, Any]) -> _Key:
    return row["storage"], row["operation"], row["idempotency_key"]
