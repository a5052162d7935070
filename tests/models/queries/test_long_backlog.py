"""A long backlog on PostgreSQL: a sweep reads indexes only, and many sweepers publish no more than one."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from models import Database, queries
from tests.models.rows import RETENTION, at_once, in_transaction

ROWS = 20_000

LIMIT = 8

DAY = 24 * 3600.0
QUEUED = """
INSERT INTO blobferry_jobs (id, operation, path, source, request, priority, state)
SELECT 'queued-' || n, 'write_stream', '/a/' || n, 'file:///srv/a', '{"path": "/a", "source": "file:///srv/a"}',
       n % 10, 'queued'
FROM generate_series(1, :rows) AS n
"""


FINISHED = """
INSERT INTO blobferry_jobs (id, operation, path, state, finished_at)
SELECT 'finished-' || n, 'write_stream', '/a', 'succeeded', now() - interval '1 day' - n * interval '1 second'
FROM generate_series(1, :rows) AS n
"""


@pytest.fixture(scope="module")
def filled(migrated_postgres: Database) -> Iterator[Database]:
    """A database with many queued and many finished jobs, of which it has statistics; emptied in the end."""
    empty(migrated_postgres)
    with migrated_postgres.begin() as session:
        for statement in (QUEUED, FINISHED):
            session.execute(text(statement), {"rows": ROWS})
    with migrated_postgres.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE"))
    yield migrated_postgres
    empty(migrated_postgres)


def empty(database: Database) -> None:
    with database.begin() as session:
        for table in ("jobs", "tombstones"):
            session.execute(text(f"DELETE FROM blobferry_{table}"))


@pytest.fixture
def backlog(filled: Database) -> Database:
    """The same, with nothing published yet."""
    with filled.begin() as session:
        session.execute(text("UPDATE blobferry_jobs SET published_at = NULL WHERE published_at IS NOT NULL"))
    return filled


def statements_of(database: Database, work: Callable[[Session], object]) -> list[tuple[str, Any]]:
    """All that the work asks about jobs, as it goes out; nothing of it stays."""
    asked: list[tuple[str, Any]] = []

    def remember(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if "FROM blobferry_jobs" in statement and not many:
            asked.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", remember)
    try:
        with database.begin() as session:
            work(session)
            session.rollback()
    finally:
        event.remove(database.engine, "before_cursor_execute", remember)
    return asked


def scans(database: Database, statement: str, parameters: Any) -> list[tuple[str, str, bool]]:
    """How PostgreSQL looks into the jobs for this statement: each kind of scan, its index, and if it searches that."""
    with database.engine.begin() as connection:
        (answer,) = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).one()
    return list(_scans(answer[0]["Plan"]))


def _scans(plan: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    if plan.get("Relation Name", "blobferry_jobs") == "blobferry_jobs" and "Scan" in plan["Node Type"]:
        yield plan["Node Type"], plan.get("Index Name", ""), "Index Cond" in plan
    for inner in plan.get("Plans", ()):
        yield from _scans(inner)


def prune(session: Session) -> object:
    return queries.prune(session, job_seconds=30 * DAY, tombstone_seconds=90 * DAY, limit=100)


@pytest.mark.parametrize(
    ("work", "index", "searched"),
    [
        (lambda session: queries.jobs_to_publish(session, limit=LIMIT), "ix_blobferry_jobs_best", False),
        (lambda session: queries.jobs_to_publish(session, limit=LIMIT), "ix_blobferry_jobs_oldest", False),
        (
            lambda session: queries.requeue_expired(session, limit=100, failed_upload_seconds=RETENTION),
            "ix_blobferry_jobs_lease_expires_at",
            True,
        ),
        (queries.seconds_to_next_run, "ix_blobferry_jobs_run_at", True),
        (prune, "ix_blobferry_jobs_finished_at", True),
    ],
    ids=["the best", "the oldest", "dead runs", "the next run", "pruning"],
)
def test_a_sweep_over_a_long_backlog_reads_an_index_and_never_the_whole_table(
    work: Callable[[Session], object], index: str, searched: bool, backlog: Database
) -> None:
    asked = statements_of(backlog, work)
    assert asked
    plans = [scans(backlog, *statement) for statement in asked]
    assert "Seq Scan" not in {kind for plan in plans for kind, _, _ in plan}
    assert (index, searched) in {(used, by_value) for plan in plans for _, used, by_value in plan}, plans


def test_four_publishers_at_once_publish_no_more_than_one(backlog: Database) -> None:
    published: list[str] = []
    at_once(
        4,
        lambda number: published.extend(
            job.id for job in in_transaction(backlog, queries.jobs_to_publish, limit=LIMIT)
        ),
    )
    assert len(published) == LIMIT
    assert len(set(published)) == LIMIT
