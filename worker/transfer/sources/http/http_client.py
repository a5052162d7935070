"""GET requests for one URL: redirects, credentials, status codes, and URLs without their secrets.

The user part of a URL is sent as Basic authentication, to its own host only. Neither it nor the query, which holds the
signature of a presigned URL, appears in a message, a log line or a repr.
"""

import logging
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from typing import Final

from urllib3 import BaseHTTPResponse, PoolManager, Timeout
from urllib3.exceptions import HTTPError, LocationValueError, SSLError

from blobferry.jobs.needs import SOURCES
from blobferry.redaction import redacted
from worker.errors import SourceError, SourceNotAllowedError, SourceNotFoundError, SourceUnavailableError
from worker.stores.retry_after import request_to_wait, retry_after
from worker.transfer.sources.http.request_target import RequestTarget

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_ANSWERS: Final = frozenset({200, 206, 412, 416})
_STATUS_ERRORS: Final[Mapping[int, type[SourceError]]] = {
    401: SourceNotAllowedError,
    403: SourceNotAllowedError,
    404: SourceNotFoundError,
    410: SourceNotFoundError,
    408: SourceUnavailableError,
    425: SourceUnavailableError,
    429: SourceUnavailableError,
}
#: Answers of a redirect's target, or of the source itself, whose signature has expired.
_EXPIRED: Final = frozenset({400, 401, 403, 404, 410})
_HEADERS: Final = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "blobferry"}
_SECRET: Final = re.compile(r"\?\S*")


class HttpClient:
    """Sends requests for one URL over connections that it keeps. Thread-safe."""

    def __init__(self, url: str, pools: PoolManager, *, timeout: Timeout, max_redirects: int) -> None:
        self.url = redacted(url)  #: for messages
        self._first = self._last = RequestTarget.parse(url)
        self._pools = pools
        self._timeout = timeout
        self._max_redirects = max_redirects
        hide_queries()

    def close(self) -> None:
        """Close the connections."""
        self._pools.clear()

    @contextmanager
    def get(self, headers: Mapping[str, str]) -> Iterator[BaseHTTPResponse]:
        """Send a GET, follow redirects, and yield the answer: 200, 206, 412 or 416.

        The next request goes straight to the target of the last redirect, and through all redirects again once that
        target refuses. Raises SourceError for any other status and for network errors inside the block.
        """
        with self._network_errors():
            target, response = self._follow(self._last, headers)
            if response.status in _EXPIRED and self._last != self._first:
                response.close()
                target, response = self._follow(self._first, headers)
            try:
                self._check(response)
                self._last = target
                yield response
            finally:
                response.close()  # closes the connection too, unless the body was read to its end

    def _follow(self, target: RequestTarget, headers: Mapping[str, str]) -> tuple[RequestTarget, BaseHTTPResponse]:
        for _ in range(self._max_redirects + 1):
            response = self._send(target, headers)
            if response.status not in _REDIRECTS:
                return target, response
            response.close()
            target = target.redirected(response.headers.get("Location"), self.url)
        raise SourceError(f"{self.url}: redirects more than {self._max_redirects} times")

    def _send(self, target: RequestTarget, headers: Mapping[str, str]) -> BaseHTTPResponse:
        credentials = {"Authorization": target.authorization} if target.authorization else {}
        return self._pools.connection_from_host(target.host, target.port, target.scheme).urlopen(
            "GET",
            target.request,
            headers={**_HEADERS, **headers, **credentials},
            retries=False,
            redirect=False,
            timeout=self._timeout,
            preload_content=False,
            decode_content=False,
        )

    def _check(self, response: BaseHTTPResponse) -> None:
        status = response.status
        if status not in _ANSWERS:
            kind = _STATUS_ERRORS.get(status, SourceUnavailableError if status >= 500 else SourceError)
            wait = retry_after(response.headers) if kind.transient else None
            answer = f"{status} {response.reason or ''}".rstrip()
            error = kind(f"{self.url}: the server answers {answer}{request_to_wait(wait)}")
            error.retry_after = wait
            error.resumable = status in _EXPIRED  # another URL of the same content may be signed
            raise error
        # Content-Encoding is a label of the file: the request asks for the bytes as they are.
        encoding = response.headers.get("Transfer-Encoding", "").strip().lower()
        if encoding not in ("", "identity", "chunked"):  # "identity" is none: RFC 2616, 3.6
            raise SourceError(
                f"{self.url}: the server sends Transfer-Encoding {encoding!r}, although the request allows none"
            )

    @contextmanager
    def _network_errors(self) -> Iterator[None]:
        try:
            yield
        except SSLError as error:
            if error.args and isinstance(error.args[0], ssl.SSLCertVerificationError):
                problem = error.args[0].verify_message
                untrusted = SourceError(f"{self.url}: the server's certificate is not trusted: {problem}")
                untrusted.lacks = SOURCES  # another worker may have its authority
                raise untrusted from error
            raise SourceUnavailableError(f"{self.url}: {error}") from error
        except LocationValueError:
            raise SourceError(f"{self.url}: the host's name is malformed") from None  # the cause would show the URL
        except (HTTPError, HTTPException, OSError) as error:
            raise SourceUnavailableError(f"{self.url}: {error}") from error


def hide_queries() -> None:
    """Keep the queries of URLs, which may be secrets, out of urllib3's log. Safe to repeat."""
    logging.getLogger("urllib3.connectionpool").addFilter(_without_queries)


def _without_queries(record: logging.LogRecord) -> bool:
    """A log filter: at level DEBUG, urllib3 logs each request with its query."""
    if isinstance(record.args, tuple):
        record.args = tuple(_SECRET.sub("", arg) if isinstance(arg, str) else arg for arg in record.args)
    return True
