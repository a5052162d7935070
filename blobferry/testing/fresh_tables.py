"""Our tables in a database of tests, made without Alembic and without a worker."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Connection, Engine, inspect

from blobferry.sql.revision import creation
from blobferry.sql.tables import VERSION_TABLE


def create_tables(bind: Engine | Connection) -> None:
    """Make the tables of jobs, unless they are there: as ``blobferry-worker migrate`` makes them in an empty database.

    Safe to repeat. ``bind``: an engine, on which this is a transaction of its own, or a connection, whose transaction
    it joins.
    """
    if isinstance(bind, Engine):
        with bind.begin() as connection:
            create_tables(connection)
    elif not inspect(bind).has_table(VERSION_TABLE):
        for statement in creation(bind.dialect.name):
            bind.exec_driver_sql(statement)


@contextmanager
def scratch_database_url() -> Iterator[str]:
    """The URL of an SQLite database of its own, in a file that is removed in the end; it has no tables yet."""
    with TemporaryDirectory(prefix="blobferry-test-") as directory:
        yield f"sqlite:///{Path(directory) / 'jobs.db'}"
