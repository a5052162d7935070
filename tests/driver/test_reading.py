"""read_stream: a binary file over one version of a blob, from any offset, whatever happens to the connection."""

import io
from contextlib import ExitStack, suppress

import pytest

from tests.driver.blobs_and_readers import DroppingStore, MakeDriver, content, data, put
from tests.driver.store_kinds import PART, cases
from worker.driver import Driver
from worker.errors import BlobferryError, PathNotFoundError, PermissionDeniedError

pytestmark = pytest.mark.no_cover

SIZE = 96


@cases("offset, left", [(0, 96), (32, 64), (95, 1), (96, 0), (97, 0), (10**15, 0)], [(1, 95), (64, 32)])
@pytest.mark.every_run_on("local", "swift")
def test_a_stream_begins_at_its_offset_and_is_empty_at_and_past_the_end(driver: Driver, offset: int, left: int) -> None:
    put(driver, "/a", data(SIZE))
    with driver.read_stream("/a", offset) as stream:
        assert stream.read() == data(SIZE)[offset:]
        assert stream.read() == stream.read(1) == b""
    assert len(data(SIZE)[offset:]) == left


@cases("offset", [0, 1_000], [1])
def test_a_stream_of_an_empty_blob_is_empty_at_any_offset(driver: Driver, offset: int) -> None:
    put(driver, "/a", b"")
    with driver.read_stream("/a", offset) as stream:
        assert stream.read() == b""


@cases("path, offset", [("/missing", 0), ("/missing", 64), ("/dir", 0)], [("/dir", 64)])
def test_a_missing_path_or_a_directory_fails_at_the_call(driver: Driver, path: str, offset: int) -> None:
    put(driver, "/dir/file", data(SIZE))
    with pytest.raises(PathNotFoundError) as caught:
        driver.read_stream(path, offset)
    assert (caught.value.path, caught.value.driver) == (path, driver.store.name)


def test_the_offset_may_be_left_out_and_a_read_of_nothing_does_not_move(driver: Driver) -> None:
    put(driver, "/a", data(SIZE))
    with driver.read_stream("/a") as stream:
        assert stream.read(0) == b""
        assert stream.read() == data(SIZE)


@cases("size", [7, 100_000], [1, 1_000, 8_192])
def test_reads_of_any_size_join_to_the_whole(driver: Driver, size: int) -> None:
    put(driver, "/a", data(20_000))
    with driver.read_stream("/a", 3) as stream:
        pieces = list(iter(lambda: stream.read(size), b""))
    assert b"".join(pieces) == data(20_000)[3:]
    assert all(len(piece) == size for piece in pieces[:-1])


def test_readinto_fills_a_buffer(driver: Driver) -> None:
    put(driver, "/a", data(SIZE))
    buffer = bytearray(64)
    with driver.read_stream("/a") as stream:
        assert (stream.readinto(buffer), bytes(buffer)) == (64, data(SIZE)[:64])
        assert (stream.readinto(buffer), bytes(buffer[:32])) == (32, data(SIZE)[64:])
        assert stream.readinto(buffer) == 0


def test_a_stream_is_a_binary_file_of_lines(driver: Driver) -> None:
    put(driver, "/a", b"one\ntwo\n\nlast")
    with driver.read_stream("/a") as stream:
        assert list(stream) == [b"one\n", b"two\n", b"\n", b"last"]
    with driver.read_stream("/a") as stream:
        assert stream.readline() == b"one\n"
        assert stream.readlines() == [b"two\n", b"\n", b"last"]


def test_a_stream_can_be_wrapped_as_text(driver: Driver) -> None:
    put(driver, "/a", "grüße\nan alle".encode())
    with io.TextIOWrapper(driver.read_stream("/a"), encoding="utf-8") as text:
        assert text.read() == "grüße\nan alle"


def test_a_stream_is_readable_and_not_writable(driver: Driver) -> None:
    put(driver, "/a", data(SIZE))
    with driver.read_stream("/a") as stream:
        assert isinstance(stream, io.BufferedIOBase)
        assert stream.readable()
        assert not stream.writable()
        with pytest.raises((io.UnsupportedOperation, AttributeError)):
            stream.write(b"x")  # type: ignore[attr-defined, unused-ignore]


def test_a_stream_is_closed_by_its_with_statement_and_then_refuses(driver: Driver) -> None:
    put(driver, "/a", data(SIZE))
    with driver.read_stream("/a") as stream:
        assert not stream.closed
        stream.read(1)
    assert stream.closed
    stream.close()  # again is no error
    with pytest.raises(ValueError, match="closed"):
        stream.read(1)


