"""A long backlog on PostgreSQL: many sweepers publish no more than one."""

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from models import Database, queries
from tests.models.rows import at_once, in_transaction

ROWS = 20_000

LIMIT = 8

DAY = 24 * 3600.0
QUEUED = """
INSERT INTO blobferry_jobs (id, operation, path, source, request, priority, state)
SELECT 'queued-' || n, 'write_stream', '/a/' || n, 'file:///srv/a', '{"path": "/a", "source": "file:///srv/a"}',
       n % 10, 'queued'
FROM generate_series(1, :rows) AS n
"""


@pytest.fixture(scope="module")
def filled(migrated_postgres: Database) -> Iterator[Database]:
    """A database with many queued jobs, of which it has statistics; emptied in the end."""
    empty(migrated_postgres)
    with migrated_postgres.begin() as session:
        for statement in (QUEUED,):
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
