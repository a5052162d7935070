"""Django's atomic blocks around a client that takes no part in them: what it writes survives their rollback."""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine

from blobferry.errors import InvalidRequestError

JOINED: Final = "blobferry_django"  #: the driver of engines whose statements are part of the block
_RIGHT: Final = (
    "write it as part of the block by `from blobferry.django import ferry` (docs/django.md), "
    "or call this after the block"
)


def heed_open_blocks(engine: Engine, what: str = "the job stays, and runs,") -> None:
    """Warn if an atomic block is open in this thread, of which what is written through ``engine`` is no part.

    Python shows the warning once for each line that calls. ``what``: becomes of it if the block rolls back. Raises
    InvalidRequestError as :func:`refuse_own_file` does.
    """
    refuse_own_file(engine)
    for connection in _blocks(engine):
        warnings.warn(
            f"{_open(connection)}, and this client takes no part in it: {what} if the block rolls back; {_RIGHT}",
            RuntimeWarning,
            stacklevel=_level_of_caller(),
        )
        return


def refuse_own_file(engine: Engine) -> None:
    """Raise InvalidRequestError if a block of this thread is open on the SQLite file that ``engine`` is to write to.

    SQLite lets one transaction write at a time: the call would wait for the block, and the block for the call.
    """
    for connection in _blocks(engine):
        if _is_same_file(engine, connection):
            raise InvalidRequestError(f"{_open(connection)}, the SQLite file that this client is to write to: {_RIGHT}")


def _open(connection: Any) -> str:
    return f"an atomic() block of Django's is open on {connection.alias!r}"


def _level_of_caller() -> int:
    """The ``stacklevel``, for a warning by the caller of this, of the first line that is not Blobferry's own."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(("blobferry.", "contextlib")):
        level, frame = level + 1, frame.f_back
    return level


def _blocks(engine: Engine) -> Iterator[Any]:
    """Django's connections of this thread that are inside of a block, unless the engine takes part in them."""
    # Not imported: only an app that uses Django has them, and while it imports Django parts are missing.
    settings = getattr(sys.modules.get("django.conf"), "settings", None)
    connections = getattr(sys.modules.get("django.db"), "connections", None)
    if settings is None or connections is None or not settings.configured or engine.dialect.driver == JOINED:
        return
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:
            yield connection


def _is_same_file(engine: Engine, connection: Any) -> bool:
    if engine.dialect.name != "sqlite" or connection.vendor != "sqlite" or not engine.url.database:
        return False
    return Path(engine.url.database).absolute() == Path(str(connection.settings_dict["NAME"])).absolute()
