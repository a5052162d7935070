"""A URL without usable ranges: its body is kept in a temporary file, which can be read at any offset."""

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from socket import gethostname
from typing import Any, Final, Self

from urllib3 import BaseHTTPResponse

from worker.errors import SourceChangedError, SourceError, SourceUnavailableError
from worker.settings import SourcesSettings
from worker.transfer.sources.http.http_client import HttpClient
from worker.transfer.sources.http.refused_addresses import refused_here
from worker.transfer.sources.patience import Patience, SourceWatch
from worker.transfer.sources.spool import Spool
from worker.units import MIB

_PIECE: Final = MIB  #: bytes read at once, at most


class SpooledSource:
    """The body of one answer, in an unnamed file that disappears with its process.

    The fingerprint holds a checksum of the bytes, so that other bytes are noticed the next time even if the server
    sends no validator. A Last-Modified or weak ETag would only report changes that are none.
    """

    def __init__(self, client: HttpClient, spool: Spool, fingerprint: Mapping[str, Any]) -> None:
        self.url = client.url  #: for messages, without secrets
        self.fingerprint = fingerprint
        self.size: int = fingerprint["size"]
        self._client = client
        self._spool = spool

    @classmethod
    def of(cls, client: HttpClient, response: BaseHTTPResponse, settings: SourcesSettings, patience: Patience) -> Self:
        """Read the body to its end. The source closes the client.

        Raises SourceNotAllowedError for a body larger than allowed, SourceUnavailableError for a dropped connection
        and a full disk, Interrupted.
        """
        if response.status != 200:
            raise SourceError(f"{client.url}: the server answers {response.status} to a request for all of it")
        has_end = response.length_remaining is not None or response.chunked
        directory = settings.http_spool_directory
        refuse_too_large(client.url, response.length_remaining or 0, settings.http_max_size)
        with _disk_errors(client.url, directory):
            _check_space(client.url, response.length_remaining or 0, directory)
            spool = Spool(directory)
        try:
            size, checksum, watch = 0, hashlib.sha256(), patience.watch(client.url)
            for piece in _pieces(response, watch):
                size += len(piece)
                refuse_too_large(client.url, size, settings.http_max_size)
                checksum.update(piece)
                with _disk_errors(client.url, directory):
                    spool.append(piece)
            digest = f"SHA-256:{checksum.hexdigest()}"
            if not has_end and _read_again(client, size, watch) != digest:
                raise SourceUnavailableError(
                    f"{client.url}: two answers without a length ended differently: a connection dropped, or it changed"
                )
        except BaseException:
            spool.close()
            raise
        etag = response.headers.get("ETag")
        # Printable: the column would refuse a zero byte.
        strong = {"etag": etag} if etag and etag.isprintable() and not etag.startswith("W/") else {}
        return cls(client, spool, {"size": size, "checksum": digest, **strong})

    def readinto(self, offset: int, buffer: memoryview) -> None:
        try:
            filled = self._spool.readinto(offset, buffer)
        except OSError as error:
            raise SourceUnavailableError(f"{self.url}: cannot be read back: {error.strerror}") from error
        if filled < len(buffer):
            raise SourceChangedError(f"{self.url}: ends at byte {offset + filled}, more was expected")

    def check(self) -> None:
        """Nothing to check: the bytes are kept here."""

    def close(self) -> None:
        """Drop the file and close the connections."""
        self._spool.close()
        self._client.close()


def _pieces(response: BaseHTTPResponse, watch: SourceWatch) -> Iterator[bytes]:
    while piece := response.read1(_PIECE, decode_content=False):
        watch.arrived(len(piece))
        yield piece


def _read_again(client: HttpClient, size: int, watch: SourceWatch) -> str:
    """Return the checksum of a second answer, which tells a complete body from one that broke off."""
    seen, checksum = 0, hashlib.sha256()
    with client.get({}) as response:
        for piece in _pieces(response, watch):
            seen += len(piece)
            if seen > size:
                break
            checksum.update(piece)
    return f"SHA-256:{checksum.hexdigest()}" if seen == size else ""


def refuse_too_large(url: str, size: int, max_size: int | None) -> None:
    """Raise SourceNotAllowedError for more than ``max_size`` bytes; None allows any size."""
    if max_size is not None and size > max_size:
        raise refused_here(f"{url}: has at least {size} bytes, sources.http_max_size allows {max_size}")


def _check_space(url: str, size: int, directory: Path) -> None:
    if (free := shutil.disk_usage(directory).free) < size:
        raise SourceUnavailableError(
            f"{url}: cannot be read in ranges, and {directory} on worker host {gethostname()} has {free} bytes free "
            f"for {size}"
        )


@contextmanager
def _disk_errors(url: str, directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceUnavailableError(
            f"{url}: cannot be read in ranges, and cannot be kept in {directory} on worker host {gethostname()}: "
            f"{error.strerror}"
        ) from error
