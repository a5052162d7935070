"""For the time of a test, a client that publishes nothing and, if asked to, works in the test's own transaction."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, cast

from sqlalchemy import Engine

from blobferry.async_client import AsyncClient
from blobferry.client import Client
from blobferry.errors import ConfigurationError
from blobferry.jobs.end_feed import ONE_WRITER
from blobferry.jobs.job_reader import JobReader
from blobferry.jobs.open_blocks import JOINED
from blobferry.jobs.submission import Transaction
from blobferry.redaction import short_repr
from blobferry.testing.joined_transaction import JoinedTransaction
from blobferry.testing.silent_broker import SilentBroker

_REPLACED: Final = ("_engine", "_reader", "_broker", "_announcement")


@contextmanager
def silenced(
    client: Client | AsyncClient, broker: SilentBroker, transaction: Transaction | None = None
) -> Iterator[Client]:
    """The client, or the one behind an AsyncClient, with this broker until the block ends.

    ``transaction``: of the test, in which everything happens that the client would do on connections of its own.
    """
    if isinstance(client, AsyncClient):
        if transaction is not None:
            problem = "is for a Client; an AsyncClient works in threads, which cannot share the connection of a test"
            raise ConfigurationError("transaction", problem)
        calls = client._calls
        with _replaced(calls._joining, broker, None), _replaced(calls.client, broker, None):
            calls._watches.clear()  # they hold the reader
            yield calls.client
            calls._watches.clear()
    elif not isinstance(client, Client):
        problem = f"needs a Client or an AsyncClient, got {short_repr(client)}"
        raise ConfigurationError("client", problem)
    else:
        with _replaced(client, broker, transaction):
            yield client


@contextmanager
def _replaced(client: Client, broker: SilentBroker, transaction: Transaction | None) -> Iterator[None]:
    before = {name: getattr(client, name) for name in _REPLACED}
    engine = client._engine
    if transaction is not None:
        engine = cast(Engine, JoinedTransaction(transaction))
    elif engine.dialect.driver == JOINED:  # Django's tests are transactions, too
        engine = engine.execution_options(**{ONE_WRITER: True})
    announcement = replace(client._announcement, engine=engine, announcer=broker)
    now = {"_engine": engine, "_reader": JobReader(engine), "_broker": broker, "_announcement": announcement}
    _set(client, now)
    try:
        yield
    finally:
        _set(client, before)


def _set(client: Client, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(client, name, value)  # also of Django's lazy object, which hands it on
