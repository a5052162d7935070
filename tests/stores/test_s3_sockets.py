"""Slow and hung connections of the S3 store: what moves is never cut, what hangs for the read timeout always is."""

import ctypes
import re
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.s3_stores import s3_store
from tests.stores.reused_buffer import ReusedBuffer
from tests.transfer.sources.http.test_addresses import write_certificate
from worker.errors import SlowDownError, StoreUnavailableError
from worker.stores.s3.s3_store import S3Store

READ_TIMEOUT = 1.5  #: seconds; a busy machine may keep the peer from reading for a while
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: "e"\r\n\r\n'
LARGE = 12_000_000  #: bytes; more than the buffers of both kernels hold
SO_ATTACH_FILTER = 26

Serve = Callable[[socket.socket, threading.Event], None]


@contextmanager
def peer(
    serve: Serve, certificate: Path | None = None, round_trip: float = 0.0, *, read_timeout: float = READ_TIMEOUT
) -> Iterator[S3Store]:
    """A store whose server treats each connection so, until the event is set; by TLS with a certificate.

    ``round_trip``: how many seconds the end of TLS's handshake is on its way. ``read_timeout``: of the store.
    """
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if certificate:
        tls.load_cert_chain(certificate)
    ended = threading.Event()
    threads: list[threading.Thread] = []

    def run(connection: socket.socket) -> None:
        with suppress(OSError), shake_hands(connection, tls, round_trip) if certificate else connection as either:
            serve(either, ended)

    def accept(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                threads.append(threading.Thread(target=run, args=(server.accept()[0],)))
                threads[-1].start()

    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        server.bind(("127.0.0.1", 0))
        server.listen(16)
        threads.append(threading.Thread(target=accept, args=(server,)))
        threads[0].start()
        port = server.getsockname()[1]
        yield store_at(f"https://localhost:{port}" if certificate else f"http://127.0.0.1:{port}", read_timeout)
        ended.set()
        server.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()


def shake_hands(connection: socket.socket, tls: ssl.SSLContext, round_trip: float) -> ssl.SSLSocket:
    connection.recv(1, socket.MSG_PEEK)  # the client's first words are there
    connection.setblocking(False)
    secure = tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
    with suppress(ssl.SSLWantReadError):
        secure.do_handshake()
    time.sleep(round_trip)
    secure.setblocking(True)
    secure.do_handshake()
    return secure


def store_at(endpoint: str, read_timeout: float = READ_TIMEOUT) -> S3Store:
    return s3_store(endpoint, connect_timeout=1.0, read_timeout=read_timeout)


def read_head(connection: socket.socket) -> tuple[int, int]:
    """How many bytes of body are announced, and how many are there already."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(4096)
    announced = re.search(rb"(?i)content-length: (\d+)", head)
    return int(announced[1]) if announced else 0, len(head.partition(b"\r\n\r\n")[2])


def read_request(connection: socket.socket, pause: float = 0.0) -> None:
    wanted, got = read_head(connection)
    while got < wanted:
        got += len(connection.recv(16 * 1024))
        time.sleep(pause)


def send(store: S3Store, size: int) -> float:
    """Send a part; return how many seconds that took."""
    began = time.monotonic()
    store.upload_part("k", "u", 1, ReusedBuffer(bytes(size)))
    return time.monotonic() - began


def read(store: S3Store) -> bytes:
    with store.get("k") as reader:
        return reader.read()


# --- what moves ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2_000_000, LARGE])
@pytest.mark.long
def test_a_body_that_moves_slowly_is_not_cut(size: int) -> None:
    """The smaller one fits into the kernel's buffer: its last bytes leave long after they were sent."""
    with peer(slow_to_read(size)) as store:
        assert send(store, size) > 2 * READ_TIMEOUT


def slow_to_read(size: int) -> Serve:
    pause = 3 * READ_TIMEOUT / (size / (16 * 1024))

    def serve(connection: socket.socket, ended: threading.Event) -> None:
        read_request(connection, pause)
        connection.sendall(ANSWER)

    return serve


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a server of this machine; the store trusts it."""
    path = write_certificate(tmp_path / "certificate.pem")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(path))
    return path


def test_the_same_holds_for_tls_whose_session_tickets_are_no_answer(certificate: Path) -> None:
    """They come a round trip after the handshake, as they do over a distance: the body is with the kernel by then."""
    with peer(slow_to_read(2_000_000), certificate, round_trip=0.5) as store:
        assert send(store, 2_000_000) > 2 * READ_TIMEOUT
    with peer(hung_while_reading, certificate) as store, pytest.raises(StoreUnavailableError):
        send(store, LARGE)


@pytest.mark.parametrize("closes", [True, False])
@pytest.mark.parametrize("is_secure", [True, False])
def test_an_answer_that_does_not_wait_for_the_body_is_read(certificate: Path, is_secure: bool, closes: bool) -> None:
    def serve(connection: socket.socket, ended: threading.Event) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")
        if closes:
            connection.shutdown(socket.SHUT_WR)
        ended.wait()

    with peer(serve, certificate if is_secure else None) as store, pytest.raises(SlowDownError):
        send(store, 2_000_000)


def test_a_proxy_may_be_reached_by_tls_as_the_store_is(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with peer(relay, certificate) as proxy, peer(quick, certificate) as store:
        monkeypatch.setenv("HTTPS_PROXY", proxy.endpoint)
        assert store.upload_part("k", "u", 1, ReusedBuffer(bytes(100_000))).etag == '"e"'
    with peer(relay, certificate) as proxy, peer(hung_while_reading, certificate) as store:
        monkeypatch.setenv("HTTPS_PROXY", proxy.endpoint)
        with pytest.raises(StoreUnavailableError):
            send(store, LARGE)


def quick(connection: socket.socket, ended: threading.Event) -> None:
    read_request(connection)
    connection.sendall(ANSWER)


def relay(connection: socket.socket, ended: threading.Event) -> None:
    """Be a proxy: connect to whom is asked for, and bring to either what the other says."""
    connect = b""
    while not connect.endswith(b"\r\n\r\n"):
        connect += connection.recv(1)
    host, port = connect.split()[1].decode().rsplit(":", 1)
    with socket.create_connection((host, int(port))) as there:
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        ends = {connection: there, there: connection}
        while not ended.is_set():
            for one in select.select(list(ends), [], [], 0.05)[0]:
                if not (piece := one.recv(64 * 1024)):
                    return
                ends[one].sendall(piece)


def test_an_answer_that_trickles_is_read_to_its_end() -> None:
    body = b"0123456789"

    def serve(connection: socket.socket, ended: threading.Event) -> None:
        read_request(connection)
        head = b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\nETag: "e"\r\n\r\n'
        for piece in (head[:5], head[5:], *(body[number : number + 1] for number in range(10))):
            connection.sendall(piece)
            time.sleep(READ_TIMEOUT / 4)

    with peer(serve) as store:
        assert read(store) == body


# --- what hangs ------------------------------------------------------------------------------------------------------


def hung_before_reading(connection: socket.socket, ended: threading.Event) -> None:
    ended.wait()


def hung_while_reading(connection: socket.socket, ended: threading.Event) -> None:
    read_head(connection)
    connection.recv(16 * 1024)
    ended.wait()


def hung_before_answering(connection: socket.socket, ended: threading.Event) -> None:
    read_request(connection)
    ended.wait()


def hung_while_answering(connection: socket.socket, ended: threading.Event) -> None:
    read_request(connection)
    connection.sendall(ANSWER[:12])
    ended.wait()


def cut_off(connection: socket.socket, ended: threading.Event) -> None:
    """From here on the kernel drops what comes in, unacknowledged: packets go nowhere, and nobody says so."""
    read_head(connection)
    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: return 0 bytes of each packet
    program = struct.pack("HP", 1, ctypes.addressof(drop_all))
    connection.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    ended.wait()


@pytest.mark.parametrize("size", [pytest.param(500_000, marks=pytest.mark.long), LARGE])
@pytest.mark.parametrize(
    "serve", [hung_before_reading, hung_while_reading, hung_before_answering, hung_while_answering, cut_off]
)
def test_a_connection_that_hangs_is_given_up(serve: Serve, size: int) -> None:
    with peer(serve) as store:
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError):
            send(store, size)
    # The kernel doubles the time between two probes; a default of its own is a quarter of an hour.
    assert READ_TIMEOUT / 2 < time.monotonic() - began < 15


def hung_within_the_body(connection: socket.socket, ended: threading.Event) -> None:
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234")
    ended.wait()


def test_a_stream_that_falls_silent_is_given_up() -> None:
    with peer(hung_within_the_body) as store, store.get("k") as reader, pytest.raises(StoreUnavailableError):
        reader.read()


def test_a_server_that_does_not_accept_is_given_up() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        address = server.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for connection in waiting:  # the queue is full: the next SYN is dropped
            connection.setblocking(False)
            connection.connect_ex(address)
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError):
            send(store_at(f"http://127.0.0.1:{address[1]}"), 100)
        for connection in waiting:
            connection.close()
    assert time.monotonic() - began < 15


# --- what is cut off by another thread -------------------------------------------------------------------------------


@pytest.mark.parametrize("by_tls", [False, True])
def test_a_read_that_waits_ends_when_another_thread_cuts_it_off(by_tls: bool, certificate: Path) -> None:
    """Long before the read timeout, and in the middle of a TLS record too."""

    def serve(connection: socket.socket, ended: threading.Event) -> None:
        read_request(connection)
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nETag: "e"\r\n\r\n' + bytes(300))
        ended.wait()

    with peer(serve, certificate if by_tls else None, read_timeout=300) as store, store.get("k") as reader:
        assert reader.readinto(memoryview(bytearray(200))) == 200
        found: list[object] = []

        def wait_for_more() -> None:
            try:
                found.append(reader.readinto(memoryview(bytearray(800))))
            except StoreUnavailableError as error:
                found.append(error)

        waiting = threading.Thread(target=wait_for_more)
        waiting.start()
        while waiting.is_alive():  # it may not have begun to wait yet
            reader.abort()
            waiting.join(0.1)
    (end,) = found
    assert isinstance(end, StoreUnavailableError) or end == 100


def test_a_reader_that_is_done_may_be_cut_off_without_harm_to_the_next_request() -> None:
    def serve(connection: socket.socket, ended: threading.Event) -> None:
        for _ in range(2):
            read_request(connection)
            connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 3\r\nETag: "e"\r\n\r\nabc')

    with peer(serve) as store:
        with store.get("k") as reader:
            assert reader.readinto(memoryview(bytearray(9))) == 3
            reader.abort()
        reader.abort()
        assert read(store) == b"abc"
