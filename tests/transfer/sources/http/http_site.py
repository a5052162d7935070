"""A web server of a test's own on a loopback address: it answers as told, and remembers what it was asked."""

import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, Literal

from dev.serving import served
from worker.errors import SourceError
from worker.settings import SourcesSettings

OLD = "Wed, 01 Jan 2020 00:00:00 GMT"

Answer = Callable[["Handler"], None]
Framing = Literal["length", "chunked", "close"]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: "_Server"
    timeout = 20
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        site = self.server.site
        with site.lock:
            site.requests.append((self.path, self.headers))
            answer = site.script.popleft() if site.script else site.routes.get(self.path, give)
        answer(self)

    def log_message(self, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    site: "Site"

    def handle_error(self, *args: Any) -> None:
        pass  # a client that has gone, mostly


@dataclass
class Site:
    """What is served at every path, unless the script or a route says otherwise. ``script`` is used up in order."""

    url: str
    data: bytes
    etag: str | None = '"one"'
    last_modified: str | None = OLD
    ranges: bool = True
    framing: Framing = "length"
    headers: dict[str, str] = field(default_factory=dict)
    routes: dict[str, Answer] = field(default_factory=dict)
    script: deque[Answer] = field(default_factory=deque)
    requests: list[tuple[str, Message]] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    @property
    def paths(self) -> list[str]:
        """The paths of all requests."""
        return [path for path, _ in self.requests]

    def asked(self, name: str) -> list[str | None]:
        """One header of all requests."""
        return [headers[name] for _, headers in self.requests]


def give(handler: Handler, *, most: int | None = None, only: int | None = None) -> None:
    """The data, as a well-behaved server gives them; of a range at most so many bytes, ``only`` as in ``send``."""
    site = handler.server.site
    found, condition = handler.headers["Range"], handler.headers["If-Range"]
    if not (site.ranges and found and condition in (None, site.etag or site.last_modified)):
        send(handler, 200, {}, site.data, framing=site.framing, only=only)
        return
    first, last = (int(number) for number in found.removeprefix("bytes=").split("-"))
    if body := site.data[first : last + 1][:most]:
        span = f"bytes {first}-{first + len(body) - 1}/{len(site.data)}"
        send(handler, 206, {"Content-Range": span}, body, only=only)
    else:
        send(handler, 416, {"Content-Range": f"bytes */{len(site.data)}"})


def send(
    handler: Handler,
    status: int,
    headers: dict[str, str],
    body: bytes = b"",
    *,
    framing: Framing = "length",
    only: int | None = None,
) -> None:
    """An answer; ``only`` so many bytes of its body, and then the connection is gone."""
    site = handler.server.site
    handler.send_response(status)
    framed = {
        "length": {"Content-Length": str(len(body))},
        "chunked": {"Transfer-Encoding": "chunked"},
        "close": {"Connection": "close"},
    }[framing]
    validators = {"ETag": site.etag, "Last-Modified": site.last_modified}
    for name, value in {**validators, **framed, **site.headers, **headers}.items():
        if value:
            handler.send_header(name, value)
    handler.end_headers()
    if framing == "chunked":
        pieces = [body[at : at + 1000] for at in range(0, len(body), 1000)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    handler.wfile.write(body[:only])
    if only is not None or framing == "close":
        handler.close_connection = True


def status(code: int, **headers: str) -> Answer:
    return lambda handler: send(handler, code, {name.replace("_", "-"): value for name, value in headers.items()})


def redirect(url: str, code: int = 302) -> Answer:
    return status(code, Location=url)


def hang_up(handler: Handler) -> None:
    """No answer at all."""
    handler.close_connection = True


def drop_after(count: int) -> Answer:
    """The right answer, which breaks off after so many bytes of its body."""
    return lambda handler: give(handler, only=count)


def tell(code: int, headers: dict[str, str], body: bytes = b"") -> Answer:
    """Whatever a server should not say."""
    return lambda handler: send(handler, code, headers, body)


@contextmanager
def serving(
    data: bytes, *, address: str = "127.0.0.1", host: str | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[Site]:
    """A site that serves the data, on a port of its own."""
    server = _Server((address, 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    url = f"{'https' if tls else 'http'}://{host or address}:{server.server_address[1]}"
    server.site = Site(url, data)
    with served(server):
        yield server.site


def is_permanent(error: SourceError) -> bool:
    """Whether no retry mends it."""
    return not error.transient


def loopback(**settings: Any) -> SourcesSettings:
    """The settings of a test: sources on loopback are allowed, unless told otherwise."""
    return SourcesSettings(**{"http_allow_private": True, **settings})


class Listener:
    """Accepts connections and writes down what comes in."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []  #: of each connection that has ended
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection:
                connection.settimeout(2)
                data = b""
                try:
                    while piece := connection.recv(1000):
                        data += piece
                except TimeoutError:
                    data += b"(still open)"
            if data == b"the end":
                return
            self.heard.append(data)

    def close(self) -> None:
        """End, after all connections so far have been heard. Doing it again does nothing."""
        if not self._thread.is_alive():
            return
        with socket.create_connection(("127.0.0.1", self.port)) as last:
            last.sendall(b"the end")
        self._thread.join()
        self._socket.close()
