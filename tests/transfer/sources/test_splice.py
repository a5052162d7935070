"""The write rule as bytes: what is kept, zeros, data, each byte from where it belongs, wherever a reader begins."""

from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.doubles import BytesSource
from tests.transfer.bench import read
from worker.errors import SourceChangedError, SourceUnavailableError
from worker.transfer.sources.reader_stream import ReaderStream
from worker.transfer.sources.source import MemorySource
from worker.transfer.sources.splice import Splice, SplicedStream
from worker.units import MIB

OLD = bytes(range(1, 61))


class ShortReader(BytesIO):
    """Gives at most ``step`` bytes at a time, whatever is asked."""

    def __init__(self, data: bytes, step: int) -> None:
        super().__init__(data)
        self._step = step

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self._step if size is None else min(size, self._step))


def next_bytes(stream: ReaderStream | SplicedStream, size: int) -> bytes:
    buffer = bytearray(size)
    return bytes(buffer[: stream.readinto(memoryview(buffer))])


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
    assert read(splice, min(start, len(whole)), len(wanted)) == wanted


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
    got = b"".join(next_bytes(stream, size) for size in [*sizes, *[30] * 10])
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


@pytest.mark.parametrize("size", range(12))
def test_a_stream_is_given_whole_if_it_is_small_and_else_loses_nothing(size: int) -> None:
    stream = ReaderStream(ShortReader(OLD[:size], 3), "/a")
    whole = stream.whole(6)
    assert (whole is None) == (size > 6)
    assert bytes(next_bytes(stream, 20) if whole is None else whole) == OLD[:size]
    assert stream.total_read == size


class Giving:
    """Answers so, whatever is asked."""

    def __init__(self, *answers: Any) -> None:
        self._answers = iter(answers)

    def read(self, size: int) -> Any:
        return next(self._answers)


def test_a_reader_that_gives_more_than_it_was_asked_for_loses_nothing() -> None:
    stream = ReaderStream(Giving(OLD[:25], OLD[25:], b""), "/a")
    assert b"".join(next_bytes(stream, 10) for _ in range(8)) == OLD


def test_a_readers_own_error_is_the_cause_of_ours_and_what_it_gave_is_counted() -> None:
    class Failing(ShortReader):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() == len(OLD):
                raise ConnectionResetError("gone")
            return super().read(size)

    stream = ReaderStream(Failing(OLD, 7), "/a")
    with pytest.raises(SourceUnavailableError, match="after 60 bytes: ConnectionResetError: gone") as caught:
        next_bytes(stream, 100)
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    assert stream.total_read == 60


@pytest.mark.parametrize("answer", ["text", None, 5, [1]])
def test_a_reader_of_anything_but_bytes_is_a_type_error(answer: object) -> None:
    with pytest.raises(TypeError, match="must return bytes"):
        ReaderStream(Giving(answer), "/a").readinto(memoryview(bytearray(1)))


@pytest.mark.parametrize("reader", [None, b"bytes", "text", object()])
def test_what_cannot_be_read_is_a_type_error(reader: object) -> None:
    with pytest.raises(TypeError, match=r"needs a reader with read\(size\)"):
        ReaderStream.of(reader, "/a")
