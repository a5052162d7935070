"""The head of an answer: whole, of bounded size and within bounded time, or it is none."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.transfer.bench import read
from tests.transfer.sources.http.http_site import loopback
from worker.errors import SourceError, SourceUnavailableError
from worker.transfer.sources.http.http_source import HttpSource

Answer = Callable[[socket.socket], None]


@contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """The URL of a server that hears each request and then does what it likes, byte by byte."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            if ended.is_set():
                connection.close()
                return
            with connection:
                connection.recv(10_000)
                try:
                    answer(connection)
                except OSError:  # the other side has had enough
                    continue

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/a"
    finally:
        ended.set()
        socket.create_connection(listener.getsockname()).close()
        thread.join()
        listener.close()


def opening(url: str, directory: Path, read_timeout: float = 5) -> SourceError:
    with pytest.raises(SourceError) as caught:
        HttpSource.open(url, loopback(http_read_seconds=read_timeout, http_spool_directory=directory)).close()
    return caught.value


def test_headers_that_drip_for_ever_are_given_up(tmp_path: Path) -> None:
    """Each byte comes well within the read timeout."""

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while True:
            connection.sendall(b"s")
            time.sleep(0.05)

    with answering(drip) as url:
        begun = time.monotonic()
        error = opening(url, tmp_path, read_timeout=0.5)
        assert isinstance(error, SourceUnavailableError)
        assert time.monotonic() - begun < 20


HEADS = {
    "nothing": b"",
    "no header": b"HTTP/1.1 200 OK\r\n",
    "no empty line": b'HTTP/1.1 200 OK\r\nETag: "one"\r\n',
    "half a header": b"HTTP/1.1 200 OK\r\nET",
    "a long header": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n",
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
}


@pytest.mark.parametrize("sent", HEADS.values(), ids=HEADS)
def test_an_answer_whose_head_breaks_off_or_is_without_measure_is_no_empty_body(sent: bytes, tmp_path: Path) -> None:
    with answering(lambda connection: connection.sendall(sent)) as url:
        assert isinstance(opening(url, tmp_path), SourceUnavailableError)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("interim", [b"102 Processing", b"103 Early Hints"])
def test_an_interim_answer_is_not_taken_for_the_final_one(interim: bytes, ranges: bool, tmp_path: Path) -> None:
    def hint(connection: socket.socket) -> None:
        for _ in range(2):
            connection.sendall(b"HTTP/1.1 " + interim + b"\r\nLink: </a.css>; rel=preload\r\n\r\n")
        if ranges:
            connection.sendall(
                b'HTTP/1.1 206 x\r\nContent-Length: 1\r\nContent-Range: bytes 0-0/1\r\nETag: "a"\r\n\r\n!'
            )
        else:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n!")

    with (
        answering(hint) as url,
        closing(HttpSource.open(url, loopback(http_spool_directory=tmp_path))) as source,
    ):
        assert (source.size, read(source, 0, 1)) == (1, b"!")


def test_interim_answers_without_end_are_given_up(tmp_path: Path) -> None:
    def hint(connection: socket.socket) -> None:
        while True:
            connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            time.sleep(0.02)

    with answering(hint) as url:
        assert "timed out" in str(opening(url, tmp_path, read_timeout=0.2))
