"""Stores for the contract suite, and a server that answers what a test tells it to."""

import http.server
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from typing import Any

import pytest

from dev.services import S3Service, create_bucket, moto, swift
from worker.stores.local import LocalStore
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.s3.s3_store import S3Access, S3Store
from worker.stores.store import Store

BUCKET = "contract-suite"
KINDS = ("memory", "local", "moto", "swift")
_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Answer:
    """One scripted HTTP answer. ``cut`` bytes of the announced body are never sent."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int = 0
    hang_up: bool = False  #: close the connection without any answer
    delay: float = 0.0  #: seconds before the answer


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """What a client really sent. Header names are lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class ScriptedServer:
    """An HTTP server that gives its answers in turn and remembers what it was asked; the last answer is repeated."""

    def __init__(self) -> None:
        self.requests: list[SeenRequest] = []
        self._answers: deque[Answer] = deque()
        script = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                script._serve(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"

    def script(self, *answers: Answer) -> None:
        self._answers = deque(answers)

    def store(self, **settings: Any) -> S3Store:
        access: dict[str, Any] = {"max_attempts": 1} | {
            name: settings.pop(name) for name in list(settings) if name in ACCESS_FIELDS
        }
        credentials: dict[str, Any] = {"access_key": "AKIDTEST", "secret_key": "s3cr3t-test"}
        return S3Store(
            S3Access(region="us-east-1", endpoint=self.endpoint, path_style=True, **credentials, **access),
            "bucket",
            **settings,
        )

    def _serve(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length", 0))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.requests.append(SeenRequest(handler.command, handler.path, headers, handler.rfile.read(length)))
        answer = self._answers.popleft() if len(self._answers) > 1 else self._answers[0]
        time.sleep(answer.delay)
        handler.close_connection = answer.hang_up or answer.cut > 0
        if answer.hang_up:
            return
        handler.send_response(answer.status)
        for name, value in ({"Content-Length": str(len(answer.body))} | dict(answer.headers)).items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(answer.body[: len(answer.body) - answer.cut])


ACCESS_FIELDS = {"sign_payload", "session_token", "max_attempts", "read_timeout", "connect_timeout"}


@pytest.fixture(scope="session")
def moto_service() -> Iterator[S3Service]:
    with moto() as service:
        create_bucket(service, BUCKET)
        yield service


@pytest.fixture(scope="session")
def swift_service() -> Iterator[S3Service]:
    with swift() as service:
        create_bucket(service, BUCKET)
        yield service


def s3_store(service: S3Service, bucket: str = BUCKET, **settings: Any) -> S3Store:
    access: dict[str, Any] = {
        "region": service.region,
        "endpoint": service.endpoint,
        "access_key": service.access_key,
        "secret_key": service.secret_key,
        "path_style": True,
    }
    access |= {name: settings.pop(name) for name in list(settings) if name in {*ACCESS_FIELDS, "secret_key"}}
    return S3Store(S3Access(**access), bucket, **settings)


@pytest.fixture
def make_s3_store() -> Any:
    """A constructor of S3 stores from a running service; keyword arguments of S3Access and S3Store alike."""
    return s3_store


@pytest.fixture(scope="session")
def stores(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Store]:
    """One store a kind for the whole session; its server is started when it is first asked for."""

    @cache
    def make(kind: str) -> Store:
        if kind == "memory":
            return MemoryStore()
        if kind == "local":
            return LocalStore(tmp_path_factory.mktemp("local") / "bucket")
        return s3_store(request.getfixturevalue(f"{kind}_service"))

    return make


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which store the test runs on."""
    return str(request.param)


@pytest.fixture
def store(kind: str, stores: Callable[[str], Store]) -> Store:
    return stores(kind)


@pytest.fixture
def prefix() -> str:
    """Keys under it belong to this test alone."""
    return f"t{next(_numbers)}/"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    scripted = ScriptedServer()
    thread = threading.Thread(target=scripted.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield scripted
    scripted.server.shutdown()
    scripted.server.server_close()
    thread.join()


@pytest.fixture
def answer() -> type[Answer]:
    return Answer
