"""File sources: which files may be read, and that a changed one never passes for the one that was opened."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

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
    source = FileSource.open(file.as_uri(), [root])
    yield source
    source.close()


def read(source: FileSource, offset: int, size: int) -> bytes:
    buffer = bytearray(size)
    source.readinto(offset, memoryview(buffer))
    return bytes(buffer)


def refusal(url: str, root: Path, kind: type[SourceError]) -> str:
    """The message with which a URL is refused; no descriptor is left open by it."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(kind) as caught:
        FileSource.open(url, [root])
    assert len(os.listdir("/proc/self/fd")) == before
    assert HOST in str(caught.value)
    return str(caught.value)


def test_any_range_can_be_read_again_and_in_any_order(source: FileSource) -> None:
    assert source.size == 256
    assert read(source, 250, 6) == bytes(range(250, 256))
    assert read(source, 0, 256) == bytes(range(256))
    assert read(source, 250, 6) == bytes(range(250, 256))
    source.check()


def test_the_fingerprint_is_the_same_when_the_file_is_opened_again(source: FileSource, file: Path, root: Path) -> None:
    again = FileSource.open(file.as_uri(), [root])
    assert again.fingerprint == source.fingerprint
    again.close()


@pytest.mark.parametrize("name", ["with space.bin", "100%.bin", "#1?.bin", "ümläut.bin"])
def test_a_percent_encoded_name_is_decoded(name: str, root: Path) -> None:
    (root / name).write_bytes(b"here")
    source = FileSource.open((root / name).as_uri(), [root])
    assert read(source, 0, 4) == b"here"
    source.close()


def test_a_name_that_is_no_utf8_is_found(root: Path) -> None:
    """Linux file names are bytes; ``Path.as_uri`` encodes them as such."""
    path = root / os.fsdecode(b"caf\xe9.bin")
    path.write_bytes(b"here")
    source = FileSource.open(path.as_uri(), [root])
    assert read(source, 0, 4) == b"here"
    source.close()


def test_a_missing_file_is_named_with_the_host(root: Path) -> None:
    assert str(root / "none") in refusal((root / "none").as_uri(), root, SourceNotFoundError)


def test_a_file_below_a_file_is_missing(file: Path, root: Path) -> None:
    refusal((file / "below").as_uri(), root, SourceNotFoundError)


def test_a_directory_is_no_source(root: Path) -> None:
    (root / "folder").mkdir()
    assert "not a regular file" in refusal((root / "folder").as_uri(), root, SourceNotAllowedError)


def test_a_fifo_is_refused_and_blocks_nobody(root: Path) -> None:
    os.mkfifo(root / "fifo")
    assert "not a regular file" in refusal((root / "fifo").as_uri(), root, SourceNotAllowedError)


def test_a_file_outside_of_the_roots_is_refused_with_the_roots(tmp_path: Path, root: Path) -> None:
    outside = tmp_path / "outside.bin"
    outside.write_bytes(b"secret")
    assert str(root) in refusal(outside.as_uri(), root, SourceNotAllowedError)


def test_a_missing_file_outside_of_the_roots_does_not_tell_that_it_is_missing(tmp_path: Path, root: Path) -> None:
    refusal((tmp_path / "none").as_uri(), root, SourceNotAllowedError)


def test_a_neighbour_whose_name_begins_like_a_root_is_outside(tmp_path: Path, root: Path) -> None:
    neighbour = tmp_path / "incoming2"
    neighbour.mkdir()
    (neighbour / "a").write_bytes(b"secret")
    refusal((neighbour / "a").as_uri(), root, SourceNotAllowedError)


def test_without_roots_nothing_may_be_read(file: Path) -> None:
    with pytest.raises(SourceNotAllowedError, match="file_roots"):
        FileSource.open(file.as_uri(), [])


@pytest.mark.parametrize(
    "dots", ["/../outside.bin", "/%2e%2e/outside.bin", "/..%2foutside.bin", "/a/../../outside.bin"]
)
def test_dots_do_not_lead_out_of_a_root(dots: str, tmp_path: Path, root: Path) -> None:
    (tmp_path / "outside.bin").write_bytes(b"secret")
    (root / "a").mkdir()
    refusal(root.as_uri() + dots, root, SourceNotAllowedError)


def test_dots_that_stay_within_the_root_are_harmless(file: Path, root: Path) -> None:
    (root / "a").mkdir()
    FileSource.open(f"{root.as_uri()}/a/../{file.name}", [root]).close()


def test_a_symlink_out_of_a_root_is_refused(tmp_path: Path, root: Path) -> None:
    (tmp_path / "outside.bin").write_bytes(b"secret")
    (root / "link").symlink_to(tmp_path / "outside.bin")
    assert "symlinks resolved" in refusal((root / "link").as_uri(), root, SourceNotAllowedError)


def test_a_file_behind_a_symlinked_directory_is_refused(tmp_path: Path, root: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a").write_bytes(b"secret")
    (root / "folder").symlink_to(tmp_path / "elsewhere")
    refusal(f"{root.as_uri()}/folder/a", root, SourceNotAllowedError)


def test_a_symlink_within_the_roots_is_followed(file: Path, root: Path) -> None:
    (root / "link").symlink_to(file)
    source = FileSource.open((root / "link").as_uri(), [root])
    assert source.size == 256
    source.close()


def test_a_root_that_is_a_symlink_itself_works(file: Path, root: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(root)
    FileSource.open(file.as_uri(), [tmp_path / "alias"]).close()
    FileSource.open(f"{(tmp_path / 'alias').as_uri()}/{file.name}", [root]).close()


def test_a_file_that_grew_has_changed(source: FileSource, file: Path) -> None:
    with file.open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(SourceChangedError):
        source.check()


def test_a_file_that_was_written_again_with_the_same_size_has_changed(source: FileSource, file: Path) -> None:
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
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


def test_closing_gives_the_descriptor_back(file: Path, root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    FileSource.open(file.as_uri(), [root]).close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("kind", ["a name that is too long", "a symlink onto itself"])
def test_a_path_that_no_retry_will_ever_open_is_a_permanent_error(kind: str, root: Path) -> None:
    (root / "loop").symlink_to(root / "loop")
    name = "a" * 300 if kind.startswith("a name") else "loop"
    with pytest.raises(SourceError) as caught:
        FileSource.open((root / name).as_uri(), [root])
    assert not caught.value.transient


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
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            for target in (outside, inside):
                (root / "new").symlink_to(target)
                (root / "new").rename(root / "door")

    (root / "door").symlink_to(inside)
    thread = threading.Thread(target=swap)
    thread.start()
    seen: set[bytes] = set()
    try:
        for _ in range(2000):
            try:
                source = FileSource.open((root / "door" / "name").as_uri(), [root])
            except SourceNotAllowedError:
                continue
            buffer = bytearray(6)
            source.readinto(0, memoryview(buffer))
            source.close()
            seen.add(bytes(buffer))
    finally:
        ended.set()
        thread.join()
    assert seen == {b"public"}
