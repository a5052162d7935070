"""Sources behind ``http:`` and ``https:`` URLs, read in ranges of the version that was seen first."""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final, Self

from urllib3 import BaseHTTPResponse, Timeout

from worker.errors import SourceChangedError, SourceError, SourceUnavailableError
from worker.settings import SourcesSettings
from worker.transfer.sources.http.addresses import connection_pools
from worker.transfer.sources.http.http_client import HttpClient
from worker.transfer.sources.http.spooled_source import SpooledSource, refuse_too_large
from worker.transfer.sources.source import fill
from worker.transfer.stop import Stop, never
from worker.units import MIB

_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", re.IGNORECASE)
_STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')  # source: RFC 9110, 8.8.3
_PIECE: Final = MIB  #: bytes; at most


@dataclass(frozen=True, slots=True)
class _Version:
    """One version of the resource, with a validator strong enough to join ranges by."""

    size: int
    etag: str | None
    last_modified: str | None  #: where there is no ETag

    @classmethod
    def of(cls, response: BaseHTTPResponse, size: int) -> Self | None:
        """The version of an answer; None without a strong validator. Source: RFC 9110, 8.8.2.2 and 13.1.5."""
        headers = response.headers
        if (etag := headers.get("ETag")) is not None:
            return cls(size, etag, None) if _STRONG_ETAG.fullmatch(etag) else None
        age = _age(headers)
        return cls(size, None, headers["Last-Modified"]) if age and age >= timedelta(seconds=1) else None

    @property
    def validator(self) -> str:
        return self.etag or self.last_modified or ""

    def differs(self, response: BaseHTTPResponse, size: int | None) -> str:
        """Say how the answer differs from this version; "" if it does not."""
        etag, last_modified = response.headers.get("ETag"), response.headers.get("Last-Modified")
        if size != self.size:
            return f"it had {self.size} bytes and has {'an unknown number' if size is None else size} now"
        if etag != self.etag:
            return f"its ETag was {self.etag or 'absent'} and is {etag or 'absent'} now"
        if self.last_modified and last_modified not in (None, self.last_modified):  # a 206 need not repeat it
            return f"it was last modified {self.last_modified} and {last_modified} now"
        return ""


class HttpSource:
    """A URL whose server answers ranges.

    Each request asks for the version that was seen first (If-Range), and each answer is compared with it. After a
    dropped connection, reading goes on at the byte that was reached.
    """

    def __init__(self, client: HttpClient, version: _Version) -> None:
        self.url = client.url  #: for messages, without secrets
        self.size = version.size
        self.fingerprint: Mapping[str, Any] = {"size": version.size} | (
            {"etag": version.etag} if version.etag else {"last_modified": version.last_modified}
        )
        self._client = client
        self._version = version

    @classmethod
    def open(cls, url: str, settings: SourcesSettings, stop: Stop = never) -> "HttpSource | SpooledSource":
        """Open an ``http(s):`` URL. Raises SourceError.

        If the server has no ranges, or no strong validator to join them by, the whole body is first read into a
        temporary file. Only that asks ``stop`` and raises Interrupted. It starts over the next time, so a caller must
        not count it as part of a slice.
        """
        client = HttpClient(
            url,
            connection_pools(allow_private=settings.http_allow_private, ca_file=settings.http_ca_file),
            timeout=Timeout(connect=settings.http_connect_seconds, read=settings.http_read_seconds),
            max_redirects=settings.http_max_redirects,
        )
        try:
            with client.get({"Range": "bytes=0-0"}) as response:
                version = _ranged_version(response)
                if response.status == 200:
                    return SpooledSource.of(client, response, settings, stop)
                is_fresh = version is None and _is_fresh(response)
            if is_fresh:  # modified within this second, perhaps again: one second later the date is reliable
                time.sleep(1)
                with client.get({"Range": "bytes=0-0"}) as response:
                    version = _ranged_version(response)
            if version is None:
                with client.get({}) as response:
                    return SpooledSource.of(client, response, settings, stop)
            refuse_too_large(client.url, version.size, settings.http_max_size)
            return cls(client, version)
        except BaseException:
            client.close()
            raise

    def readinto(self, offset: int, buffer: memoryview) -> None:
        if offset + len(buffer) > self.size:
            raise SourceChangedError(f"{self.url}: has {self.size} bytes, {offset + len(buffer)} were expected")
        fill(buffer, offset, self._pieces)

    def check(self) -> None:
        """Ask for one byte of the version first seen. Raises SourceChangedError."""
        for _ in self._pieces(0, 1):
            pass

    def close(self) -> None:
        self._client.close()

    def _pieces(self, offset: int, size: int) -> Iterator[bytes]:
        """Yield bytes from ``offset``: at least one, perhaps fewer than ``size``."""
        asked = {"Range": f"bytes={offset}-{offset + size - 1}", "If-Range": self._version.validator}
        with self._client.get(asked) as response:
            left = self._check(response, offset, size)
            while left:
                piece = response.read1(min(left, _PIECE), decode_content=False)
                if not piece:
                    raise SourceUnavailableError(f"{self.url}: the answer ended {left} bytes before its end")
                left -= len(piece)
                yield piece

    def _check(self, response: BaseHTTPResponse, offset: int, size: int) -> int:
        """Return how many bytes from ``offset`` the answer holds."""
        if response.status != 206:
            if response.status == 200 and not self._version.differs(response, response.length_remaining):
                raise SourceUnavailableError(f"{self.url}: the server no longer answers ranges")
            raise SourceChangedError(
                f"{self.url}: changed while it was read: the server answers {response.status} to the old version"
            )
        answered = _content_range(response)
        if answered is None:
            raise SourceError(f"{self.url}: the server answers 206 without a valid Content-Range")
        first, last, total = answered
        if difference := self._version.differs(response, total):
            raise SourceChangedError(f"{self.url}: changed while it was read: {difference}")
        count = last - first + 1
        if first != offset or not 1 <= count <= size or response.length_remaining not in (None, count):
            raise SourceError(
                f"{self.url}: bytes {offset}-{offset + size - 1} were asked for, the server answers "
                f"{response.headers['Content-Range']} with Content-Length {response.headers.get('Content-Length')}"
            )
        return count


def _ranged_version(response: BaseHTTPResponse) -> _Version | None:
    """Return the version of an answer to ``bytes=0-0``; None if the answer shows that ranges are unreliable."""
    answered = _content_range(response) if response.status == 206 else None
    if answered is None or answered[:2] != (0, 0):
        return None
    response.read1(1, decode_content=False)  # a connection with an unread body cannot be reused
    return _Version.of(response, answered[2])


def _content_range(response: BaseHTTPResponse) -> tuple[int, int, int] | None:
    """Return first byte, last byte and total size; None if one is missing."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def _is_fresh(response: BaseHTTPResponse) -> bool:
    return response.status == 206 and "ETag" not in response.headers and _age(response.headers) == timedelta(0)


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
