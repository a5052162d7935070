"""File sources: which files may be read, and that a changed one never passes for the one that was opened."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.transfer.bench import read
from worker.errors import SourceChangedError, SourceError, SourceNotAllowedError, SourceNotFoundError
from worker.transfer.sources.file_source import FileSource

HOST = socket.gethostname()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "incoming"
    root.mkdir()
    return root


@pytest.fixture
def file(root: Path) -> Path:
    file = root / "7.mp4"
    file.write_bytes(bytes(range(256)))
    return file


@pytest.fixture
def source(file: Path, root: Path) -> Iterator[FileSource]:
    with closing(FileSource.open(file.as_uri(), [root])) as source:
        yield source


def read_file(path: Path, root: Path) -> bytes:
    """All bytes of a source that is opened anew."""
    with closing(FileSource.open(path.as_uri(), [root])) as source:
        return read(source, 0, source.size)


def test_any_range_can_be_read_again_and_in_any_order(source: FileSource) -> None:
    assert source.size == 256
    assert read(source, 250, 6) == bytes(range(250, 256))
    assert read(source, 0, 256) == bytes(range(256))
    assert read(source, 250, 6) == bytes(range(250, 256))
    source.check()


def test_the_fingerprint_is_the_same_when_the_file_is_opened_again(source: FileSource, file: Path, root: Path) -> None:
    with closing(FileSource.open(file.as_uri(), [root])) as again:
        assert again.fingerprint == source.fingerprint


@pytest.mark.parametrize(
    "name", ["with space.bin", "100%.bin", "#1?.bin", "ümläut.bin", os.fsdecode(b"caf\xe9.bin")], ids=ascii
)
def test_a_percent_encoded_name_is_decoded(name: str, root: Path) -> None:
    """Linux file names are bytes, UTF-8 or not; ``Path.as_uri`` encodes them as such."""
    (root / name).write_bytes(b"here")
    assert read_file(root / name, root) == b"here"


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [("none", SourceNotFoundError, "{root}/none"), ("link", SourceNotAllowedError, "symlinks resolved")],
)
def test_a_missing_file_or_a_symlink_out_of_a_root_is_refused_and_leaves_nothing_open(
    name: str, kind: type[SourceError], reason: str, tmp_path: Path, root: Path
) -> None:
    (tmp_path / "outside.bin").write_bytes(b"secret")
    (root / "link").symlink_to(tmp_path / "outside.bin")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(kind, match=reason.format(root=root)) as caught:
        FileSource.open((root / name).as_uri(), [root])
    assert len(os.listdir("/proc/self/fd")) == before
    assert HOST in str(caught.value)


def test_a_symlink_within_the_roots_is_followed(file: Path, root: Path) -> None:
    (root / "link").symlink_to(file)
    assert read_file(root / "link", root) == bytes(range(256))


@pytest.mark.parametrize("size", [256, 257])
def test_a_file_that_was_written_again_has_changed(size: int, source: FileSource, file: Path) -> None:
    status = file.stat()
    os.truncate(file, size)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + (size == 256)))
    with pytest.raises(SourceChangedError):
        source.check()


def test_a_file_that_was_replaced_by_rename_is_still_the_one_that_was_opened(
    source: FileSource, file: Path, root: Path
) -> None:
    (root / "new").write_bytes(b"new")
    (root / "new").rename(file)
    source.check()
    assert read(source, 0, 256) == bytes(range(256))


def test_a_file_that_is_truncated_while_it_is_read_never_gives_short_bytes(source: FileSource, file: Path) -> None:
    os.truncate(file, 100)
    assert read(source, 0, 100) == bytes(range(100))
    with pytest.raises(SourceChangedError, match="ends at byte 100, it had 256"):
        read(source, 90, 20)


@pytest.mark.parametrize("target", ["/proc/self/environ", "/proc/self/root/etc/passwd", "/dev/zero", "/dev/fd/0"])
def test_what_the_system_keeps_as_files_is_out_of_reach(target: str, root: Path) -> None:
    (root / "link").symlink_to(target)
    for url in ((root / "link").as_uri(), f"file://{target}", f"file://{root}/%2e%2e/%2e%2e/%2e%2e/..{target}"):
        with pytest.raises(SourceNotAllowedError):
            FileSource.open(url, [root])


def test_a_device_below_a_root_is_no_source() -> None:
    with pytest.raises(SourceNotAllowedError, match="not a regular file"):
        FileSource.open("file:///dev/zero", [Path("/dev")])


def test_swapping_a_symlink_while_a_file_is_opened_gains_nothing(tmp_path: Path, root: Path) -> None:
    """Whatever is read is below the root, however the race ends."""
    outside = tmp_path / "outside"
    outside.mkdir()
    inside = root / "inside"
    inside.mkdir()
    (outside / "name").write_bytes(b"secret")
    (inside / "name").write_bytes(b"public")
    seen = set[bytes]()
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            for target in (outside, inside):
                (root / "new").symlink_to(target)
                (root / "new").rename(root / "door")

    (root / "door").symlink_to(inside)
    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(2000):
            with suppress(SourceNotAllowedError):
                seen.add(read_file(root / "door" / "name", root))
    finally:
        ended.set()
        thread.join()
    assert seen == {b"public"}
