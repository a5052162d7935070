"""Counts the SQL of every process that has this directory on its PYTHONPATH, by SQLAlchemy's events.

The file that BENCH_SQL_COUNTS names has a slot for each process: transactions and statements so far. What opens a
transaction is no statement of its own. A count is two calls more for each statement, about a microsecond.
"""

import mmap
import os
import struct

SLOTS = 1 << 16  # by process id; two of one run in the same slot would be counted as the later one
ENTRY = struct.Struct("=QQ")
OPENING = ("BEGIN", "SET LOCAL")


class _Counts:
    """Of this process. A forked child begins at zero, in a slot of its own."""

    def __init__(self, path):
        with open(path, "r+b") as file:
            self._slots = mmap.mmap(file.fileno(), SLOTS * ENTRY.size)
        self._pid, self._transactions, self._statements = 0, 0, 0

    def began(self, connection):
        self._add(1, 0)

    def executed(self, connection, cursor, statement, *rest):
        if not statement.startswith(OPENING):
            self._add(0, 1)

    def _add(self, transactions, statements):
        if self._pid != os.getpid():
            self._pid, self._transactions, self._statements = os.getpid(), 0, 0
        self._transactions += transactions
        self._statements += statements
        ENTRY.pack_into(self._slots, self._pid % SLOTS * ENTRY.size, self._transactions, self._statements)


if path := os.environ.get("BENCH_SQL_COUNTS"):
    try:
        from sqlalchemy import Engine, event
    except ImportError:  # a Python of something else that inherits the variable
        pass
    else:
        _counts = _Counts(path)
        event.listen(Engine, "begin", _counts.began)
        event.listen(Engine, "before_cursor_execute", _counts.executed)
