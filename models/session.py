"""Database: the one place where the worker opens transactions."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from sqlalchemy.orm import Session, sessionmaker

from blobferry.jobs.webhook_receivers import WebhookReceiver
from blobferry.sql.database import open_engine, reachable

#: In ``Session.info``: the receivers of the ends of all jobs of a storage, by its name.
STORAGE_WEBHOOKS: Final = "storage_webhooks"


class Database:
    """Sessions on one engine. Thread-safe; opens no connection until the first session; safe across fork.

    On SQLite a power cut may undo the last commits, back to the last one that called ``must_survive``.
    """

    def __init__(self, url: str, *, pool_size: int = 5) -> None:
        self.engine = open_engine(url, pool_size=pool_size, all_survive=False)
        #: By storage; whoever opens the database for a worker sets it.
        self.storage_webhooks: Mapping[str, WebhookReceiver] = {}
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)
        at_once = self.engine.execution_options(isolation_level="AUTOCOMMIT")  # it shares the pool
        self._lookups = sessionmaker(at_once, expire_on_commit=False)

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """A session in a transaction that commits at the end of the block. Raises UnreachableError."""
        with reachable(), self._sessions.begin() as session:
            session.info[STORAGE_WEBHOOKS] = self.storage_webhooks
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for lookups: each is a transaction of its own and waits for no writer. Raises UnreachableError.

        Not for writes, since each would be committed by itself.
        """
        with reachable(), self._lookups.begin() as session:
            yield session

    def close(self) -> None:
        """Close the pooled connections."""
        self.engine.dispose()
