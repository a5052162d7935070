"""Databases with 300,000 jobs in every state, and what a statement reads in them: by its plan, and counted."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import event, text
from sqlalchemy.orm import Session

from blobferry.sql.tables import metadata
from models import Database

#: The tables that grow with the number of jobs. The others have a row for each worker or store.
BIG: Final = ("jobs", "uploads", "parts", "attempts", "path_locks", "tombstones", "deliveries")
ROWS_READ: Final = 2_000  #: of one table, by one statement; the largest step of a sweep looks at 500 jobs
STEPS: Final = 150_000  #: of SQLite's virtual machine for one statement; to scan the jobs takes more than a million

#: Rows by table and kind: columns, values, number. ``n`` counts from 1; ``ago(x)`` is a time that many seconds ago.
FILLING: Final = (
    ("finished", "state, started_at, finished_at, created_at, attempt, ends, ended_in",
     "CASE WHEN n % 100 = 0 THEN 'failed' ELSE 'succeeded' END, ago(n), ago(n), ago(n), 1, 1, n", 190_000),
    ("scheduled", "not_before, run_at, priority", "ago(-86400 - n), ago(-86400 - n), n % 3", 60_000),
    ("queued", "priority, attempt", "n % 3, 1", 39_600),
    ("waiting", "waits_for", "'queued-' || n", 5_000),
    ("paused", "state, pause_requested", "'paused', true", 5_000),
    ("published", "published_at", "ago(n % 40)", 400),
    ("running", "state, worker, lease_expires_at, token, attempt", "'running', 'w@h:' || n, ago(-60), 1, 1", 30),
    ("dead", "state, worker, lease_expires_at, token, attempt", "'running', 'x@h:' || n, ago(1), 1, 1", 3),
    ("cancelled", "cancel_requested, attempt", "true, 1", 3),
    ("pausing", "pause_requested, attempt", "true, 1", 3),
    ("overdue", "deadline, attempt", "ago(1), 1", 3),
    ("come", "run_at", "ago(1)", 3),
    ("spooled", "spooled, removes_source, state, finished_at", "'ferry-' || n, true, 'failed', ago(n)", 20_000),
)  # fmt: skip
WEBHOOK: Final = "job_id, sequence, job_state, state, kind, url, endpoint, host, secret"
HOOK: Final = "'webhook', 'https://h/x', 'https://h/x', 'host' || (n % 5), 'default'"
UNSIGNED: Final = "'webhook', 'https://h/x', 'https://h/x', 'h', 'other'"
OTHERS: Final = (
    ("attempts", "job_id, attempt, outcome", "'finished-' || n, 1, 'succeeded'", 40_000),
    ("attempts", "job_id, attempt", "'running-' || n, 1", 30),
    ("uploads", "job_id, key, state", "'finished-' || n, 'f/' || n, CASE n % 2 WHEN 0 THEN 'gone' ELSE 'completed' END",
     40_000),
    ("uploads", "job_id, key, state, recheck_at", "'paused-' || n, 'p/' || n, 'open', ago(-60)", 2_000),
    ("uploads", "job_id, key, state, recheck_at", "'paused-' || n, 'p/' || n, 'open', ago(1)", 3),
    ("uploads", "job_id, key, state", "'finished-' || n, 'f/' || n, 'aborting'", 3),
    ("uploads", "id, job_id, key, state", "1000000 + n, 'running-' || n, 'r/' || n, 'open'", 30),
    ("parts", "upload, part_number", "1000001, n", 50),
    ("parts", "upload, part_number", "1000002, n", 10_000),
    ("parts", "upload, part_number", "n, 1", 20_000),
    ("path_locks", "bucket, path, job_id, is_tree, is_shared", "'b', 'q/' || n, 'queued-' || n, false, false", 20_000),
    ("path_locks", "bucket, path, job_id, is_tree, is_shared", "'b', 'r/' || n, 'running-' || n, false, false", 30),
    ("deliveries", "job_id, sequence, job_state, state", "'finished-' || n, 1, 'succeeded', 'delivered'", 30_000),
    ("deliveries", "job_id, sequence, job_state, due_at", "'finished-' || n, 2, 'failed', ago(-86400)", 5_000),
    ("deliveries", "job_id, sequence, job_state, due_at", "'queued-' || n, 1, 'failed', ago(1)", 100),
    ("deliveries", f"{WEBHOOK}, due_at", f"'finished-' || n, 1, 'succeeded', 'waiting', {HOOK}, ago(-60)", 5_000),
    ("deliveries", f"{WEBHOOK}, due_at", f"'finished-' || n, 1, 'succeeded', 'waiting', {HOOK}, ago(1)", 100),
    ("deliveries", f"{WEBHOOK}, due_at", f"'queued-' || n, 1, 'failed', 'waiting', {UNSIGNED}, ago(1)", 3),
    ("deliveries", WEBHOOK, f"'spooled-' || n, 1, 'failed', 'given_up', {HOOK}", 50),
    ("tombstones", "id, pruned_at", "'gone-' || n, ago(n * 60)", 30_000),
)  # fmt: skip


def fill(database: Database) -> None:
    """Insert the rows. SQLite gets no statistics, as in the life of an app; PostgreSQL takes its own."""
    is_sqlite = database.engine.dialect.name == "sqlite"
    indexes = [index for table in metadata.tables.values() for index in table.indexes]
    with database.begin() as session:
        for index in indexes:  # made anew at the end, which takes less time
            index.drop(session.connection())
        for kind, columns, values, number in FILLING:
            start = f"INSERT INTO blobferry_jobs (operation, source, id, path, {columns}) SELECT 'write_stream', 'file:///f'"
            _insert(session, f"{start}, '{kind}-' || n, '/{kind}/' || n, {values}", number, is_sqlite=is_sqlite)
        for table, columns, values, number in OTHERS:
            _insert(session, f"INSERT INTO blobferry_{table} ({columns}) SELECT {values}", number, is_sqlite=is_sqlite)
        for index in indexes:
            index.create(session.connection())
    if not is_sqlite:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ANALYZE"))


def _insert(session: Session, statement: str, number: int, *, is_sqlite: bool) -> None:
    ago, series = r"clock_timestamp() - make_interval(secs => \1)", f"generate_series(1, {number}) AS n"
    if is_sqlite:
        ago = r"strftime('%Y-%m-%d %H:%M:%f000', 'now', (-(\1)) || ' seconds')"
        counted = f"SELECT 1 AS n UNION ALL SELECT n + 1 FROM counted WHERE n < {number}"
        series = f"(WITH RECURSIVE counted AS ({counted}) SELECT n FROM counted)"
    session.execute(text(f"{re.sub(r'ago.([^()]*).', ago, statement)} FROM {series}".replace(":", r"\:")))


@dataclass
class Reading:
    """What statements have read, and which of them read too much."""

    statements: int = 0
    too_much: list[str] = field(default_factory=list)
    _steps: int = 0
    _latest: str = ""

    def refuse(self, why: str, statement: str) -> None:
        self.too_much.append(f"{why}: {' '.join(statement.split())}")

    def step(self) -> None:
        """SQLite has made another thousand steps for the latest statement."""
        self._steps += 1000
        if self._steps == STEPS:
            self.refuse(f"more than {STEPS} steps", self._latest)

    def begin(self, statement: str) -> None:
        self.statements, self._steps, self._latest = self.statements + 1, 0, statement


@contextmanager
def watched(database: Database) -> Iterator[Reading]:
    """Ask the database about each statement that is executed within the block, right before that."""
    reading = Reading()
    ask = _ask_sqlite if database.engine.dialect.name == "sqlite" else _ask_postgres

    def look(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if "blobferry_" in statement:
            reading.begin(statement)
            ask(
                connection.connection.dbapi_connection,
                statement,
                parameters[0] if isinstance(parameters, list) else parameters,
                reading,
            )

    event.listen(database.engine, "before_cursor_execute", look)
    try:
        yield reading
    finally:
        event.remove(database.engine, "before_cursor_execute", look)


def _ask_sqlite(connection: Any, statement: str, parameters: Any, reading: Reading) -> None:
    connection.set_progress_handler(lambda: reading.step(), 1000)
    for *_, detail in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall():
        if re.match(rf"SCAN blobferry_({'|'.join(BIG)})(?!.* USING )", detail):
            reading.refuse(detail, statement)


def _ask_postgres(connection: Any, statement: str, parameters: Any, reading: Reading) -> None:
    """Execute it, to count rows, and undo that."""
    with connection.cursor() as cursor:
        cursor.execute("SAVEPOINT asked")
        (answer,) = cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).fetchone()
        cursor.execute("ROLLBACK TO SAVEPOINT asked")
    for node in _nodes(answer[0]["Plan"]):
        table = node.get("Relation Name", "").removeprefix("blobferry_")
        removed = (count for name, count in node.items() if name.startswith("Rows Removed by"))
        read = (node["Actual Rows"] + sum(removed)) * node["Actual Loops"]
        is_read = table in BIG or node["Node Type"] == "Bitmap Index Scan"
        if is_read and (node["Node Type"] == "Seq Scan" or read > ROWS_READ):
            reading.refuse(f"{node['Node Type']} of {table or node['Index Name']}, {read:.0f} rows", statement)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from _nodes(inner)


def in_vain(database: Database, work: Callable[[Session], object]) -> None:
    """Do the work in a transaction that is rolled back."""
    with database.begin() as session:
        work(session)
        session.rollback()
