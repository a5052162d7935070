"""Small files that are read as a whole, many of them in one thread."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.transfer.sources.hanging_mount import Mount, mounted
from worker.errors import SourceChangedError, SourceNotAllowedError, SourceNotFoundError
from worker.transfer.sources import small_files
from worker.transfer.sources.file_source import FileSource
from worker.transfer.sources.small_files import Read, is_perhaps_small, read_files
from worker.transfer.sources.source import MemorySource

MOST = 8
LONG = 60.0  #: seconds


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    (tmp_path / "mount").mkdir()
    with mounted(tmp_path / "mount", b"mounted") as mount:
        yield mount


def file(root: Path, name: str, data: bytes) -> str:
    (root / name).write_bytes(data)
    return (root / name).as_uri()


def read_one(url: str, *roots: Path) -> Read:
    ((position, found),) = read_files([url], roots, MOST, LONG)
    assert position == 0
    return found


@pytest.mark.parametrize("data", [b"", b"1", b"12345678"])
def test_a_file_of_at_most_so_many_bytes_is_read_with_the_fingerprint_of_any_run(data: bytes, root: Path) -> None:
    url = file(root, "a", data)
    found = read_one(url, root)
    assert isinstance(found, MemorySource)
    with closing(FileSource.open(url, [root])) as source:
        assert (found.url, found.size, found.fingerprint) == (url, len(data), source.fingerprint)
    assert bytes(found.data) == data


def test_a_larger_file_is_not_read(root: Path) -> None:
    assert read_one(file(root, "a", b"123456789"), root) is None


def test_a_file_whose_status_does_not_tell_its_size_is_not_read() -> None:
    assert read_one("file:///proc/version", Path("/proc")) is None


def test_what_cannot_be_read_is_told_in_its_place_and_leaves_nothing_open(root: Path, tmp_path: Path) -> None:
    os.mkfifo(root / "fifo")
    (root / "directory").mkdir()
    names = ("missing", "fifo", "directory")
    urls = [file(root, "a", b"1"), *((root / name).as_uri() for name in names), file(tmp_path, "outside", b"2")]
    before = len(os.listdir("/proc/self/fd"))
    found = dict(read_files(urls, [root], MOST, LONG))
    assert len(os.listdir("/proc/self/fd")) == before
    assert isinstance(found.pop(0), MemorySource)
    assert [type(error) for _, error in sorted(found.items())] == [SourceNotFoundError, *[SourceNotAllowedError] * 3]


@pytest.mark.parametrize(("more", "what"), [(1, "ends at byte 5"), (-1, "more than the 4 bytes")])
def test_a_file_that_has_not_the_bytes_of_its_status_has_changed(more: int, what: str, root: Path) -> None:
    """As a log that grows, or files of some FUSE mounts; here a descriptor whose status was taken at another time."""
    file(root, "log", b"12345")
    with closing(FileSource("file:///log", os.open(root / "log", os.O_RDONLY))) as source:
        source.size += more
        with pytest.raises(SourceChangedError, match=what):
            source.whole()


def test_a_file_that_is_rewritten_while_it_is_read_has_changed(root: Path) -> None:
    with closing(FileSource.open(file(root, "a", b"12345"), [root])) as source:
        assert isinstance(source, FileSource)
        os.utime(root / "a", ns=(0, 0))
        with pytest.raises(SourceChangedError, match="changed while it was read"):
            source.whole()


def test_a_file_that_was_touched_while_it_was_read_leaves_another_fingerprint(root: Path) -> None:
    with closing(FileSource.open(file(root, "a", b"12345"), [root])) as source:
        assert isinstance(source, FileSource)
        before = source.fingerprint
        (root / "a").chmod(0o600)
        assert source.whole() == b"12345"
        assert source.fingerprint != before


def test_a_mount_that_hangs_costs_its_files_and_those_behind_them(tmp_path: Path, root: Path, mount: Mount) -> None:
    urls = [file(root, "a", b"1"), mount.file.as_uri(), file(root, "b", b"2")]
    mount.hangs.set()
    found = dict(read_files(urls, [tmp_path], MOST, 1.0))
    assert list(found) == [0]
    mount.released.set()


def test_a_look_tells_small_files_from_all_else(root: Path) -> None:
    assert is_perhaps_small(file(root, "a", b"12345678"), MOST)
    assert not is_perhaps_small(file(root, "b", b"123456789"), MOST)
    assert not is_perhaps_small((root / "missing").as_uri(), MOST)
    assert not is_perhaps_small(root.as_uri(), 1 << 30)
    assert not is_perhaps_small("file:///%00", MOST)


def test_a_mount_that_does_not_answer_is_not_looked_at_for_long(mount: Mount) -> None:
    assert is_perhaps_small(mount.file.as_uri(), MOST)
    mount.hangs.set()
    assert small_files.LOOK <= 1.0
    assert not is_perhaps_small(mount.file.as_uri(), MOST)
    mount.released.set()
