"""Connections to the index, which any thread may borrow and no fork takes along.

SQLite's locks belong to a process, and it counts them in memory: a forked child would count its parent's as its own.
So a fork waits until no connection is in use and closes all of them. Parent and child then open new ones.
"""

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_Idle = list[tuple[sqlite3.Connection, os.stat_result]]  # each with the file that it has open
_gate = threading.Condition()
_users = 0  #: threads that no fork may interrupt now
_pools: "weakref.WeakSet[Connections]" = weakref.WeakSet()


class Connections:
    """Those to one database, kept open between calls."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._idle: _Idle = []
        weakref.finalize(self, _close_all, self._idle)
        with _gate:
            _pools.add(self)

    def close(self) -> None:
        """Close the connections that are not in use."""
        _close_all(self._idle)

    @contextmanager
    def lease(self) -> Iterator[sqlite3.Connection]:
        """A connection for this thread alone, to the file that is there now. Call it within :func:`no_fork`."""
        found = os.stat(self._path)
        with _gate:
            while self._idle and not os.path.samestat(self._idle[-1][1], found):
                self._idle.pop()[0].close()
            idle = self._idle.pop()[0] if self._idle else None
        db = idle or self.open("mode=rw")
        try:
            yield db
        finally:
            with _gate:
                self._idle.append((db, found))

    def open(self, mode: str) -> sqlite3.Connection:
        """A new connection that is the caller's to close. ``mode``: what the URI asks for."""
        uri = f"{Path(self._path).absolute().as_uri()}?{mode}"
        db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=60)
        db.execute("PRAGMA synchronous = FULL")  # a commit is on the disk when it returns
        return db


@contextmanager
def no_fork() -> Iterator[None]:
    """Let forks wait until the end."""
    global _users
    with _gate:
        _users += 1
    try:
        yield
    finally:
        with _gate:
            _users -= 1
            _gate.notify_all()


def _close_all(idle: _Idle) -> None:
    with _gate:
        while idle:
            idle.pop()[0].close()


def _before_fork() -> None:
    _gate.acquire()
    _gate.wait_for(lambda: not _users)
    for pool in list(_pools):
        pool.close()


os.register_at_fork(before=_before_fork, after_in_parent=_gate.release, after_in_child=_gate.release)
