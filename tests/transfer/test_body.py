"""The bytes of one part, through a buffer that may be smaller than the part."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.doubles import BytesSource
from worker.errors import SourceChangedError
from worker.transfer.body import PartBody
from worker.transfer.plan import PartRange

BLOB = bytes(range(200))
PART = PartRange(2, 50, 40)
BYTES = BLOB[50:90]


def body(window: int) -> PartBody:
    return PartBody(BytesSource(BLOB), PART, memoryview(bytearray(window)))


def drain(read: PartBody, size: int) -> bytes:
    return b"".join(bytes(piece) for piece in iter(lambda: read.read(size), b""))


@pytest.mark.parametrize("window", [1, 7, 39, 40, 41, 1000])
@pytest.mark.parametrize("size", [-1, 1, 6, 40, 1000])
def test_a_part_is_its_range_of_the_blob_however_it_is_read(window: int, size: int) -> None:
    read = body(window)
    assert len(read) == 40
    for _ in range(2):
        assert read.read(0) == b""  # which is not the end
        assert (drain(read, size), read.tell(), read.read()) == (BYTES, 40, b"")
        read.seek(0)


@given(
    window=st.integers(1, 60),
    steps=st.lists(st.tuples(st.sampled_from(["read", "seek"]), st.integers(0, 40)), max_size=12),
)
def test_a_part_behaves_like_a_file_under_any_reads_and_seeks(window: int, steps: list[tuple[str, int]]) -> None:
    read, position = body(window), 0
    for step, number in steps:
        if step == "seek":
            assert read.seek(number) == number
            position = number
        else:
            piece = bytes(read.read(number))
            assert BYTES[position:].startswith(piece)
            assert piece or number == 0 or position == 40
            position += len(piece)
        assert read.tell() == position


def test_seeking_goes_from_the_start_the_position_or_the_end() -> None:
    read = body(7)
    assert (read.seek(10), read.seek(5, 1), read.seek(-3, 2)) == (10, 15, 37)
    assert bytes(read.read(2)) == BYTES[37:39]


def test_a_source_that_has_become_shorter_is_no_short_part() -> None:
    source = BytesSource(BLOB)
    read = PartBody(source, PART, memoryview(bytearray(100)))
    source.replace(BLOB[:60])
    with pytest.raises(SourceChangedError):
        read.read()


def test_an_empty_part_is_empty() -> None:
    read = PartBody(BytesSource(b""), PartRange(1, 0, 0), memoryview(bytearray(4)))
    assert (len(read), read.read()) == (0, b"")
