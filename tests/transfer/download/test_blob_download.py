"""Downloads: exact bytes, one version of the blob, and going on after whatever went wrong on the way."""

import os
import random
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.doubles import BytesReader, BytesSource, FaultyStore, HookedStore, RecordingStore, WrappedStore, tiny_store
from tests.transfer.bench import KEY, PART, ToldCheckpoint, at, saved
from tests.transfer.download.downloads import DATA, OLD, World, interrupt
from worker.errors import (
    ChecksumMismatchError,
    SourceChangedError,
    SourceUnavailableError,
    StoreUnavailableError,
    TooManyRestartsError,
)
from worker.transfer.checkpoint import SentPart, VisibleVersion
from worker.transfer.download.partial_file import new_upload_id
from worker.units import GIB, MIB


class CorruptingStore(WrappedStore):
    """The first byte of each answer but the first ``good`` ones is flipped on its way, and nobody on it notices."""

    def __init__(self, world: World, good: int = 0) -> None:
        super().__init__(world.memory)
        self._good = good

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        answer = super()._do(name, args, keywords)
        if name != "get":
            return answer
        self._good -= 1
        with answer as reader:
            data = bytearray(reader.read())
            data[0] ^= self._good < 0
            return closing(BytesReader(bytes(data), reader.etag))


class SevensSource(BytesSource):
    """A source of any size that is nowhere."""

    def __init__(self, size: int) -> None:
        super().__init__(b"")
        self.size = size
        self.read = 0

    def readinto(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = b"\x07" * len(buffer)
        self.read += len(buffer)


def crc(world: World) -> str:
    return str(world.memory.head(KEY).checksum)


# --- bytes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 3 * PART, 3 * PART + 1])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_file_holds_exactly_the_blob(size: int, threads: int, tmp_path: Path) -> None:
    world = World(tmp_path, os.urandom(size))
    world.finish(threads=threads, checksum=crc(world))
    assert sorted(world.fetched()) == list(range(0, size, PART))
    assert world.checkpoint.bytes_sent == size


@pytest.mark.parametrize("offset", [1, PART, PART + 3, 34, 35, 36, 2**60])
def test_the_file_holds_what_lies_from_the_offset_on(offset: int, tmp_path: Path) -> None:
    world = World(tmp_path, DATA, OLD, offset=offset)
    world.finish(checksum=crc(world))


def test_a_part_larger_than_its_buffer_is_fetched_in_windows(tmp_path: Path) -> None:
    """10,000 rows at most: the parts of a huge blob are larger than any buffer."""
    world = World(tmp_path, os.urandom(10_000 * 110 + 1))
    world.finish(part_size=100, buffer_size=64 * 1024 + 1, threads=2, checksum=crc(world))
    upload = saved(world.checkpoint)
    assert (upload.part_size, len(upload.parts), len(world.fetched())) == (MIB, 2, 17)


def test_a_file_of_more_than_2_gib_is_gone_on_with_at_the_right_place(tmp_path: Path) -> None:
    """The rows of an earlier run speak for its first 2 GiB, which are a hole here."""
    source, world = SevensSource(2 * GIB + 7), World(tmp_path)
    upload_id = new_upload_id("7.mp4", mark="f", version="")
    world.checkpoint.opening(str(world.path), size=source.size, part_size=GIB, base=VisibleVersion())
    world.checkpoint.opened(upload_id)
    world.checkpoint.record([SentPart(number + 1, number * GIB, GIB, "", "") for number in range(2)], bytes_sent=0)
    with (world.root / f"{upload_id}-0.part").open("wb") as partial:
        partial.truncate(2 * GIB)
    world.run(source=source, buffer_size=MIB)
    assert (source.read, world.path.stat().st_size, world.partials()) == (7, source.size, [])
    with world.path.open("rb") as file:
        file.seek(2 * GIB - 1)
        assert file.read() == b"\0" + b"\x07" * 7


# --- one version -----------------------------------------------------------------------------------------------------


def replace_blob(world: World) -> None:
    world.memory.put(KEY, bytes(reversed(DATA)))


@pytest.mark.parametrize(
    "change", [replace_blob, lambda world: setattr(world, "offset", 3)], ids=["another blob", "another offset"]
)
def test_a_source_that_changed_between_two_runs_is_not_mixed(change: Callable[[World], None], world: World) -> None:
    interrupt(world)
    change(world)
    with pytest.raises(SourceChangedError):
        world.run()
    assert world.seen() == OLD


@pytest.mark.parametrize("get", [2, 4])
def test_a_blob_replaced_while_it_is_read_is_not_mixed(get: int, world: World) -> None:
    """Also not after its last byte was asked for."""
    with pytest.raises(SourceChangedError):
        world.run(store=HookedStore(world.recording, after=at("get", lambda: replace_blob(world), get)))
    assert (world.fetched(), world.seen()) == ([0, 10, 20, 30][: get + 1], OLD)


# --- the way there ---------------------------------------------------------------------------------------------------


def test_dropped_connections_are_taken_up_again(world: World) -> None:
    store = FaultyStore(world.memory, "get", fail_at=2, times=3)
    world.finish(store=store)
    assert store.fired == 3


def test_a_store_that_is_away_leaves_rows_and_partial_file_to_go_on_with(world: World) -> None:
    with pytest.raises(SourceUnavailableError) as caught:
        world.run(store=FaultyStore(world.memory, "get", fail_at=3, times=100))
    assert isinstance(caught.value.__cause__, StoreUnavailableError)
    assert (world.seen(), len(world.partials())) == (OLD, 1)
    world.finish()
    assert world.fetched() == [20, 30]


@pytest.mark.parametrize("parts", range(5))
def test_a_run_that_is_asked_to_stop_leaves_its_parts_to_the_next(parts: int, world: World) -> None:
    """The last time, all parts are there, and what is asked for is not published."""
    interrupt(world, parts)
    assert (world.seen(), len(world.fetched())) == (OLD, parts)
    world.finish()
    assert world.fetched() == [0, 10, 20, 30]


def test_a_run_whose_job_is_done_does_nothing(world: World) -> None:
    world.run()
    world.path.write_bytes(b"mine now")
    world.run()
    assert world.seen() == b"mine now"


# --- checksums -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("good", range(4))
def test_bytes_that_do_not_fit_the_stores_checksum_are_fetched_again(good: int, world: World) -> None:
    with pytest.raises(ChecksumMismatchError) as caught:
        world.run(store=CorruptingStore(world, good), checksum=crc(world))
    assert crc(world) in str(caught.value)
    assert (world.seen(), world.partials()) == (OLD, [])
    world.finish(checksum=crc(world))


def test_a_store_whose_checksum_never_fits_ends_the_job(world: World) -> None:
    """Else it would fetch everything again and again: each time is progress."""
    for error in [ChecksumMismatchError] * 3 + [TooManyRestartsError]:
        with pytest.raises(error) as caught:
            world.run(checksum="CRC64NVME:AAAAAAAAAAA=")
    assert isinstance(caught.value.__cause__, ChecksumMismatchError)
    assert (world.seen(), world.partials()) == (OLD, [])


@pytest.mark.parametrize("checksum", ["MD5:AAAA", "SHA256:AAAA", None])
def test_a_checksum_that_cannot_be_joined_is_not_compared(checksum: str | None, world: World) -> None:
    world.finish(checksum=checksum)


def test_a_crc32c_of_the_store_is_compared_too(world: World) -> None:
    world.memory = tiny_store(checksum="crc32c")
    world.memory.put(KEY, DATA)
    world.recording = RecordingStore(world.memory)
    with pytest.raises(ChecksumMismatchError, match="CRC32C:"):
        world.run(store=CorruptingStore(world), checksum=crc(world))
    world.finish(checksum=crc(world))


def test_rows_of_another_algorithm_than_the_stores_are_not_compared(world: World) -> None:
    """The storage was configured anew between two runs."""
    interrupt(world, 4)
    world.finish(checksum="CRC32C:AAAAAA==")


# --- a partial file that is not what the rows say --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "spoil"),
    [(2, Path.unlink), (2, lambda path: os.truncate(path, 19)), (4, lambda path: os.truncate(path, 36))],
    ids=["gone", "shorter than its rows", "longer than the blob"],
)
def test_a_partial_file_that_does_not_fit_its_rows_is_begun_again(
    parts: int, spoil: Callable[[Path], None], world: World
) -> None:
    interrupt(world, parts)
    spoil(world.partial)
    world.finish()
    assert world.fetched()[parts:] == [0, 10, 20, 30]


