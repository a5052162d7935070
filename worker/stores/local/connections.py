"""Connections to the index, which any thread may borrow and no fork takes along."""

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blobferry.sql.sqlite_forks import close_before_forks

_Idle = list[tuple[sqlite3.Connection, os.stat_result]]  # each with the file that it has open


class Connections:
    """Those to one database, kept open between calls."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._idle: _Idle = []
        self._lock = threading.RLock()
        weakref.finalize(self, _close_all, self._idle)
        close_before_forks(self.close)

    def close(self) -> None:
        """Close the connections that are not in use."""
        with self._lock:
            _close_all(self._idle)

    @contextmanager
    def lease(self) -> Iterator[sqlite3.Connection]:
        """A connection for this thread alone, to the file that is there now. Call it within ``no_fork``."""
        found = os.stat(self._path)
        with self._lock:
            while self._idle and not os.path.samestat(self._idle[-1][1], found):
                self._idle.pop()[0].close()
            idle = self._idle.pop()[0] if self._idle else None
        db = idle or self.open("mode=rw")
        try:
            yield db
        finally:
            with self._lock:
                self._idle.append((db, found))

    def open(self, mode: str) -> sqlite3.Connection:
        """A new connection that is the caller's to close. ``mode``: what the URI asks for."""
        uri = f"{Path(self._path).absolute().as_uri()}?{mode}"
        db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=60)
        db.execute("PRAGMA synchronous = FULL")  # a commit is on the disk when it returns
        return db


def _close_all(idle: _Idle) -> None:
    while idle:
        idle.pop()[0].close()
