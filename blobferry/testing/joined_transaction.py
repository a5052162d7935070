"""A test's own transaction in the place of a client's engine: the client then works inside of it, and it may roll back.

Tests that roll back what they did open a transaction, and the app's sessions make savepoints in it. A client's own
engine has other connections, which do not see what is in that transaction.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, Dialect
from sqlalchemy.orm import Session

from blobferry.jobs.bulk_submission import begin_on_sqlite
from blobferry.jobs.end_feed import ONE_WRITER
from blobferry.jobs.submission import Transaction, plain_transaction


class JoinedTransaction:
    """What a client asks of its engine, on one connection. A transaction of the client is a savepoint there."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = plain_transaction(transaction)
        # Python's SQLite begins no transaction before the first INSERT, and the savepoint of a session outside of one
        # would be committed with its release.
        begin_on_sqlite(self.connection)

    @property
    def connection(self) -> Connection:
        """The connection that has the transaction: the one that the session is bound to, if it is bound to one."""
        if not isinstance(self._transaction, Session):
            assert self._transaction is not None
            return self._transaction
        bind = self._transaction.get_bind()
        return bind if isinstance(bind, Connection) else self._transaction.connection()

    @property
    def dialect(self) -> Dialect:
        """That of the connection."""
        return self.connection.dialect

    @property
    def url(self) -> URL:
        """That of the connection's engine."""
        return self.connection.engine.url

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A savepoint."""
        connection = self.connection
        with connection.begin_nested():
            yield connection

    def connect(self) -> "_Lent":
        """The connection, which is not closed afterwards."""
        return _Lent(self.connection)

    def execution_options(self, **options: Any) -> "JoinedTransaction":
        """The same: an isolation level is the test's to choose."""
        return self

    def dispose(self) -> None:
        """Nothing: the test closes its connection."""


class _Lent:
    """A context manager that yields a connection of somebody else's."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def execution_options(self, **options: Any) -> "_Lent":
        return self

    def __enter__(self) -> Connection:
        return self._connection.execution_options(**{ONE_WRITER: True})

    def __exit__(self, *error: object) -> None: ...
