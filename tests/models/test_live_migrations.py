"""Migrations of a PostgreSQL in use: no submit, no heartbeat and no claim waits for one."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, event, inspect, make_url, text

from blobferry.sql.database import open_engine
from dev.services import Postgres, postgres_database
from dev.waiting import wait_until
from tests.conftest import alembic_config

ALEMBIC_INI = Path(__file__).resolve().parents[2] / "alembic.ini"
LATER = [script.revision for script in ScriptDirectory(str(ALEMBIC_INI.parent / "alembic")).walk_revisions()][-2::-1]
#: What a client, a run and a claim write, in columns that every revision has.
SUBMIT = "INSERT INTO blobferry_jobs (id, path) VALUES (gen_random_uuid()::text, '/new')"
HEARTBEAT = "UPDATE blobferry_jobs SET lease_expires_at = now() + interval '30 s' WHERE id = 'running'"
CLAIM = "UPDATE blobferry_jobs SET state = 'running', token = token + 1 WHERE id = 'queued'"
TAKE_PATH = "INSERT INTO blobferry_path_locks (bucket, path, job_id) VALUES ('b', gen_random_uuid()::text, 'queued')"
HISTORY = "UPDATE blobferry_attempts SET bytes_sent = bytes_sent + 1 WHERE job_id = 'running'"


@pytest.fixture
def url(postgres_server: Postgres) -> Iterator[str]:
    """A database at the first revision, with two jobs."""
    with postgres_database(postgres_server) as url:
        command.upgrade(alembic_config(url), "0001")
        with connected(url) as connection:
            connection.execute(
                "INSERT INTO blobferry_jobs (id, state) VALUES ('running', 'running'), ('queued', 'queued')"
            )
            connection.execute("INSERT INTO blobferry_attempts (job_id, attempt) VALUES ('running', 1)")
        yield url


def connected(url: str) -> "psycopg.Connection[tuple[object, ...]]":
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(plain, autocommit=True)


def probe(url: str) -> None:
    """Submit, renew, claim. Raises LockNotAvailable if one waits for longer than a second."""
    with connected(url) as connection:
        connection.execute("SET lock_timeout = '1s'")
        for statement in (SUBMIT, HEARTBEAT, CLAIM, TAKE_PATH, HISTORY):
            connection.execute(statement)


def test_no_migration_makes_or_drops_an_index_of_an_old_table_within_a_transaction(url: str) -> None:
    statements = list[str]()

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    engine = open_engine(url)
    old = inspect(engine).get_table_names()
    engine.dispose()
    event.listen(Engine, "before_cursor_execute", note)
    try:
        command.upgrade(alembic_config(url), "head")
        command.downgrade(alembic_config(url), "0001")
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    of_old_tables = "|".join(old)
    indexing = [one for one in statements if re.search(rf"CREATE .*INDEX .* ON ({of_old_tables})\b|DROP INDEX", one)]
    assert indexing, "else this test sees nothing"
    assert [one for one in indexing if "CONCURRENTLY" not in one] == []


def test_a_migration_that_waits_for_a_table_keeps_nobody_else_waiting(url: str) -> None:
    """An app submits in a long transaction of its own; ALTER TABLE waits for it, and all others behind ALTER TABLE."""
    with connected(url) as app, connected(url) as observer:
        app.execute("BEGIN")
        app.execute(SUBMIT)
        migration = threading.Thread(target=command.upgrade, args=(alembic_config(url), "head"))
        migration.start()
        try:
            waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'ALTER TABLE%'"
            for _ in range(3):  # it tries again and again
                wait_until(lambda: observer.execute(waiting).fetchone(), 30, "a migration that waits", 0.01)
                probe(url)
        finally:
            app.execute("COMMIT")
            migration.join()
    engine = open_engine(url)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM blobferry_alembic_version")) == LATER[-1]
    engine.dispose()


def test_a_migration_that_was_cut_off_in_its_middle_is_repeated(url: str) -> None:
    command.upgrade(alembic_config(url), "0003")
    with connected(url) as connection:
        connection.execute("UPDATE blobferry_alembic_version SET version_num = '0002'")
        connection.execute("DROP INDEX ix_blobferry_jobs_source")
        connection.execute("ALTER INDEX ix_blobferry_jobs_best RENAME TO ix_blobferry_jobs_best_new")
        connection.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_blobferry_jobs_path'::regclass"
        )
        command.upgrade(alembic_config(url), "head")
        command.check(alembic_config(url))
        assert connection.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid").fetchone() == (0,)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_300_000_rows_are_migrated_while_jobs_are_submitted_renewed_and_claimed(url: str) -> None:
    with connected(url) as connection:
        connection.execute(
            "INSERT INTO blobferry_jobs (id, path, state, source) "
            "SELECT 'job-' || n, '/many/' || n, CASE WHEN n % 3 = 0 THEN 'queued' ELSE 'succeeded' END, 'file:///f' "
            "FROM generate_series(1, 300000) n"
        )
    for revision in LATER:
        migration = threading.Thread(target=command.upgrade, args=(alembic_config(url), revision))
        migration.start()
        while migration.is_alive():
            probe(url)
        migration.join()
    command.check(alembic_config(url))
