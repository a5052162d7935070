"""SQLAlchemy engines on Django's own connections: every statement goes through Django's cursor, in its transaction.

So there is one truth for the SQL, and the rows of jobs are part of ``atomic`` blocks, of the transactions of tests, of
``connection.queries`` and ``assertNumQueries`` like any other rows.

A transaction of such an engine is an ``atomic`` block, a savepoint if another one is open. A connection in AUTOCOMMIT
opens none: its statements belong to the block that is open, if one is.
"""

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, Final
from zoneinfo import ZoneInfo

from django import db
from django.db.transaction import Atomic, TransactionManagementError
from sqlalchemy import DateTime, Engine, create_engine, event
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.dialects.sqlite import DATETIME
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.engine.interfaces import IsolationLevel
from sqlalchemy.pool import NullPool

from blobferry.errors import ConfigurationError
from blobferry.jobs.open_blocks import JOINED

#: What SQLAlchemy asks of a driver. The errors are those that Django's cursors raise.
_DJANGO: Final = SimpleNamespace(
    Error=db.Error,
    Binary=bytes,
    paramstyle="format",
    sqlite_version_info=sqlite3.sqlite_version_info,
)


def joined_engine(alias: str) -> Engine:
    """The engine of the database with this alias in DATABASES. It opens no connection of its own.

    Raises ConfigurationError for an unknown alias, or a database that is neither PostgreSQL nor SQLite.
    """
    try:
        vendor = db.connections[alias].vendor
    except db.utils.ConnectionDoesNotExist:
        known = ", ".join(sorted(db.connections))
        problem = f"{alias!r} is not in DATABASES; there are: {known}"
        raise ConfigurationError("BLOBFERRY['DATABASE']", problem) from None
    if vendor not in ("postgresql", "sqlite"):
        problem = f"DATABASES[{alias!r}] is {vendor}; only PostgreSQL and SQLite are supported"
        raise ConfigurationError("BLOBFERRY['DATABASE']", problem)
    return _engine(alias, vendor)


@lru_cache
def _engine(alias: str, vendor: str) -> Engine:
    engine = create_engine(
        f"{vendor}+{JOINED}://",
        creator=lambda: JoinedConnection(db.connections[alias]),  # that of this thread or task
        module=_DJANGO,
        poolclass=NullPool,
        pool_reset_on_return=None,
        hide_parameters=True,  # a source URL may hold a signature
    )
    event.listen(engine, "handle_error", _leave_to_django)
    return engine


def _leave_to_django(context: ExceptionContext) -> None:
    """An error of how transactions are used is Django's to explain."""
    if isinstance(context.original_exception, TransactionManagementError):
        raise context.original_exception


class _RolledBack(Exception):
    """Tells an atomic block that it ends in an error."""


class JoinedConnection:
    """Django's connection, as SQLAlchemy expects one of a driver to be."""

    def __init__(self, connection: Any) -> None:
        if not connection.in_atomic_block and connection.errors_occurred:
            connection.close_if_unusable_or_obsolete()  # Django itself does so between two requests only
        connection.validate_no_broken_transaction()
        self.django = connection
        self.is_autocommit = False
        self._blocks: list[Atomic] = []

    @property
    def in_transaction(self) -> bool:
        """Whether an atomic block is open."""
        return bool(self.django.in_atomic_block)

    def cursor(self) -> Any:
        """A cursor of Django's."""
        cursor = self.django.cursor()
        if self.django.vendor == "postgresql" and self.django.timezone is None:
            return _ZonedCursor(cursor, ZoneInfo(self.django.timezone_name))
        return cursor

    def begin(self) -> None:
        """Enter an atomic block, unless in AUTOCOMMIT."""
        if not self.is_autocommit:
            block = Atomic(self.django.alias, savepoint=True, durable=False)
            block.__enter__()
            self._blocks.append(block)

    def commit(self) -> None:
        """Leave the block that ``begin`` has entered."""
        if self._blocks:
            self._blocks.pop().__exit__(None, None, None)

    def rollback(self) -> None:
        """Roll back to where ``begin`` was; nothing outside of such a block, which is Django's to end."""
        if self._blocks:
            error = _RolledBack()
            self._blocks.pop().__exit__(_RolledBack, error, None)

    def close(self) -> None:
        """Nothing: Django closes it."""


class _ZonedCursor:
    """A cursor of a project with USE_TZ = False, where Django cuts off the zone of times: it brings the zone back."""

    def __init__(self, cursor: Any, zone: ZoneInfo) -> None:
        self._cursor, self._zone = cursor, zone

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def fetchone(self) -> Any:
        row = self._cursor.fetchone()
        return None if row is None else self._zoned(row)

    def fetchmany(self, *size: int) -> list[Any]:
        return [self._zoned(row) for row in self._cursor.fetchmany(*size)]

    def fetchall(self) -> list[Any]:
        return [self._zoned(row) for row in self._cursor.fetchall()]

    def _zoned(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        zone = self._zone
        return tuple(
            value.replace(tzinfo=zone).astimezone(UTC) if isinstance(value, datetime) and not value.tzinfo else value
            for value in row
        )


class _Joined(DefaultDialect):
    """What both dialects do alike: begin and end blocks of Django's, and ask the database for nothing on the side."""

    driver = JOINED
    default_isolation_level: IsolationLevel = "READ COMMITTED"  # whatever it is that Django has set

    def initialize(self, connection: Any) -> None: ...

    def do_begin(self, dbapi_connection: Any) -> None:
        dbapi_connection.begin()

    def do_commit(self, dbapi_connection: Any) -> None:
        dbapi_connection.commit()

    def do_rollback(self, dbapi_connection: Any) -> None:
        dbapi_connection.rollback()

    def get_isolation_level_values(self, dbapi_conn: Any) -> Sequence[IsolationLevel]:
        return ("AUTOCOMMIT", "READ COMMITTED")

    def get_isolation_level(self, dbapi_connection: Any) -> IsolationLevel:
        return "AUTOCOMMIT" if dbapi_connection.is_autocommit else "READ COMMITTED"

    def set_isolation_level(self, dbapi_connection: Any, level: IsolationLevel) -> None:
        dbapi_connection.is_autocommit = level == "AUTOCOMMIT"

    def reset_isolation_level(self, dbapi_connection: Any) -> None:
        dbapi_connection.is_autocommit = False


class JoinedPostgresql(_Joined, PGDialect):
    """PostgreSQL, through whichever driver Django uses."""

    supports_statement_cache = True
    use_insertmanyvalues = True


class _SqliteTime(DATETIME):
    """Django's connections parse columns that are declared as DATETIME, and no other expressions."""

    def result_processor(self, dialect: Any, coltype: object) -> Any:
        parse: Any = super().result_processor(dialect, coltype)
        return lambda value: parse(value) if isinstance(value, str) else value


class JoinedSqlite(_Joined, SQLiteDialect):
    """SQLite."""

    supports_statement_cache = True
    colspecs: dict[Any, Any] = {**SQLiteDialect.colspecs, DateTime: _SqliteTime}  # noqa: RUF012 - as in its base


registry.register(f"postgresql.{JOINED}", __name__, "JoinedPostgresql")
registry.register(f"sqlite.{JOINED}", __name__, "JoinedSqlite")