def test_a_partial_file_that_is_always_gone_ends_the_job(world: World) -> None:
    for _ in range(4):
        interrupt(world)
        world.partial.unlink()
    with pytest.raises(TooManyRestartsError):
        world.run()


def test_a_row_of_another_file_is_given_up(world: World) -> None:
    """The directory of the URL was a link, and leads elsewhere now. The ledger removes what is there."""
    interrupt(world)
    world.checkpoint.upload = replace(saved(world.checkpoint), key="/srv/elsewhere/7.mp4")
    world.run()
    assert world.seen() == DATA
    assert [upload.key for upload in world.checkpoint.abandoned] == ["/srv/elsewhere/7.mp4"]


def test_the_bytes_of_a_file_are_on_the_disk_before_rows_say_so(tmp_path: Path) -> None:
    world, told = World(tmp_path), list[str]()

    def note(frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call" and function.__name__ in {"fdatasync", "fsync"}:
            told.append("sync")

    sys.setprofile(note)
    try:
        world.run(checkpoint=ToldCheckpoint(world.fenced(), told.append))
    finally:
        sys.setprofile(None)
    assert world.path.read_bytes() == DATA
    recorded = [position for position, name in enumerate(told) if name == "record"]
    assert len(recorded) > 1
    assert all(told[position - 1] == "sync" for position in recorded), told


def test_parts_of_blocks_and_a_rest_are_written_at_their_places(world: World) -> None:
    """Whole blocks go past the page cache, the last bytes through it."""
    data = random.Random(7).randbytes(3 * MIB + 5)
    large = World(world.root / "large", data)
    large.finish(part_size=MIB, threads=2)
