"""Engines for PostgreSQL and SQLite that behave alike. Creating one opens no connection."""

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from blobferry.errors import ConfigurationError, UnreachableError
from blobferry.sql.database_url import parse_url
from blobferry.sql.idle_connections import replace_lost_connections
from blobferry.sql.sqlite_connection import BUSY_TIMEOUT, SqliteConnection, begin_immediate
from blobferry.sql.sqlite_forks import SqlitePool, close_before_forks

READ_ONLY: Final = "25006"  #: Source: PostgreSQL, "Error Codes", read_only_sql_transaction
CONNECT_TIMEOUT: Final = 5  #: seconds to reach PostgreSQL

_END_WHEN_IDLE: Final = "SET LOCAL idle_in_transaction_session_timeout = 10000"  # milliseconds
_MIGRATE: Final = " (run `blobferry-worker migrate`, or in a checkout `python -m worker migrate`, on this database)"
_BEGIN: Final = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = 10000"  # psycopg sends both at once


def chosen_engine(database_url: str | None, engine: Engine | None) -> Engine:
    """The app's own engine, or one for the URL. Raises ConfigurationError unless exactly one of them can be used."""
    if (database_url is None) == (engine is None):
        raise ConfigurationError("database_url", "give either database_url or engine")
    if engine is None:
        return open_engine(str(database_url))
    if not isinstance(engine, Engine):
        problem = "give database_url instead, for a synchronous engine, or use blobferry.AsyncClient(engine=…)"
        raise ConfigurationError("engine", f"needs an Engine, got {type(engine).__name__}: {problem}")
    return engine


_engines: "weakref.WeakSet[Engine]" = weakref.WeakSet()


def open_engine(url: str, *, pool_size: int = 5, all_survive: bool = True) -> Engine:
    """An engine for a database URL, whichever driver it names; see :mod:`blobferry.sql.database_url`.

    On PostgreSQL nothing outlives a transaction on the server's side, no prepared statement and no SET, so that it may
    be PgBouncer that answers, in transaction mode.

    On SQLite it uses WAL and begins every transaction with BEGIN IMMEDIATE; otherwise a transaction that reads first
    and writes later fails with SQLITE_BUSY, whatever the timeout. Each commit survives a power cut; without
    ``all_survive`` only those of transactions that call ``must_survive`` do. Safe across fork.
    """
    parsed = parse_url(url)
    is_sqlite = parsed.get_backend_name() == "sqlite"
    factory = {"timeout": BUSY_TIMEOUT, "factory": SqliteConnection}
    options: dict[str, Any] = {"connect_args": factory, "poolclass": SqlitePool}
    if not is_sqlite:
        timeouts = {
            "connect_timeout": CONNECT_TIMEOUT,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "tcp_user_timeout": 15_000,
            "target_session_attrs": "read-write",  # not a standby, after a failover
            "autocommit": True,  # psycopg's own BEGIN would be one more round trip
            "prepare_threshold": None,  # a pooler gives the next transaction another server connection
        }
        options = {"pool_size": pool_size, "connect_args": timeouts}
    engine = create_engine(parsed, hide_parameters=True, **options)  # a source URL may hold a signature
    if is_sqlite:
        event.listen(engine, "connect", partial(_configure_sqlite, all_survive=all_survive))
        event.listen(engine, "begin", _begin_immediate)
        close_before_forks(engine.dispose)
    else:
        replace_lost_connections(engine)
        event.listen(engine, "begin", _begin_not_to_idle)
        event.listen(engine, "handle_error", _drop_read_only_connection)
    _engines.add(engine)
    return engine


@contextmanager
def reachable() -> Iterator[None]:
    """Raise UnreachableError, with advice, if the database is away or lacks the tables."""
    try:
        yield
    except DBAPIError as error:
        # SQLite raises DatabaseError itself for a file that is not a database.
        away = isinstance(error, (OperationalError, ProgrammingError)) or type(error) is DatabaseError
        if not away and not error.connection_invalidated:
            raise
        raise UnreachableError(f"database: {_reason(error)}") from error
    except PoolTimeoutError as error:
        raise UnreachableError(f"database: all connections of the pool are in use: {error}") from error


@contextmanager
def tables_are_there() -> Iterator[None]:
    """Raise UnreachableError, with advice, if the database lacks the tables. In the transaction of somebody else, whose
    other errors are his own.
    """
    try:
        yield
    except DBAPIError as error:
        reason = _reason(error)
        if not (reason.endswith(_MIGRATE) and ("does not exist" in reason or "no such table" in reason)):
            raise
        raise UnreachableError(f"database: {reason}") from error


def _reason(error: DBAPIError) -> str:
    reason = (str(error.orig).strip() or repr(error.orig)).splitlines()[0]
    return reason + _MIGRATE if "blobferry_" in reason else reason


def _begin_not_to_idle(connection: Connection) -> None:
    # A host cut off in the middle of a transaction keeps its rows locked until TCP gives up, after minutes or hours.
    # Blobferry's own transactions never idle: they wait for the database only.
    # LOCAL, since behind a pooler the session is also that of other programs.
    if _is_autocommit(connection):
        return
    driver: Any = connection.connection.dbapi_connection
    if driver.autocommit:
        connection.exec_driver_sql(_BEGIN)
    else:  # it was in AUTOCOMMIT before, and its dialect has taken it back to psycopg's default: that begins by itself
        connection.exec_driver_sql(_END_WHEN_IDLE)


def _drop_read_only_connection(context: ExceptionContext) -> None:
    # The server has become a standby; a new connection may reach the new primary.
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True


def _configure_sqlite(connection: Any, record: Any, *, all_survive: bool) -> None:
    connection.all_survive = all_survive
    connection.isolation_level = None  # the driver's own BEGIN is deferred, and comes too late
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")  # see sqlite_connection
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    if not _is_autocommit(connection):
        begin_immediate(connection)


def _is_autocommit(connection: Connection) -> bool:
    return connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"


def _forget_parents_connections() -> None:
    # Not close: that would end the parent's session. Not reuse: two processes would share one connection.
    for engine in list(_engines):
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_forget_parents_connections)
