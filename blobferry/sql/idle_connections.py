"""Pooled connections that have been idle are tested before they are used again.

SQLAlchemy's own ``pool_pre_ping`` tests at every use. For a small transaction that is a round trip of three.
"""

import time
from typing import Any, Final

from sqlalchemy import Engine, event
from sqlalchemy.exc import InvalidatePoolError

#: Seconds that a connection may idle untested. No server restarts within them; whoever meets a connection that was lost
#: all the same gets UnreachableError, which runs and submissions repeat.
TEST_AFTER: Final = 0.1
_USED_AT: Final = "blobferry_used_at"


def replace_lost_connections(engine: Engine) -> None:
    """Have the engine replace connections that were lost while they were idle in its pool."""

    def note(connection: Any, record: Any) -> None:
        record.info[_USED_AT] = time.monotonic()

    def test(connection: Any, record: Any, proxy: Any) -> None:
        used_at = record.info.get(_USED_AT)  # None: just opened
        if used_at is None or time.monotonic() - used_at < TEST_AFTER:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error  # the pool opens another one

    event.listen(engine, "checkin", note)
    event.listen(engine, "checkout", test)
