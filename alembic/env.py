"""Runs migrations, from `python -m worker migrate` or from the `alembic` command.

Blobferry's tables share a database with the web app's, so only tables whose names begin with ``blobferry_`` are
compared, and the version table has a name of its own.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, event, inspect, text
from sqlalchemy.exc import OperationalError

from blobferry.errors import ConfigurationError, UnreachableError
from blobferry.sql.database import open_engine
from blobferry.sql.revision import MIGRATION_LOCK
from blobferry.sql.tables import VERSION_TABLE
from models import Base
from worker.settings import load_settings

LOCK_POLL = 0.2  # seconds between two tries to get it
#: While a migration waits for a table, every query of that table waits behind it: a heartbeat too.
TABLE_TIMEOUT = "200ms"
TABLE_PAUSE = 0.5  # seconds between two tries to get all tables of a migration
TABLE_PATIENCE = 300  # seconds
BUSY = ("55P03", "40P01")  # Source: PostgreSQL, "Error Codes": lock_not_available, deadlock_detected


def include_name(name: str | None, kind: str, parents: Any) -> bool:
    """Leave the web app's own tables alone."""
    return kind != "table" or bool(name and name.startswith("blobferry_") and name != VERSION_TABLE)


def include_object(thing: Any, name: str | None, kind: str, reflected: bool, other: Any) -> bool:
    """Compare all but one index: SQLite does not report its descending column."""
    return kind != "index" or name != "ix_blobferry_jobs_best" or context.get_bind().dialect.name != "sqlite"


@contextmanager
def alone(engine: Engine) -> Iterator[None]:
    """Hold the lock of migrations; a concurrent call waits. It belongs to a transaction, as poolers need.

    The lock is asked for again and again: a CREATE INDEX CONCURRENTLY would wait for a transaction that waits here.
    """
    if engine.dialect.name != "postgresql":
        yield
        return
    with engine.connect() as connection:
        # At another level the transaction would keep a snapshot, and hold up CONCURRENTLY as well.
        holder = connection.execution_options(isolation_level="READ COMMITTED")
        while True:
            holder.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            # No parameter: psycopg would make a portal, whose snapshot holds up CONCURRENTLY, too.
            if holder.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock({MIGRATION_LOCK})").scalar():
                break
            holder.rollback()
            time.sleep(LOCK_POLL)
        yield


def migrate(connection: Connection) -> None:
    """Run the migrations on one connection, each in a transaction of its own; repeat one that finds a table in use."""
    if connection.dialect.name == "postgresql":
        # Not our own autocommit: after CONCURRENTLY Alembic would go back to it for all migrations that follow.
        connection.execution_options(isolation_level="READ COMMITTED")
        event.listen(connection, "begin", wait_briefly_for_tables)
    ends_at = time.monotonic() + TABLE_PATIENCE
    while True:
        try:
            run_migrations(connection)
            return
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) not in BUSY:
                raise
            if time.monotonic() > ends_at:
                problem = (
                    f"a table has been in use by another transaction for {TABLE_PATIENCE} s: end it (see the view "
                )
                raise UnreachableError(f"database: {problem}pg_stat_activity), then run this again") from error
        connection.rollback()
        time.sleep(TABLE_PAUSE)


def refuse_tables_of_others(connection: Connection) -> None:
    """Raise ConfigurationError if our tables were made by other migrations, which then have to go on with them."""
    ours = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    if not ours.get_current_heads() and inspect(connection).has_table("blobferry_jobs"):
        problem = (
            f"has Blobferry's tables, and {VERSION_TABLE} does not say so: they were made by the migrations of your "
            "app; bring them up to date by these, as in: alembic upgrade blobferry@head"
        )
        raise ConfigurationError("database_url", problem)
    connection.rollback()


def wait_briefly_for_tables(connection: Connection) -> None:
    """Let the transaction that begins give up soon if a table is in use."""
    if connection.get_isolation_level() != "AUTOCOMMIT":  # CONCURRENTLY waits, and nobody waits for it
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{TABLE_TIMEOUT}'")


def run_migrations(connection: Connection) -> None:
    """Run those that the database has not seen. Raises the error of the first that fails, which leaves nothing."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        version_table=VERSION_TABLE,
        include_name=include_name,
        include_object=include_object,
        render_as_batch=connection.dialect.name == "sqlite",
        transaction_per_migration=True,
        user_module_prefix="clock.",
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    raise SystemExit("alembic: --sql is not supported, run the migrations on a database")
url = context.config.get_main_option("sqlalchemy.url") or load_settings().database_url.get_secret_value()
engine = open_engine(url)
try:
    with alone(engine), engine.connect() as connection:
        refuse_tables_of_others(connection)
        migrate(connection)
finally:
    engine.dispose()
