"""Whether a database has all tables and columns that this code knows, whoever migrated it."""

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from blobferry.errors import UnreachableError
from blobferry.sql.database import open_engine, reachable
from blobferry.sql.tables import metadata

#: Source: PostgreSQL, "Error Codes": undefined_table, undefined_column
_LACKS = ("42P01", "42703")


def refuse_unmigrated(url: str) -> None:
    """Raise UnreachableError, with advice, if a table or column is missing. Silent while the database is away."""
    engine = open_engine(url)
    try:
        with reachable(), engine.connect() as connection:
            for table in metadata.sorted_tables:
                connection.execute(select(*table.columns).limit(0))
    except UnreachableError as error:
        if _is_about_tables(error.__cause__):
            raise
    finally:
        engine.dispose()


def _is_about_tables(cause: BaseException | None) -> bool:
    if not isinstance(cause, DBAPIError):
        return False
    return getattr(cause.orig, "sqlstate", None) in _LACKS or str(cause.orig).startswith("no such ")
