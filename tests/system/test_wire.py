"""The wire fails in exactly the ways it is told to."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dev.proxies.tcp import Upstream, Wire, wire
from dev.services import wait_until

pytestmark = pytest.mark.timeout(60)
PATIENCE = 10.0  #: seconds
SILENCE = 0.3  #: seconds without an answer that are taken for none


HEARD: list[bytes] = []


class Echo(socketserver.StreamRequestHandler):
    """Answers each line and remembers it."""

    def handle(self) -> None:
        for line in self.rfile:
            HEARD.append(line)
            self.wfile.write(line)


@pytest.fixture(params=["tcp", "unix"])
def echo(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Upstream, list[bytes]]]:
    server: socketserver.BaseServer
    upstream: Upstream
    if request.param == "tcp":
        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
        upstream = ("127.0.0.1", server.server_address[1])
    else:
        upstream = tmp_path / "echo"
        server = socketserver.ThreadingUnixStreamServer(str(upstream), Echo)
    HEARD.clear()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield upstream, HEARD
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def connected(through: Wire) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", through.port), timeout=PATIENCE) as connection:
        yield connection


def ask(connection: socket.socket, line: bytes, *, timeout: float = PATIENCE) -> bytes:
    connection.settimeout(timeout)
    connection.sendall(line)
    return connection.recv(1000)


def test_it_carries_bytes_both_ways_and_counts_them(echo: tuple[Upstream, list[bytes]]) -> None:
    with wire(echo[0]) as w, connected(w) as one, connected(w) as other:
        assert ask(one, b"first\n") == b"first\n"
        assert ask(other, b"second\n") == b"second\n"
        assert (w.to_server, w.to_client, w.connections) == (13, 13, 2)


def test_frozen_it_passes_nothing_and_closes_nothing_until_it_thaws(echo: tuple[Upstream, list[bytes]]) -> None:
    upstream, heard = echo
    with wire(upstream) as w, connected(w) as old:
        assert ask(old, b"before\n") == b"before\n"
        w.freeze()
        with connected(w) as new:
            for connection in (old, new):
                with pytest.raises(TimeoutError):
                    ask(connection, b"lost?\n", timeout=SILENCE)
            assert heard == [b"before\n"]
            w.thaw()
            for connection in (old, new):
                connection.settimeout(PATIENCE)
                assert connection.recv(100) == b"lost?\n"


def test_only_the_connections_of_now_freeze_while_new_ones_work(echo: tuple[Upstream, list[bytes]]) -> None:
    with wire(echo[0]) as w, connected(w) as old:
        assert ask(old, b"before\n") == b"before\n"
        w.freeze_existing()
        with connected(w) as new:
            assert ask(new, b"new\n") == b"new\n"
        with pytest.raises(TimeoutError):
            ask(old, b"old\n", timeout=SILENCE)


def test_cut_connections_are_reset_and_new_ones_work(echo: tuple[Upstream, list[bytes]]) -> None:
    with wire(echo[0]) as w, connected(w) as old:
        assert ask(old, b"before\n") == b"before\n"
        w.cut()
        with pytest.raises(ConnectionResetError):
            old.recv(1)
        with connected(w) as new:
            assert ask(new, b"new\n") == b"new\n"


def test_it_refuses_new_connections_until_it_accepts_them_again(echo: tuple[Upstream, list[bytes]]) -> None:
    with wire(echo[0]) as w, connected(w) as old:
        assert ask(old, b"before\n") == b"before\n"
        w.refuse()
        w.refuse()
        with pytest.raises(ConnectionRefusedError), connected(w):
            pass
        assert ask(old, b"old\n") == b"old\n"
        w.accept()
        with connected(w) as new:
            assert ask(new, b"new\n") == b"new\n"


@pytest.mark.parametrize("before", [True, False])
def test_it_cuts_at_a_token_before_the_server_hears_or_after_it_has_answered(
    before: bool, echo: tuple[Upstream, list[bytes]]
) -> None:
    upstream, heard = echo
    with wire(upstream) as w, connected(w) as one, connected(w) as other:
        w.cut_at(b"COMMIT", before=before, nth=2, following=b"parts")
        assert ask(one, b"COMMIT\n") == b"COMMIT\n"
        assert ask(other, b"parts\n") == b"parts\n"
        assert ask(one, b"parts\n") == b"parts\n"
        assert ask(one, b"COMMIT\n") == b"COMMIT\n"
        assert ask(one, b"COMMIT\n") == b"COMMIT\n", "nothing of the kind went before this one"
        assert w.cuts == 0
        other.sendall(b"COM")
        with pytest.raises(ConnectionResetError):
            ask(other, b"MIT\n")
        assert w.cuts == 1
        assert ask(one, b"parts COMMIT\n") == b"parts COMMIT\n", "once only"
        if not before:
            wait_until(lambda: heard.count(b"COMMIT\n") == 4, PATIENCE, "the server has heard it")
        assert heard.count(b"COMMIT\n") == (3 if before else 4)


def test_a_delay_holds_answers_back(echo: tuple[Upstream, list[bytes]]) -> None:
    upstream, heard = echo
    with wire(upstream) as w, connected(w) as connection:
        w.delay(to_client=2 * SILENCE)
        with pytest.raises(TimeoutError):
            ask(connection, b"slow\n", timeout=SILENCE)
        assert heard == [b"slow\n"]
        connection.settimeout(PATIENCE)
        assert connection.recv(100) == b"slow\n"


def test_a_server_that_is_gone_is_no_wire_that_hangs(tmp_path: Path) -> None:
    # The reset may come as early as the client asks whether it is connected.
    with wire(tmp_path / "nobody") as w, pytest.raises(ConnectionResetError), connected(w) as connection:
        connection.recv(1)