@pytest.mark.every_run_on("moto", "swift")
def test_a_stream_that_is_left_early_gives_its_connection_back(driver: Driver) -> None:
    put(driver, "/a", data(300_000))
    for _ in range(30):  # more than there are connections
        with driver.read_stream("/a") as stream:
            assert stream.read(10) == data(300_000)[:10]


@pytest.mark.every_run_on("local")
def test_many_streams_of_one_blob_do_not_meet(driver: Driver) -> None:
    put(driver, "/a", data(5_000))
    with ExitStack() as streams:
        offsets = (0, 1_000, 2_000, 3_000)
        opened = [(offset, streams.enter_context(driver.read_stream("/a", offset))) for offset in offsets]
        for turn in range(4):
            for offset, stream in opened:
                assert stream.read(500) == data(5_000)[offset + 500 * turn :][:500]


def test_a_stream_of_many_parts_is_whole(driver: Driver) -> None:
    driver.write_stream("/a", 0, io.BytesIO(data(5 * PART + 3)))
    with driver.read_stream("/a", PART - 1) as stream:
        assert stream.read() == data(5 * PART + 3)[PART - 1 :]


def test_a_file_and_a_directory_of_one_name_read_as_the_file(driver: Driver) -> None:
    put(driver, "/a", b"file")
    put(driver, "/a/b", b"below")
    with driver.read_stream("/a") as stream:
        assert stream.read() == b"file"


# --- one version, and connections that break off -------------------------------------------------------------------

LARGE = 3_000_000  # more than any buffer on the way
OTHER = data(5_000, seed=2)
MORE_CHANGES = {"at once": (0, OTHER), "late": (2_999, OTHER), "shorter": (100, b"short")}


@pytest.mark.every_run_on("moto", "swift")
def test_a_blob_that_is_replaced_while_it_is_read_is_an_error_or_the_old_one_and_never_a_mixture(
    driver: Driver,
) -> None:
    old = data(LARGE, seed=1)
    put(driver, "/a", old)
    with driver.read_stream("/a") as stream:
        assert stream.read(10) == old[:10]
        put(driver, "/a", data(LARGE, seed=2))
        with suppress(BlobferryError):
            assert stream.read() == old[10:]


@cases(
    "offset, sizes",
    {"0 after 100": (0, [100]), "17 after 4000": (17, [4_000]), "0 again and again": (0, [400, 400])},
    {f"{offset} after {size}": (offset, [size]) for offset in (0, 17) for size in (0, 1, 101, 4_999)},
)
@pytest.mark.every_run_on("moto", only="after")
def test_a_dropped_connection_goes_on_at_the_byte_that_it_had_reached(
    driver: Driver, on: MakeDriver, offset: int, sizes: list[int]
) -> None:
    put(driver, "/a", data(5_000))
    dropping = DroppingStore(driver.store, *sizes)
    with on(dropping).read_stream("/a", offset) as stream:
        assert stream.read() == data(5_000)[offset:]
    assert dropping.sizes == []


def test_a_connection_that_never_brings_a_byte_is_an_error_and_no_short_stream(driver: Driver, on: MakeDriver) -> None:
    put(driver, "/a", data(1_000))
    with on(DroppingStore(driver.store, *[0] * 1_000)).read_stream("/a") as stream, pytest.raises(BlobferryError):
        stream.read()


@cases("size, new", {"replaced": (100, OTHER), "deleted": (100, None)}, MORE_CHANGES)
@pytest.mark.every_run_on("local", "moto", only="deleted")
def test_a_blob_that_was_replaced_or_deleted_when_the_connection_drops_is_an_error(
    driver: Driver, on: MakeDriver, size: int, new: bytes | None
) -> None:
    def change() -> None:
        put(driver, "/a", new)
        if new is None:
            driver.store.delete_batch([driver.key("/a")])

    put(driver, "/a", data(5_000, seed=1))
    dropping = DroppingStore(driver.store, size, dropped=change)
    with on(dropping).read_stream("/a") as stream, pytest.raises(BlobferryError):
        stream.read()
    assert content(driver, "/a") == new


@pytest.mark.parametrize("operation", ["read_stream", "get_content"])
@pytest.mark.every_run_on("swift")
def test_a_refused_read_is_not_taken_for_a_missing_path(driver: Driver, refused_at: MakeDriver, operation: str) -> None:
    put(driver, "/a", data(SIZE))
    with pytest.raises(PermissionDeniedError):
        getattr(refused_at("get", "head"), operation)("/a")


def test_a_dropped_connection_does_not_shorten_get_content(driver: Driver, on: MakeDriver) -> None:
    put(driver, "/a", data(5_000))
    assert on(DroppingStore(driver.store, 100)).get_content("/a") == data(5_000)
