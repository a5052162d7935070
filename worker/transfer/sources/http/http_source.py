"""Sources behind ``http:`` and ``https:`` URLs, read in ranges of the version that was seen first."""

import time
from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import Any, Final

from urllib3 import BaseHTTPResponse, Timeout

from worker.errors import SourceChangedError, SourceError, SourceUnavailableError
from worker.settings import SourcesSettings
from worker.transfer.sources.http.addresses import connection_pools
from worker.transfer.sources.http.http_client import HttpClient
from worker.transfer.sources.http.refused_addresses import RefusedAddresses
from worker.transfer.sources.http.resource_version import (
    ResourceVersion,
    content_range,
    is_fresh_answer,
    ranged_version,
)
from worker.transfer.sources.http.spooled_source import SpooledSource, refuse_too_large
from worker.transfer.sources.patience import Patience, waited_for
from worker.transfer.sources.source import fill
from worker.transfer.stop import Stop, never, while_stalled, within_part
from worker.units import MIB

_PIECE: Final = MIB  #: bytes; at most
_ASKS: Final = 6  #: requests for one range until an answer is of the version first seen


class OtherVersionError(SourceChangedError):
    """No answer is of the version that was seen first. Its bytes may be the same, from another server."""

    of_several = (
        False  #: whether the answers were of several other versions: several servers, one of which was asked first
    )


