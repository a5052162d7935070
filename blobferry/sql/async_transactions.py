"""Transactions of SQLAlchemy's asyncio extension, which needs greenlet and is imported by the app, never here."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, Union

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from blobferry.errors import ConfigurationError, InvalidRequestError
from blobferry.redaction import short_repr

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_scoped_session

#: The app's own transaction on an event loop, which a submitted row may join.
AsyncTransaction = Union["AsyncSession", "AsyncConnection", "async_scoped_session[Any]"]
Answer = TypeVar("Answer")


def is_async(transaction: object) -> bool:
    """Whether it is an AsyncSession, an AsyncConnection or an async_scoped_session."""
    extension: Any = sys.modules.get("sqlalchemy.ext.asyncio")
    if extension is None:  # then nobody can have made one
        return False
    return isinstance(transaction, extension.AsyncSession | extension.AsyncConnection | extension.async_scoped_session)


async def run_within(transaction: "AsyncTransaction", function: Callable[[Session | Connection], Answer]) -> Answer:
    """What the function returns, given the Session or Connection behind the transaction.

    What it executes is awaited. Raises InvalidRequestError for what is no such transaction.
    """
    if not is_async(transaction):
        kind = type(transaction).__name__
        raise InvalidRequestError(
            f"session: AsyncClient needs an AsyncSession or an AsyncConnection, got {kind}"
            + ("; blobferry.Client takes that" if isinstance(transaction, Session | Connection) else "")
        )
    is_scoped = type(transaction).__name__ == "async_scoped_session"  # it passes everything on but run_sync
    behind: Any = transaction() if is_scoped and callable(transaction) else transaction
    answer: Answer = await behind.run_sync(function)
    return answer


def refusal(transaction: object) -> InvalidRequestError:
    """What a Client says of a ``session`` that it cannot join."""
    problem = f"session: needs a Session or a Connection, got {type(transaction).__name__}"
    if is_async(transaction):
        problem += (
            "; use blobferry.AsyncClient, which takes it, or: "
            "await session.run_sync(lambda sync: ferry.write_stream(…, session=sync))"
        )
    return InvalidRequestError(problem)


def url_of(engine: "AsyncEngine") -> str:
    """The URL of the engine's database. Raises ConfigurationError for one in memory, which nobody else can open."""
    if getattr(engine, "sync_engine", None) is None:
        raise ConfigurationError("engine", f"needs a SQLAlchemy AsyncEngine or Engine, got {short_repr(engine)}")
    if engine.dialect.name == "sqlite" and engine.url.database in (None, "", ":memory:"):
        raise ConfigurationError("engine", "is a SQLite database in memory, which no other connection sees; use a file")
    return engine.url.render_as_string(hide_password=False)
