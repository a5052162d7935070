"""Logging: one line of JSON for each record, with the job at hand in it."""

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

from blobferry.redaction import HIDDEN

_PLAIN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_USER: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^\s\"'\\/?#]*@")
_QUERY: Final = re.compile(r"(https?://[^\s\"'\\<>?]*)\?[^\s\"'\\<>]+", re.IGNORECASE)
_job: ContextVar[dict[str, Any] | None] = ContextVar("job", default=None)


class JsonFormatter(logging.Formatter):
    """A record as one JSON object: when, how bad, who, what happened, and the facts given as ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        """Write the record in one line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
            **(_job.get() or {}),
            **{name: value for name, value in vars(record).items() if name not in _PLAIN},
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return _without_secrets(json.dumps(line, default=str))


def _without_secrets(text: str) -> str:
    """The last net: whatever a library logs, no user part and no query of a URL is written."""
    return _QUERY.sub(rf"\1?{HIDDEN}", _USER.sub(rf"\1{HIDDEN}@", text))


def configure_logging(level: int | str = logging.INFO) -> None:
    """Send everything to stderr as JSON lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.getLogger("botocore").setLevel(logging.WARNING)


@contextmanager
def job_context(**facts: Any) -> Iterator[None]:
    """Put the facts on every line that this thread logs within the block."""
    token = _job.set(facts)
    try:
        yield
    finally:
        _job.reset(token)
