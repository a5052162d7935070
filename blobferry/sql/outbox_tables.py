"""The tables of what is to be told at the end of jobs, beside those of jobs in :mod:`blobferry.sql.tables`."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Column, ForeignKey, Index, Integer, String, Table, Text, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement

from blobferry.sql.columns import BIG_INTEGER, clock, count, time, words
from blobferry.sql.tables import jobs, metadata

#: The conditions of the indexes, word for word. A webhook is not ``due``: earlier workers would take it for a task.
DUE_DELIVERY: Final = "state = 'due'"
WAITING_WEBHOOK: Final = "state = 'waiting'"
FAILED_DELIVERY: Final = "state IN ('given_up', 'gone')"


def _index(name: str, column: str, *, where: str) -> Index:
    return Index(f"ix_blobferry_deliveries_{name}", column, postgresql_where=text(where), sqlite_where=text(where))


#: One row for each end of a job and each receiver, written in the transaction of that end.
deliveries = Table(
    "blobferry_deliveries",
    metadata,
    Column("id", BIG_INTEGER, primary_key=True, autoincrement=True),
    Column("job_id", String(155), ForeignKey("blobferry_jobs.id", ondelete="CASCADE"), nullable=False),
    Column("sequence", Integer, nullable=False, server_default=text("0")),  # of the ends of this job, from 1
    words("kind", 16, "task"),  # what the receiver is: task, webhook
    # what it is told, as it was at that end: a retry changes the job's row
    words("job_state", 16, ""),
    Column("size", BIG_INTEGER),
    Column("error_code", String(64)),
    Column("error_message", Text),
    clock("ended_at"),
    # how far it has got
    words("state", 16, "due"),  # of a task due, of a webhook waiting; delivered, given_up, gone
    clock("due_at"),
    count("tries"),
    time("delivered_at"),
    # of a webhook
    Column("url", Text),  # sealed if it holds a secret and the worker has a key
    Column("endpoint", Text),  # the same without its secrets, for display
    Column("host", String(255)),  # of the URL: no host takes all threads of a worker
    Column("secret", String(64)),  # the name of the secrets that sign it
    time("resent_at"),  # its 24 hours begin anew
    time("tried_at"),
    Column("status", Integer),  # of the last answer; null: there was none
    Column("error", Text),  # why the last try has failed
    _index("due", "due_at", where=DUE_DELIVERY),
    _index("waiting", "due_at", where=WAITING_WEBHOOK),
    _index("failed", "id", where=FAILED_DELIVERY),
    Index("ix_blobferry_deliveries_job_id", "job_id"),
    sqlite_autoincrement=True,
)

#: What every delivery keeps of its job as it was at the end.
AT_THE_END: Final[Mapping[str, Any]] = {
    "job_id": jobs.c.id,
    "sequence": jobs.c.ends,
    "job_state": jobs.c.state,
    "size": jobs.c.size,
    "error_code": jobs.c.error_code,
    "error_message": jobs.c.error_message,
    "ended_at": jobs.c.finished_at,
}
#: The states of a delivery that is still to be made.
UNTOLD: Final = ("due", "waiting")

#: How far each listener has read the feed of ended jobs.
listeners = Table(
    "blobferry_listeners",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("position", Text),  # the cursor; null: from the beginning
    clock("updated_at"),
)


class ending_number(FunctionElement[int]):
    """The number of the transaction that ends a job, for the column ``ended_in``.

    On PostgreSQL its transaction id: given before the COMMIT, so readers compare it with snapshots
    (:mod:`blobferry.jobs.end_feed`). On SQLite, which has one writer at a time, a number above all earlier ones; also
    above those of pruned rows, since it is at least the clock in milliseconds.
    """

    type = BIG_INTEGER
    inherit_cache = True


@compiles(ending_number)
def _postgresql_number(element: ending_number, compiler: Any, **kwargs: Any) -> str:
    return "CAST(CAST(pg_current_xact_id() AS text) AS bigint)"


@compiles(ending_number, "sqlite")
def _sqlite_number(element: ending_number, compiler: Any, **kwargs: Any) -> str:
    last = "SELECT max(ended_in) FROM blobferry_jobs WHERE ended_in IS NOT NULL"
    clock_ms = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
    return f"max(coalesce(({last}), 0) + 1, {clock_ms})"