class NoRangesError(SourceUnavailableError):
    """The server gives no range that can be used. All of it can be taken in one answer."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.retry_after = 0.0  # asking for the same range again gains nothing


class HttpSource:
    """A URL whose server answers ranges.

    Each request asks for the version that was seen first (If-Range), and each answer is compared with it. Some servers
    answer If-Range with the whole body, and of several behind one name each may have an ETag of its own: then the
    requests go without If-Range, and another answer is asked for until one is of that version. After a dropped
    connection, reading goes on at the byte that was reached.
    """

    def __init__(self, client: HttpClient, version: ResourceVersion, patience: Patience | None = None) -> None:
        self.url = client.url  #: for messages, without secrets
        self.size = version.size
        self.fingerprint: Mapping[str, Any] = {"size": version.size} | (
            {"etag": version.etag} if version.etag else {"last_modified": version.last_modified}
        )
        self._client = client
        self._version = version
        self._patience = patience or Patience()
        self._asks_if_range = True

    @classmethod
    def open(
        cls, url: str, settings: SourcesSettings, stop: Stop = never, *, whole_size: int | None = None
    ) -> "HttpSource | SpooledSource":
        """Open an ``http(s):`` URL. Raises SourceError, Interrupted once ``stop`` is true.

        If the server has no ranges, or no strong validator to join them by, the whole body is first read into a
        temporary file. That starts over the next time, so a caller must not count it as part of a slice.

        Args:
            url: where it is.
            settings: what may be reached, and how long it is waited for.
            stop: asked while it is opened; between the pieces of a part, its :func:`within_part`.
            whole_size: take all of it in one answer, which must have this size; None: ranges where possible.
        """
        client = HttpClient(
            url,
            connection_pools(
                allow_private=settings.http_allow_private,
                ca_file=settings.http_ca_file,
                refused=RefusedAddresses(settings.http_refuse, frozenset(settings.http_refuse_ports)),
            ),
            timeout=Timeout(connect=settings.http_connect_seconds, read=settings.http_read_seconds),
            max_redirects=settings.http_max_redirects,
        )
        patience = Patience(
            stop, settings.least_rate, settings.least_rate_seconds, lambda: while_stalled(stop)() or stop()
        )
        try:
            return waited_for(
                lambda: cls._open(client, settings, patience, whole_size),
                replace(patience, least_rate=0).watch(client.url),  # a large body may be kept meanwhile
                discard=lambda source: source.close(),
            )
        except BaseException:
            client.close()
            raise

    @classmethod
    def _open(
        cls, client: HttpClient, settings: SourcesSettings, patience: Patience, whole_size: int | None
    ) -> "HttpSource | SpooledSource":
        version = None
        if whole_size is None:
            with client.get({"Range": "bytes=0-0"}) as response:
                version = ranged_version(response)
                if response.status == 200:
                    return SpooledSource.of(client, response, settings, patience)
                is_fresh = version is None and is_fresh_answer(response)
            if is_fresh:  # modified within this second, perhaps again: one second later the date is reliable
                time.sleep(1)
                with client.get({"Range": "bytes=0-0"}) as response:
                    version = ranged_version(response)
        if version is None:
            client.close()  # a server that sent more than it had announced would answer with the rest of that
            with client.get({}) as response:
                if whole_size is not None and response.length_remaining not in (None, whole_size):
                    raise SourceChangedError(
                        f"{client.url}: had {whole_size} bytes and has {response.length_remaining} now"
                    )
                return SpooledSource.of(client, response, settings, patience)
        refuse_too_large(client.url, version.size, settings.http_max_size)
        return cls(
            client, version, replace(patience, stop=within_part(patience.stop), stalled=while_stalled(patience.stop))
        )

    def readinto(self, offset: int, buffer: memoryview) -> None:
        if offset + len(buffer) > self.size:
            raise SourceChangedError(f"{self.url}: has {self.size} bytes, {offset + len(buffer)} were expected")
        fill(buffer, offset, self._pieces, self._patience.watch(self.url))

    def check(self) -> None:
        """Ask for one byte of the version first seen. Raises SourceChangedError."""
        self.readinto(0, memoryview(bytearray(1)))

    def close(self) -> None:
        self._client.close()

    def _pieces(self, offset: int, size: int) -> Generator[bytes]:
        """Yield bytes from ``offset``: at least one, perhaps fewer than ``size``."""
        asked = {"Range": f"bytes={offset}-{offset + size - 1}"}
        condition = {"If-Range": self._version.validator} if self._asks_if_range else {}
        others = set[str | None]()
        for number in range(_ASKS):
            with self._client.get(asked | condition) as response:
                if is_other := self._is_other(response):
                    others.add(response.headers.get("ETag"))
                if is_other and number < _ASKS - 1:
                    condition = {}
                    continue
                try:
                    left = self._check(response, offset, size)
                except OtherVersionError as error:
                    error.of_several = len(others) > 1
                    raise
                self._asks_if_range = bool(condition)
                while left:
                    piece = response.read1(min(left, _PIECE), decode_content=False)
                    if not piece:
                        raise SourceUnavailableError(f"{self.url}: the answer ended {left} bytes before its end")
                    left -= len(piece)
                    yield piece
                return

    def _is_other(self, response: BaseHTTPResponse) -> bool:
        """Whether the next answer may be a better one: this one is all of it, or of another version."""
        answered = content_range(response) if response.status == 206 else None
        size = answered[2] if answered else response.length_remaining
        return response.status == 200 or (answered is not None and bool(self._version.differs(response, size)))

    def _check(self, response: BaseHTTPResponse, offset: int, size: int) -> int:
        """Return how many bytes from ``offset`` the answer holds."""
        if response.status != 206:
            if response.status == 200 and not self._version.differs(response, response.length_remaining):
                raise NoRangesError(f"{self.url}: the server no longer answers ranges")
            raise OtherVersionError(
                f"{self.url}: changed while it was read: the server answers {response.status} to the old version"
            )
        answered = content_range(response)
        if answered is None:
            raise NoRangesError(f"{self.url}: the server answers 206 without a valid Content-Range")
        first, last, total = answered
        if difference := self._version.differs(response, total):
            raise OtherVersionError(f"{self.url}: changed while it was read: {difference}")
        count = last - first + 1
        answer = (
            f"{self.url}: bytes {offset}-{offset + size - 1} were asked for, the server answers "
            f"{response.headers['Content-Range']} with Content-Length {response.headers.get('Content-Length')}"
        )
        if count < 1 or response.length_remaining not in (None, count):
            raise SourceError(answer)  # which contradicts itself
        if first != offset:
            raise NoRangesError(answer)
        return min(count, size)
