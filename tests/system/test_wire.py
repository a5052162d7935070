"""The wire fails in exactly the ways it is told to."""

import socket
import socketserver
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from dev.proxies.tcp import Upstream, Wire, wire
from dev.services import wait_until
from dev.serving import served

pytestmark = pytest.mark.timeout(60)
PATIENCE = 10.0  #: seconds
SILENCE = 0.3  #: seconds without an answer that are taken for none


class Echo(socketserver.StreamRequestHandler):
    """Answers each line and remembers it."""

    heard: ClassVar[list[bytes]] = []

    def handle(self) -> None:
        for line in self.rfile:
            self.heard.append(line)
            self.wfile.write(line)


@pytest.fixture(params=["tcp", "unix"])
def through(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Wire]:
    """A wire to an echo."""
    server: socketserver.BaseServer
    upstream: Upstream
    if request.param == "tcp":
        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
        upstream = ("127.0.0.1", server.server_address[1])
    else:
        upstream = tmp_path / "echo"
        server = socketserver.ThreadingUnixStreamServer(str(upstream), Echo)
    Echo.heard.clear()
    with served(server), wire(upstream) as running:
        yield running


@contextmanager
def connected(through: Wire) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", through.port), timeout=PATIENCE) as connection:
        yield connection


@pytest.fixture
def old(through: Wire) -> Iterator[socket.socket]:
    """A connection that has been in use."""
    with connected(through) as connection:
        answers(connection, b"before\n")
        yield connection


def answers(connection: socket.socket, line: bytes) -> None:
    connection.sendall(line)
    assert connection.recv(1000) == line


def is_silent(connection: socket.socket, line: bytes) -> None:
    """No answer comes to the line, for a while."""
    connection.settimeout(SILENCE)
    connection.sendall(line)
    with pytest.raises(TimeoutError):
        connection.recv(1000)
    connection.settimeout(PATIENCE)


def test_it_carries_bytes_both_ways_and_counts_them(through: Wire) -> None:
    with connected(through) as one, connected(through) as other:
        answers(one, b"first\n")
        answers(other, b"second\n")
        assert (through.to_server, through.to_client, through.connections) == (13, 13, 2)


def test_frozen_it_passes_nothing_and_closes_nothing_until_it_thaws(through: Wire, old: socket.socket) -> None:
    through.freeze()
    with connected(through) as new:
        for connection in (old, new):
            is_silent(connection, b"lost?\n")
        assert Echo.heard == [b"before\n"]
        through.thaw()
        for connection in (old, new):
            assert connection.recv(100) == b"lost?\n"


def test_only_the_connections_of_now_freeze_while_new_ones_work(through: Wire, old: socket.socket) -> None:
    through.freeze_existing()
    with connected(through) as new:
        answers(new, b"new\n")
    is_silent(old, b"old\n")


def test_cut_connections_are_reset_and_new_ones_work(through: Wire, old: socket.socket) -> None:
    through.cut()
    with pytest.raises(ConnectionResetError):
        old.recv(1)
    with connected(through) as new:
        answers(new, b"new\n")


def test_it_refuses_new_connections_until_it_accepts_them_again(through: Wire, old: socket.socket) -> None:
    through.refuse()
    through.refuse()
    with pytest.raises(ConnectionRefusedError), connected(through):
        pass
    answers(old, b"old\n")
    through.accept()
    with connected(through) as new:
        answers(new, b"new\n")


@pytest.mark.parametrize("before", [True, False])
def test_it_cuts_at_a_token_before_the_server_hears_or_after_it_has_answered(before: bool, through: Wire) -> None:
    with connected(through) as one, connected(through) as other:
        through.cut_at(b"COMMIT", before=before, nth=2, following=b"parts")
        answers(one, b"COMMIT\n")
        answers(other, b"parts\n")
        answers(one, b"parts\n")
        answers(one, b"COMMIT\n")
        answers(one, b"COMMIT\n")  # nothing of the kind went before this one
        assert through.cuts == 0
        other.sendall(b"COM")
        with pytest.raises(ConnectionResetError):
            answers(other, b"MIT\n")
        assert through.cuts == 1
        answers(one, b"parts COMMIT\n")  # once only
        heard = 3 if before else 4
        wait_until(lambda: Echo.heard.count(b"COMMIT\n") == heard, PATIENCE, "the server has heard it")
        assert Echo.heard.count(b"COMMIT\n") == heard


def test_a_delay_holds_answers_back(through: Wire) -> None:
    with connected(through) as connection:
        through.delay(to_client=2 * SILENCE)
        is_silent(connection, b"slow\n")
        assert Echo.heard == [b"slow\n"]
        assert connection.recv(100) == b"slow\n"


def test_a_server_that_is_gone_is_no_wire_that_hangs(tmp_path: Path) -> None:
    # The reset may come as early as the client asks whether it is connected.
    with wire(tmp_path / "nobody") as through, pytest.raises(ConnectionResetError), connected(through) as connection:
        connection.recv(1)
