"""Sent parts and a source that may have changed: its bytes are compared, and no blob is made of two halves."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.doubles import HookedStore, RecordingStore, tiny_store
from tests.transfer.bench import BLOB, PART, Bench, StopAfter, at
from worker.errors import SourceChangedError
from worker.transfer.sources.file_source import FileSource
from worker.transfer.sources.source import Source
from worker.transfer.stop import Interrupted

Open = Callable[[], Source]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "vault.hc"
    file.write_bytes(BLOB)
    return file


@pytest.fixture
def open_(file: Path) -> Iterator[Open]:
    opened: list[Source] = []

    def open_() -> Source:
        opened.append(FileSource.open(file.as_uri(), [file.parent]))
        return opened[-1]

    yield open_
    for source in opened:
        source.close()


def rewrite(file: Path, data: bytes) -> None:
    """In place, with size and modification time kept."""
    before = file.stat()
    with file.open("r+b") as opened:
        opened.write(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def restore(file: Path) -> None:
    """Another inode with the same bytes, size and time, as a restored snapshot has."""
    before = file.stat()
    (file.parent / "restored").write_bytes(file.read_bytes())
    (file.parent / "restored").rename(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def sent(store: RecordingStore) -> list[int]:
    return [number for number, _ in store.sent()]


@pytest.mark.parametrize("first", [0, 1, 4, 9])
def test_a_rewrite_between_two_runs_that_keeps_size_and_time_makes_no_blob(
    first: int, bench: Bench, open_: Open, file: Path
) -> None:
    bench.interrupt(4, data=open_())
    rewrite(file, BLOB[: first * PART] + BLOB[first * PART :][::-1])  # all parts, or those from here on
    if first < 4:
        with pytest.raises(SourceChangedError, match="are not those that were sent"):
            bench.write(open_())
        assert bench.blob is None
    else:  # no byte that was sent is another one
        bench.write(open_())
        assert bench.blob == file.read_bytes()


def test_a_file_with_the_same_bytes_in_another_inode_is_gone_on_with(bench: Bench, open_: Open, file: Path) -> None:
    bench.interrupt(4, data=open_())
    restore(file)
    store = bench.record(open_())
    assert (sent(store), bench.blob) == ([5, 6, 7, 8, 9, 10], BLOB)


def test_a_comparison_that_is_stopped_is_made_by_the_next_run(bench: Bench, open_: Open, file: Path) -> None:
    bench.interrupt(4, data=open_())
    rewrite(file, BLOB[:PART] + BLOB[PART:][::-1])
    with pytest.raises(Interrupted):
        bench.write(open_(), stop=StopAfter(1))
    with pytest.raises(SourceChangedError):
        bench.write(open_())


@pytest.mark.parametrize(("size", "verb"), [(5, "head"), (5, "put"), (95, "head"), (95, "upload_part")])
def test_a_rewrite_within_a_run_makes_a_blob_of_one_version_or_none(
    verb: str, size: int, bench: Bench, open_: Open, file: Path
) -> None:
    file.write_bytes(BLOB[:size])
    meanwhile = at(verb, lambda: rewrite(file, BLOB[:size][::-1]), 1)
    try:
        bench.write(open_(), HookedStore(bench.memory, before=meanwhile))
    except SourceChangedError:
        assert bench.blob is None
    else:
        assert bench.blob in (BLOB[:size], BLOB[:size][::-1])
        assert bench.blob == file.read_bytes() or size == 5
    assert file.read_bytes() == BLOB[:size][::-1], "nobody has rewritten it"


@pytest.mark.parametrize("touch", [lambda file: file.chmod(0o600), lambda file: (file.parent / "b").hardlink_to(file)])
def test_a_chmod_or_a_hard_link_within_a_run_is_no_change(
    touch: Callable[[Path], None], bench: Bench, open_: Open, file: Path
) -> None:
    store = RecordingStore(HookedStore(bench.memory, after=at("upload_part", lambda: touch(file), 1)))
    bench.write(open_(), store)
    assert (sent(store), bench.blob) == (list(range(1, 11)), BLOB)


def test_a_file_that_is_touched_during_each_comparison_is_given_up(bench: Bench, file: Path) -> None:
    class Restless(FileSource):
        def check(self) -> None:
            file.chmod(0o600)
            super().check()

    source = Restless(file.as_uri(), os.open(file, os.O_RDONLY))
    with pytest.raises(SourceChangedError, match="changed each time"):
        bench.write(source)
    source.close()
    assert bench.blob is None


@pytest.mark.parametrize("checksum", ["crc64nvme", "crc32c", "md5", "none"])
@pytest.mark.parametrize("first", [0, 2])
def test_parts_are_compared_by_whatever_the_store_has(
    first: int, checksum: str, bench: Bench, open_: Open, file: Path
) -> None:
    bench.memory = tiny_store(checksum=checksum)
    bench.interrupt(4, data=open_())
    rewrite(file, BLOB[: first * PART] + BLOB[first * PART :][::-1])
    try:
        bench.write(open_())
    except SourceChangedError:
        assert bench.blob is None
    else:  # without a checksum, an ETag that differs may be no MD5: all parts were sent again
        assert (bench.blob, checksum, first) == (file.read_bytes(), "none", 0)


def test_parts_that_cannot_be_compared_are_sent_again(bench: Bench, open_: Open, file: Path) -> None:
    bench.memory = tiny_store(checksum="none")
    bench.interrupt(4, data=open_())
    upload = bench.checkpoint.upload
    assert upload is not None
    rows = [type(part)(part.part_number, part.offset, part.size, "opaque") for part in upload.parts.values()]
    bench.checkpoint.record(rows, bytes_sent=0)
    rewrite(file, BLOB[::-1])
    store = bench.record(open_())
    assert (sent(store), bench.blob) == (list(range(1, 11)), BLOB[::-1])
