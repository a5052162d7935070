"""No fork takes a connection to SQLite along.

SQLite's locks belong to a process, and it counts them in memory: a forked child would count its parent's as its own.
When the parent closes its last connection, it would remove the log to which the child still commits. So a fork waits
until no connection is in use, and closes those that are idle. Parent and child then open new ones. A thread that is
about to use one lets a waiting fork go first, because threads that take turns would leave no moment for it.

Source: SQLite, "How To Corrupt An SQLite Database File", 2.6 Carrying an open database connection across a fork()
"""

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final
from weakref import WeakMethod

from sqlalchemy import QueuePool
from sqlalchemy.pool import ConnectionPoolEntry

LONGEST_WAIT = 30.0  #: seconds that a fork waits for other threads: twice as long as these wait for each other
LONGEST_STEP_ASIDE = 1.0  #: seconds that a thread lets a fork go first: another one, in use, may be waiting for it
_WARNING: Final = "a fork takes a connection to SQLite along, and commits may be lost: fork outside of transactions"

_gate = threading.Condition()
_users: dict[object, int] = {}  #: what is in use, by the thread that began to use it
_waiting_forks: set[int] = set()  #: by thread
_closers: set[WeakMethod[Callable[[], None]]] = set()


@contextmanager
def no_fork() -> Iterator[None]:
    """Let forks by other threads wait until the end."""
    user = object()
    _begin(user)
    try:
        yield
    finally:
        _end(user)


def close_before_forks(close: Callable[[], None]) -> None:
    """Have a method called before each fork, as long as its object lives. It closes connections that are not in use."""
    with _gate:
        _closers.add(WeakMethod(close, _closers.discard))


class SqlitePool(QueuePool):
    """Connections of an engine, of which no fork takes one along."""

    def _do_get(self) -> ConnectionPoolEntry:
        with no_fork():  # from before a connection is opened
            entry = super()._do_get()
            _begin(entry)
        return entry

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        try:
            super()._do_return_conn(record)
        finally:
            _end(record)


def _begin(user: object) -> None:
    this_thread = threading.get_ident()
    with _gate:
        if this_thread not in _users.values():
            _gate.wait_for(lambda: not _waiting_forks, LONGEST_STEP_ASIDE)
        _users[user] = this_thread


def _end(user: object) -> None:
    with _gate:
        _users.pop(user, None)  # none: the parent's, in a child
        _gate.notify_all()


def _others_are_done() -> bool:
    return set(_users.values()) <= {threading.get_ident()}


def _before_fork() -> None:
    _gate.acquire()
    _waiting_forks.add(threading.get_ident())
    _gate.wait_for(_others_are_done, LONGEST_WAIT)
    _waiting_forks.discard(threading.get_ident())
    for reference in list(_closers):
        if close := reference():
            close()
    if _users:
        warnings.warn(_WARNING, RuntimeWarning, stacklevel=2)


def _in_parent() -> None:
    _gate.notify_all()
    _gate.release()


def _in_child() -> None:
    _users.clear()  # their threads are not here, and this thread's connections are the parent's
    _waiting_forks.clear()
    _gate.release()


os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
