"""The write rule as bytes: what is kept, zeros, data, each byte from where it belongs, wherever a reader begins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.doubles import BytesSource
from worker.errors import SourceChangedError, SourceUnavailableError
from worker.transfer.sources.reader_stream import ReaderStream
from worker.transfer.sources.source import MemorySource
from worker.transfer.sources.splice import Splice, SplicedStream
from worker.units import MIB

OLD = bytes(range(1, 61))


class ShortReader:
    """Gives at most ``step`` bytes at a time, whatever is asked."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data, self._step = data, step

    def read(self, size: int) -> bytes:
        piece, self._data = self._data[: min(size, self._step)], self._data[min(size, self._step) :]
        return piece


def expected(old: bytes, offset: int, data: bytes) -> bytes:
    return old[:offset].ljust(offset, b"\0") + data


@given(
    old=st.binary(max_size=50) | st.none(),
    offset=st.integers(0, 80),
    data=st.binary(max_size=40),
    start=st.integers(0, 120),
    size=st.integers(0, 120),
)
def test_any_range_of_a_splice_is_that_of_the_rule(
    old: bytes | None, offset: int, data: bytes, start: int, size: int
) -> None:
    splice = Splice(None if old is None else BytesSource(old), offset, BytesSource(data))
    whole = expected(old or b"", offset, data)
    assert splice.size == len(whole)
    wanted = whole[start : start + size]
    buffer = bytearray(len(wanted))
    splice.readinto(min(start, len(whole)), memoryview(buffer))
    assert buffer == wanted


@given(
    offset=st.integers(0, 80),
    data=st.binary(max_size=40),
    position=st.integers(0, 60),
    step=st.integers(1, 50),
    sizes=st.lists(st.integers(1, 60), min_size=1),
)
def test_a_spliced_stream_gives_the_same_bytes_in_pieces_of_any_size(
    offset: int, data: bytes, position: int, step: int, sizes: list[int]
) -> None:
    position = min(position, offset, len(OLD))
    before = Splice(BytesSource(OLD), offset, MemorySource(b""))
    stream = SplicedStream(before, position, ReaderStream(ShortReader(data, step), "/a"))
    got = b""
    for size in [*sizes, *[30] * 10]:
        buffer = bytearray(size)
        got += buffer[: stream.readinto(memoryview(buffer))]
    assert got == expected(OLD, offset, data)[position:]


def test_a_long_gap_is_zeros_to_its_last_byte() -> None:
    splice = Splice(BytesSource(OLD), 3 * MIB + 5, BytesSource(b"data"))
    buffer = bytearray(b"x" * splice.size)
    splice.readinto(0, memoryview(buffer))
    assert buffer == expected(OLD, 3 * MIB + 5, b"data")


def test_a_splice_tells_when_its_data_or_what_it_is_written_onto_is_another() -> None:
    data, old = BytesSource(b"data"), BytesSource(OLD)
    splice = Splice(old, 10, data)
    others = [Splice(old, 11, data), Splice(None, 10, data), Splice(BytesSource(OLD + b"1"), 10, data)]
    assert all(other.fingerprint != splice.fingerprint for other in others)
    splice.check()
    data.replace(b"tada")
    with pytest.raises(SourceChangedError):
        splice.check()


def test_a_stream_is_given_whole_if_it_is_small_and_else_loses_nothing() -> None:
    for size in range(12):
        stream = ReaderStream(ShortReader(OLD[:size], 3), "/a")
        whole = stream.whole(6)
        if size <= 6:
            assert whole is not None
            assert bytes(whole) == OLD[:size]
            assert stream.total_read == size
        else:
            assert whole is None
            buffer = bytearray(20)
            assert buffer[: stream.readinto(memoryview(buffer))] == OLD[:size]
            assert stream.total_read == size


def test_a_reader_that_gives_more_than_it_was_asked_for_loses_nothing() -> None:
    pieces = [OLD[:25], OLD[25:], b""]

    class Generous:
        def read(self, size: int) -> bytes:
            return pieces.pop(0)

    stream = ReaderStream(Generous(), "/a")
    got = b""
    for _ in range(8):
        buffer = bytearray(10)
        got += buffer[: stream.readinto(memoryview(buffer))]
    assert got == OLD


def test_a_readers_own_error_is_the_cause_of_ours_and_what_it_gave_is_counted() -> None:
    class Failing(ShortReader):
        def read(self, size: int) -> bytes:
            if not self._data:
                raise ConnectionResetError("gone")
            return super().read(size)

    stream = ReaderStream(Failing(OLD, 7), "/a")
    with pytest.raises(SourceUnavailableError, match="after 60 bytes: ConnectionResetError: gone") as caught:
        stream.readinto(memoryview(bytearray(100)))
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    assert stream.total_read == 60


@pytest.mark.parametrize("answer", ["text", None, 5, [1]])
def test_a_reader_of_anything_but_bytes_is_a_type_error(answer: object) -> None:
    class Odd:
        def read(self, size: int) -> object:
            return answer

    with pytest.raises(TypeError, match="must return bytes"):
        ReaderStream(Odd(), "/a").readinto(memoryview(bytearray(1)))


@pytest.mark.parametrize("reader", [None, b"bytes", "text", object()])
def test_what_cannot_be_read_is_a_type_error(reader: object) -> None:
    with pytest.raises(TypeError, match=r"needs a reader with read\(size\)"):
        ReaderStream.of(reader, "/a")
