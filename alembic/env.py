"""Runs migrations, from `python -m worker migrate` or from the `alembic` command.

Blobferry's tables share a database with the web app's, so only tables whose names begin with ``blobferry_`` are
compared, and the version table has a name of its own.
"""

from typing import Any

from alembic import context
from sqlalchemy import Connection, text

from blobferry.sql.database import open_engine
from blobferry.sql.tables import VERSION_TABLE
from models import Base
from worker.settings import load_settings

LOCK_TIMEOUT = "5s"  # a migration that waits for a lock blocks every query that queues behind it
MIGRATION_LOCK = 0x626C6F62  # an arbitrary constant; "blob"


def include_name(name: str | None, kind: str, parents: Any) -> bool:
    """Leave the web app's own tables alone."""
    return kind != "table" or bool(name and name.startswith("blobferry_") and name != VERSION_TABLE)


def include_object(thing: Any, name: str | None, kind: str, reflected: bool, other: Any) -> bool:
    """Compare all but one index: SQLite does not report its descending column."""
    return kind != "index" or name != "ix_blobferry_jobs_best" or context.get_bind().dialect.name != "sqlite"


def migrate(connection: Connection) -> None:
    """Run the migrations on one connection, each in its own transaction. On PostgreSQL, a concurrent call waits."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": MIGRATION_LOCK})
        connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
        connection.commit()
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
with engine.connect() as connection:
    migrate(connection)
engine.dispose()
