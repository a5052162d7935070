"""An HTTP server that gives the answers that a test has written down, and keeps the requests."""

import http.server
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.s3_stores import s3_store
from worker.stores.s3.s3_store import S3Store

ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{}</Code><Message>told by the test</Message></Error>'


@dataclass(frozen=True, slots=True)
class Answer:
    """One scripted HTTP answer. ``cut`` bytes of the announced body are never sent."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int = 0
    hang_up: bool = False  #: close the connection without any answer


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

    def refuse(self, status: int, code: str) -> None:
        """Answer everything with this error."""
        self.script(refusal(status, code))

    def script(self, *answers: Answer) -> None:
        self._answers = deque(answers)

    def store(self, **settings: Any) -> S3Store:
        return s3_store(self.endpoint, **settings)

    def _serve(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length", 0))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.requests.append(SeenRequest(handler.command, handler.path, headers, handler.rfile.read(length)))
        answer = self._answers.popleft() if len(self._answers) > 1 else self._answers[0]
        handler.close_connection = answer.hang_up or answer.cut > 0
        if answer.hang_up:
            return
        handler.send_response(answer.status)
        for name, value in ({"Content-Length": str(len(answer.body))} | dict(answer.headers)).items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(answer.body[: len(answer.body) - answer.cut])


def refusal(status: int, code: str) -> Answer:
    """An error as S3 words it."""
    return Answer(status, ERROR.format(code).encode())
