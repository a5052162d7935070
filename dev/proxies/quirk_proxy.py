"""A proxy in front of an S3 server that behaves as other stores do: it refuses, ignores or changes by rules.

A rule is a function of one exchange. Bodies are held in memory, so blobs have to be small.
"""

import http.client
import http.server
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from dev.proxies.s3_fault_rules import HOP_BY_HOP, recognise
from dev.serving import served

_REFUSAL: Final = "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{}</Code><Message>{}</Message></Error>"


@dataclass(slots=True)
class QuirkyRequest:
    """A request on its way to the server. Rules may change it. Header names are lower case."""

    method: str
    target: str  #: path and query
    operation: str  #: as :func:`~dev.proxies.s3_fault_rules.recognise` names it
    headers: dict[str, str]
    body: bytes

    @property
    def query(self) -> dict[str, list[str]]:
        """The query of the target."""
        return parse_qs(urlsplit(self.target).query, keep_blank_values=True)

    @property
    def path(self) -> str:
        """The target without its query: bucket and key, percent-encoded."""
        return urlsplit(self.target).path


@dataclass(slots=True)
class QuirkyAnswer:
    """An answer on its way to the client. Rules may change it."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


Ask = Callable[[QuirkyRequest], QuirkyAnswer]
"""Sends a request of a rule's own to the server, or passes one on."""
Rule = Callable[[QuirkyRequest, Ask], QuirkyAnswer]
"""Answers a request, by itself or by what ``Ask`` brings back, which is the next rule and in the end the server."""


def refuse(status: int, code: str, message: str = "not here") -> QuirkyAnswer:
    """An error as S3 words it."""
    return QuirkyAnswer(status, {"content-type": "application/xml"}, _REFUSAL.format(code, message).encode())


class QuirkProxy:
    """A running proxy. ``seen`` are the operations that clients asked for."""

    def __init__(self, upstream: str, rules: Sequence[Rule]) -> None:
        url = urlsplit(upstream)
        self._upstream = url.hostname or "127.0.0.1", url.port or 80
        self._ask: Ask = self._forward
        for rule in reversed(rules):
            self._ask = _chained(rule, self._ask)
        self.seen: list[str] = []
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, request: QuirkyRequest) -> QuirkyAnswer:
        """The answer to a client's request."""
        self.seen.append(request.operation)
        return self._ask(request)

    def _forward(self, request: QuirkyRequest) -> QuirkyAnswer:
        connection = http.client.HTTPConnection(*self._upstream, timeout=60)
        try:
            connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
            for name, value in (request.headers | {"content-length": str(len(request.body))}).items():
                if name not in HOP_BY_HOP:
                    connection.putheader(name, value)
            connection.endheaders(request.body or None)
            with connection.getresponse() as answer:
                headers = {name.lower(): value for name, value in answer.getheaders()}
                body = answer.read()
        finally:
            connection.close()
        return QuirkyAnswer(answer.status, {n: v for n, v in headers.items() if n not in HOP_BY_HOP}, body)


def _chained(rule: Rule, ask: Ask) -> Ask:
    return lambda request: rule(request, ask)


def _handler(proxy: QuirkProxy) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def serve(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            size = int(headers.get("content-length", 0))
            body = self.rfile.read(size)
            if len(body) < size:  # the client has gone
                raise ConnectionAbortedError
            call = recognise(self.command, self.path, copies="x-amz-copy-source" in headers)
            answer = proxy.answer(QuirkyRequest(self.command, self.path, call.operation, headers, body))
            self.send_response_only(answer.status)
            stated = answer.headers.pop("content-length", None) if self.command == "HEAD" else None
            for name, value in (answer.headers | {"content-length": stated or str(len(answer.body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = serve

        def handle(self) -> None:
            with suppress(ConnectionError):
                super().handle()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@contextmanager
def quirk_proxy(upstream: str, rules: Sequence[Rule]) -> Iterator[QuirkProxy]:
    """A proxy in front of ``upstream`` that follows these rules, the first of them nearest to the client."""
    proxy = QuirkProxy(upstream, rules)
    proxy.server.daemon_threads = True
    with served(proxy.server):
        yield proxy
