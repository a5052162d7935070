"""Connections to SQLite: which commits survive a power cut, and how writers wait for each other.

In WAL mode with ``synchronous = NORMAL`` a commit survives the end of every process, kill -9 included, and a power cut
never damages the database, but it may lose the last commits. What must not be lost is written to the disk after its
commit, when the lock has been released: other writers do not wait for the disk, and one write serves all commits
before it, since the log is one file.
"""

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.orm import Session

BUSY_TIMEOUT: Final = 15.0  #: seconds that SQLite waits for another writer
SHORTEST_WAIT: Final = 0.0005  #: seconds between two tries to begin; SQLite's own pauses grow to 0.1 s
LONGEST_WAIT: Final = 0.005
_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def write_to_disk(path: str) -> None:
    """Return once the log of the database at ``path`` is on the disk. Without WAL there is none, and commits wait."""
    with suppress(FileNotFoundError):
        log = os.open(f"{path}-wal", os.O_RDWR)
        try:
            os.fdatasync(log)
        finally:
            os.close(log)


class SqliteConnection(sqlite3.Connection):
    """A connection whose commits survive a power cut: all, or those of transactions that ask for it."""

    all_survive = True
    #: Told the path of the database after a commit that must survive.
    sync: Callable[[str], None] = staticmethod(write_to_disk)

    def __init__(self, database: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(database, *args, **kwargs)
        self._path = os.fspath(database)
        self._must_survive = False
        self._changes = 0

    def keep(self) -> None:
        """Let the commit of this transaction survive a power cut."""
        self._must_survive = True

    def commit(self) -> None:
        """Commit; return once what must survive is on the disk."""
        super().commit()
        must_survive, self._must_survive = self._must_survive or self.all_survive, False
        before, self._changes = self._changes, self.total_changes
        if must_survive and self._changes != before:
            self.sync(self._path)

    def rollback(self) -> None:
        """Roll back."""
        super().rollback()
        self._must_survive = False
        self._changes = self.total_changes


def must_survive(connection: Connection | Session) -> None:
    """Let the commit of this transaction survive a power cut, on whatever database it is.

    Those that go without it may be lost by design: each is done again, or found in the store.
    """
    found = connection.connection() if isinstance(connection, Session) else connection
    if found.dialect.name == "sqlite":
        raw = found.connection.driver_connection
        if isinstance(raw, SqliteConnection):  # otherwise the app has opened it, and the app decides
            raw.keep()


def begin_immediate(connection: Connection) -> None:
    """Begin a transaction that may write, once no other one does. Raises OperationalError after ``BUSY_TIMEOUT``.

    Its tries are a fraction of a transaction apart, so whoever waits has an equal chance; SQLite's own wait sleeps for
    longer and longer, while later writers pass.
    """
    raw: Any = connection.connection.driver_connection
    began = time.monotonic()
    raw.execute("PRAGMA busy_timeout = 0")
    try:
        while True:
            try:
                raw.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                waited = time.monotonic() - began
                if error.sqlite_errorcode & 0xFF not in _BUSY or waited > BUSY_TIMEOUT:
                    break
            time.sleep(min(LONGEST_WAIT, SHORTEST_WAIT + waited / 20))
    finally:
        raw.execute("PRAGMA busy_timeout = 15000")  # milliseconds; for statements outside of such a transaction
    connection.exec_driver_sql("BEGIN IMMEDIATE")  # once more, by SQLAlchemy, whose errors callers know
