"""Logging: one line of JSON for each record, with the job at hand in it."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

from pythonjsonlogger import json

from blobferry.redaction import HIDDEN, cleaned

_USER: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^\s\"'\\/?#]*@")
_QUERY: Final = re.compile(r"(https?://[^\s\"'\\<>?]*)\?[^\s\"'\\<>]+", re.IGNORECASE)
_job: ContextVar[dict[str, Any] | None] = ContextVar("job", default=None)


class JsonFormatter(json.JsonFormatter):
    """A record as one JSON object: time, level, logger, event, the job at hand, the ``extra`` facts, the traceback."""

    def __init__(self) -> None:
        names = {"levelname": "level", "name": "logger", "message": "event", "exc_info": "traceback"}
        super().__init__(["levelname", "name", "message"], rename_fields=names, json_default=str)

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Add the time and the job to what the library takes from the record."""
        log_data["time"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        log_data.update(_job.get() or {})
        super().add_fields(log_data, record, message_dict)

    def serialize_log_record(self, log_data: dict[str, Any]) -> str:
        """Write the line, without the secrets of URLs."""
        shown = {name: _cleaned(name, value) for name, value in log_data.items()}
        return _without_secrets(super().serialize_log_record(shown))


def _cleaned(name: str, value: Any) -> Any:
    # A traceback is ours and has lines.
    return cleaned(value) if isinstance(value, str) and name != "traceback" else value


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
