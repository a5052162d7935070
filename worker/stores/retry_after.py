"""Retry-After: how long a server asks to be left alone."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

MAX_WAIT: Final = 24 * 3600.0  #: seconds; whatever a server asks for


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that an answer asks to wait, at most a day; None if it does not say, or not readably.

    A date counts by the server's own clock where the answer has a Date. Names of headers are lower-case, or the mapping
    ignores case.
    """
    value = str(headers.get("retry-after") or "").strip()
    if value.isascii() and value.isdigit():
        seconds = float(value)
    else:
        then, now = _moment(value), _moment(str(headers.get("date") or "")) or datetime.now(UTC)
        if then is None:
            return None
        seconds = (then - now).total_seconds()
    return min(max(seconds, 0.0), MAX_WAIT)


def request_to_wait(seconds: float | None) -> str:
    """The end of an error's message; "" for no request."""
    return "" if seconds is None else f"; it asks to wait {math.ceil(seconds)} s (Retry-After)"


def _moment(value: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else None
