"""Bytes that go past the page cache, where file system and memory allow that."""

import os
from collections.abc import Iterator
from contextlib import closing
from mmap import mmap
from pathlib import Path

import pytest

from worker.transfer.download.direct_writes import DirectWrites
from worker.transfer.parts import PartThreads
from worker.units import MIB

DATA = os.urandom(MIB)


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    """Of a new file, on a file system that has direct writes."""
    try:
        os.close(os.open(tmp_path / "probe", os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
    except OSError:
        pytest.skip("the file system of the temporary directory has no direct writes")
    opened = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield opened
    os.close(opened)


def aligned(data: bytes) -> memoryview:
    """The bytes in memory that begins at a page."""
    memory = mmap(-1, len(data))
    memory[:] = data
    return memoryview(memory)


def is_cached(descriptor: int, offset: int) -> bool:
    """Whether the page cache has the block."""
    try:
        return os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False


def test_whole_blocks_go_past_the_cache_and_are_read_back(descriptor: int) -> None:
    with closing(DirectWrites(descriptor)) as direct:
        assert direct.write(aligned(DATA), MIB) == MIB
        assert not is_cached(descriptor, MIB + 8192)
    assert os.pread(descriptor, MIB, MIB) == DATA


def test_the_rest_of_the_last_block_is_left_to_the_caller(descriptor: int) -> None:
    with closing(DirectWrites(descriptor)) as direct:
        assert direct.write(aligned(DATA)[: MIB - 1], 0) == MIB - 4096


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (memoryview(bytearray(DATA))[1:], 0),
        (aligned(DATA)[1:], 0),
        (aligned(DATA), 1),
        (aligned(DATA)[:65_536], 0),
    ],
    ids=["memory", "view", "offset", "few"],
)
def test_what_cannot_be_written_so_is_left_to_the_caller(data: memoryview, offset: int, descriptor: int) -> None:
    with closing(DirectWrites(descriptor)) as direct:
        assert direct.write(data, offset) == 0
    assert os.fstat(descriptor).st_size == 0


def test_the_buffers_of_the_part_threads_may_be_written_so(descriptor: int) -> None:
    with closing(PartThreads(1, MIB)) as threads, closing(DirectWrites(descriptor)) as direct:
        assert direct.write(threads.buffers.take(), 0) == MIB
