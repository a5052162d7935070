"""Endpoints of a test's own: a real http server that answers as told, and remembers what was posted to it."""

import ssl
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook

from dev.serving import served

SECRET = "whsec_" + "b2xkIHNlY3JldCBvZiB0aGUgdGVzdHMsIDMyIGJ5dGVzIQ=="
NEW_SECRET = "whsec_" + "bmV3IHNlY3JldCBvZiB0aGUgdGVzdHMsIDMyIGJ5dGVzIQ=="

Answer = Callable[["PostHandler"], None]


@dataclass(frozen=True, slots=True)
class Posted:
    """One POST as it came in."""

    path: str
    headers: dict[str, str]
    body: bytes

    def verified(self, secret: str = SECRET) -> Any:
        """The message, if the library for receivers finds its signature right."""
        return Webhook(secret).verify(self.body, self.headers)


@dataclass
class WebhookSite:
    """Answers 204 at every path, unless the script of that path says otherwise. A script is used up in order."""

    url: str
    posted: list[Posted] = field(default_factory=list)
    scripts: dict[str, deque[Answer]] = field(default_factory=lambda: defaultdict(deque))
    asked: list[str] = field(default_factory=list)  #: paths of requests that were no POST
    hanging: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))  #: one for each that hangs
    released: threading.Event = field(default_factory=threading.Event)  #: lets those that hang go

    def of(self, path: str) -> list[Posted]:
        return [each for each in self.posted if each.path == path]


class PostHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"
    timeout = 20

    def do_POST(self) -> None:
        site = self.server.site
        body = self.rfile.read(int(self.headers["Content-Length"]))
        posted = Posted(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        script = site.scripts[self.path]
        answer = script.popleft() if script else status(204)
        site.posted.append(posted)
        answer(self)

    def do_GET(self) -> None:
        self.server.site.asked.append(self.path)
        status(200)(self)

    def log_message(self, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    site: WebhookSite

    def handle_error(self, *args: Any) -> None:
        pass  # a client that has gone, mostly


def status(code: int, **headers: str) -> Answer:
    def answer(handler: PostHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def hang(handler: PostHandler) -> None:
    """Take the request and answer nothing, until the site lets it go."""
    site = handler.server.site
    site.hanging.release()
    site.released.wait(60)
    handler.close_connection = True


def hang_up(handler: PostHandler) -> None:
    handler.close_connection = True


@contextmanager
def receiving(*, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Iterator[WebhookSite]:
    """A site on a port of its own."""
    server = _Server((address, 0), PostHandler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    site = server.site = WebhookSite(f"{'https' if tls else 'http'}://{address}:{server.server_address[1]}")
    with served(server, before_close=site.released.set):
        yield site
