"""Versions of what a URL leads to: told apart by size, ETag, date and encoding of its answers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final, Self

from urllib3 import BaseHTTPResponse

_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", re.IGNORECASE)
_STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')  # source: RFC 9110, 8.8.3


@dataclass(frozen=True, slots=True)
class ResourceVersion:
    """One version of the resource, with a validator strong enough to join ranges by."""

    size: int
    etag: str | None
    last_modified: str | None  #: where there is no ETag
    encoding: str = ""  #: Content-Encoding: two encodings of one file have different bytes

    @classmethod
    def of(cls, response: BaseHTTPResponse, size: int) -> Self | None:
        """The version of an answer; None without a strong validator. Source: RFC 9110, 8.8.2.2 and 13.1.5."""
        headers, encoding = response.headers, _encoding(response)
        if (etag := headers.get("ETag")) is not None:
            return cls(size, etag, None, encoding) if _STRONG_ETAG.fullmatch(etag) else None
        age, date = _age(headers), headers.get("Last-Modified", "")
        # Printable: other text may follow a date, and the column would refuse a zero byte.
        is_strong = age is not None and age >= timedelta(seconds=1) and date.isprintable()
        return cls(size, None, date, encoding) if is_strong else None

    @property
    def validator(self) -> str:
        return self.etag or self.last_modified or ""

    def differs(self, response: BaseHTTPResponse, size: int | None) -> str:
        """Say how the answer differs from this version; "" if it does not."""
        etag, last_modified = response.headers.get("ETag"), response.headers.get("Last-Modified")
        if size != self.size:
            return f"it had {self.size} bytes and has {'an unknown number' if size is None else size} now"
        if (encoding := _encoding(response)) != self.encoding:
            return f"its Content-Encoding was {self.encoding or 'absent'} and is {encoding or 'absent'} now"
        if etag != self.etag:
            return f"its ETag was {self.etag or 'absent'} and is {etag or 'absent'} now"
        if self.last_modified and last_modified not in (None, self.last_modified):  # a 206 need not repeat it
            return f"it was last modified {self.last_modified} and {last_modified} now"
        return ""


def ranged_version(response: BaseHTTPResponse) -> ResourceVersion | None:
    """Return the version of an answer to ``bytes=0-0``; None if the answer shows that ranges are unreliable."""
    answered = content_range(response) if response.status == 206 else None
    if answered is None or answered[:2] != (0, 0):
        return None
    response.read1(1, decode_content=False)  # a connection with an unread body cannot be reused
    return ResourceVersion.of(response, answered[2])


def content_range(response: BaseHTTPResponse) -> tuple[int, int, int] | None:
    """Return first byte, last byte and total size; None if one is missing."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def is_fresh_answer(response: BaseHTTPResponse) -> bool:
    """Whether the answer has no validator but a date within its own second, which soon will be a strong one."""
    return response.status == 206 and "ETag" not in response.headers and _age(response.headers) == timedelta(0)


def _encoding(response: BaseHTTPResponse) -> str:
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    return "" if encoding == "identity" else encoding


def _age(headers: Mapping[str, str]) -> timedelta | None:
    """Return the time between the last modification and the answer, by the server's clock; None if unknown."""
    dates: list[datetime] = []
    for name in ("Date", "Last-Modified"):
        try:
            dates.append(parsedate_to_datetime(headers[name]))
        except (KeyError, ValueError):
            return None
    if any(date.tzinfo is None for date in dates):
        return None
    return dates[0] - dates[1]
