"""File sources: which files may be read, and that a changed one never passes for the one that was opened."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.transfer.bench import read
from tests.transfer.sources.hanging_mount import Mount, mounted
from worker.errors import (
    SourceChangedError,
    SourceError,
    SourceNotAllowedError,
    SourceNotFoundError,
    SourceUnavailableError,
)
from worker.transfer.fingerprint import INSTANCE
from worker.transfer.sources.file_source import FileSource
from worker.transfer.sources.patience import Patience
from worker.transfer.sources.source import Source
from worker.transfer.sources.spooled_file import SpooledFile
from worker.transfer.stop import Interrupted

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
def source(file: Path, root: Path) -> Iterator[Source]:
    with closing(FileSource.open(file.as_uri(), [root])) as source:
        yield source


def read_file(path: Path, root: Path) -> bytes:
    """All bytes of a source that is opened anew."""
    with closing(FileSource.open(path.as_uri(), [root])) as source:
        return read(source, 0, source.size)


def refusal(url: str, root: Path, kind: type[SourceError]) -> str:
    """The message with which a URL is refused; no descriptor is left open by it."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(kind) as caught:
        FileSource.open(url, [root])
    assert len(os.listdir("/proc/self/fd")) == before
    assert HOST in str(caught.value)
    return str(caught.value)


def test_any_range_can_be_read_again_and_in_any_order(source: Source) -> None:
    assert source.size == 256
    assert read(source, 250, 6) == bytes(range(250, 256))
    assert read(source, 0, 256) == bytes(range(256))
    assert read(source, 250, 6) == bytes(range(250, 256))
    source.check()


def test_the_fingerprint_is_the_same_when_the_file_is_opened_again(source: Source, file: Path, root: Path) -> None:
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
    assert reason.format(root=root) in refusal((root / name).as_uri(), root, kind)


def test_a_symlink_within_the_roots_is_followed(file: Path, root: Path) -> None:
    (root / "link").symlink_to(file)
    assert read_file(root / "link", root) == bytes(range(256))


@pytest.mark.parametrize("size", [256, 257])
def test_a_file_that_was_written_again_has_changed(size: int, source: Source, file: Path) -> None:
    status = file.stat()
    os.truncate(file, size)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + (size == 256)))
    with pytest.raises(SourceChangedError):
        source.check()


def test_a_file_that_was_replaced_by_rename_is_still_the_one_that_was_opened(
    source: Source, file: Path, root: Path
) -> None:
    (root / "new").write_bytes(b"new")
    (root / "new").rename(file)
    source.check()
    assert read(source, 0, 256) == bytes(range(256))


def test_a_file_that_is_truncated_while_it_is_read_never_gives_short_bytes(source: Source, file: Path) -> None:
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
    with pytest.raises(SourceNotAllowedError, match=r"not a regular file .*: it is a character device"):
        FileSource.open("file:///dev/zero", [Path("/dev")])


def test_what_is_no_regular_file_is_refused_by_name(root: Path) -> None:
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"/proc/self/fd/{os.open(root, os.O_PATH)}/socket")
        for name, kind in {"fifo": "a FIFO", "socket": "a socket", "": "a directory"}.items():
            assert f"not a regular file on worker host {HOST}: it is {kind}" in refusal(
                (root / name).as_uri(), root, SourceNotAllowedError
            )


# --- files whose status does not tell their bytes --------------------------------------------------------------------


def rewrite(file: Path, data: bytes) -> None:
    """Write other bytes in place, and set the old times again."""
    before = file.stat()
    with file.open("r+b") as opened:
        opened.write(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_rewrite_that_keeps_size_and_time_leaves_another_fingerprint(source: Source, file: Path, root: Path) -> None:
    before = source.fingerprint
    rewrite(file, bytes(256))
    source.check()
    assert {**before, INSTANCE: None} == {**source.fingerprint, INSTANCE: None}
    assert before != source.fingerprint
    with closing(FileSource.open(file.as_uri(), [root])) as again:
        assert again.fingerprint == source.fingerprint


@pytest.mark.parametrize("name", ["version", "self/status", "sys/kernel/osrelease"])
def test_a_file_that_says_0_bytes_gives_those_that_can_be_read(name: str, tmp_path: Path) -> None:
    with closing(FileSource.open(f"file:///proc/{name}", [Path("/proc")], spool_directory=tmp_path)) as source:
        assert isinstance(source, SpooledFile)
        assert source.size > 0
        if name != "self/status":  # which differs each time
            assert read(source, 0, source.size) == Path("/proc", name).read_bytes()
        source.check()
        with pytest.raises(SourceChangedError, match="ends at byte"):
            read(source, source.size, 1)
    assert os.listdir(tmp_path) == []


def test_an_empty_file_is_a_source_of_no_bytes(root: Path) -> None:
    (root / "empty").touch()
    with closing(FileSource.open((root / "empty").as_uri(), [root])) as source:
        assert (type(source), source.size) == (FileSource, 0)
        source.check()


def test_reading_a_file_that_says_0_bytes_can_be_stopped(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Interrupted):
        FileSource.open("file:///proc/version", [Path("/proc")], spool_directory=tmp_path, stop=lambda: True)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_says_0_bytes_is_named_if_it_cannot_be_kept() -> None:
    with pytest.raises(SourceUnavailableError, match=r"file:///proc/version: .*cannot be kept in /nowhere"):
        FileSource.open("file:///proc/version", [Path("/proc")], spool_directory=Path("/nowhere"))


def test_a_file_with_more_bytes_than_its_status_says_has_changed(tmp_path: Path) -> None:
    """As files of some FUSE mounts have; here a descriptor whose status was taken when it had fewer."""
    file = tmp_path / "log"
    file.write_bytes(b"12345")
    with closing(FileSource("file:///log", os.open(file, os.O_RDONLY))) as source:
        source.size -= 1
        with pytest.raises(SourceChangedError, match="more than the 4 bytes of its status"):
            source.check()


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


# --- files that hang -------------------------------------------------------------------------------------------------


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    directory = tmp_path / "mount"
    directory.mkdir()
    with mounted(directory, bytes(range(256))) as mount:
        yield mount


@pytest.mark.parametrize("step", ["open", "read", "check"])
def test_a_mount_that_hangs_is_left_when_a_stop_comes(step: str, mount: Mount) -> None:
    patience = Patience(mount.has_hung.is_set)
    if step == "open":
        mount.hangs.set()
        with pytest.raises(Interrupted):
            FileSource.open(mount.file.as_uri(), [mount.file.parent], patience=patience)
        return
    with closing(FileSource.open(mount.file.as_uri(), [mount.file.parent], patience=patience)) as source:
        assert read(source, 0, 256) == bytes(range(256))
        source.check()
        mount.hangs.set()
        with pytest.raises(Interrupted):
            read(source, 3, 7) if step == "read" else source.check()


def test_a_mount_that_hangs_for_ever_is_too_slow(mount: Mount) -> None:
    patience = Patience(least_rate=1, seconds=0.5)
    with closing(FileSource.open(mount.file.as_uri(), [mount.file.parent], patience=patience)) as source:
        mount.hangs.set()
        with pytest.raises(SourceUnavailableError, match="too slow: 0 bytes"):
            read(source, 3, 7)
