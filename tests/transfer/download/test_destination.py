"""File destinations: which files may be written, and that a full or unwilling disk is an error that loses nothing."""

import errno
import os
import re
import resource
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.doubles import HookedStore
from tests.transfer.download.downloads import World, interrupt
from worker.errors import (
    DestinationError,
    DestinationFullError,
    DestinationNotAllowedError,
    DestinationUnavailableError,
)
from worker.transfer.download.destination import FileDestination
from worker.units import KIB, MIB

HOST = socket.gethostname()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "outgoing"
    root.mkdir()
    return root


@contextmanager
def mounted(path: Path, options: str) -> Iterator[Path]:
    """A file system in memory, of its own."""
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def may_mount() -> bool:
    with open("/proc/self/status") as status:
        found = re.search(r"^CapEff:\s*(\w+)", status.read(), re.MULTILINE)
    return bool(found and int(found[1], 16) & 1 << 21)  # CAP_SYS_ADMIN


needs_mount = pytest.mark.skipif(not may_mount(), reason="only root may mount a small file system")


def refusal(url: str, root: Path) -> str:
    """The message with which a URL is refused for good; no descriptor is left open by it."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(DestinationNotAllowedError) as caught:
        FileDestination.open(url, [root])
    assert len(os.listdir("/proc/self/fd")) == before
    assert HOST in str(caught.value)
    assert not caught.value.transient
    return str(caught.value)


# --- which files -----------------------------------------------------------------------------------------------------


def test_it_tells_the_ledger_host_directory_and_file(root: Path) -> None:
    with closing(FileDestination.open((root / "7.mp4").as_uri(), [root])) as destination:
        assert (destination.endpoint, destination.bucket) == (f"file://{HOST}", str(root))
        assert (destination.key, destination.name) == (str(root / "7.mp4"), "7.mp4")
        assert destination.look().is_absent
        assert os.listdir(root) == []


@pytest.mark.parametrize("name", ["with space.bin", "100%.bin", "#1?.bin", "ümläut.bin", "...", "\n", "a" * 255])
def test_a_percent_encoded_name_is_decoded(name: str, tmp_path: Path) -> None:
    world = World(tmp_path)
    world.path = tmp_path / name
    world.run()
    world.assert_all_is_well()


@pytest.mark.parametrize("end", ["/", "/.", "/..", "/%2e%2e", "/in/", "/a%00b", "/%00"])
def test_what_names_no_file_is_refused(end: str, root: Path) -> None:
    (root / "in").mkdir()
    assert "not the path of a file" in refusal(root.as_uri() + end, root)


def test_a_relative_path_is_refused(root: Path) -> None:
    refusal("file:7.mp4", root)


def test_a_name_that_the_ledger_cannot_hold_is_refused(root: Path) -> None:
    assert "not UTF-8" in refusal(root.as_uri() + "/caf%E9.bin", root)


def test_a_missing_directory_is_named_with_the_host_and_not_made(root: Path) -> None:
    assert "open its directory" in refusal((root / "none" / "7.mp4").as_uri(), root)
    assert os.listdir(root) == []


def test_a_file_as_directory_is_refused(root: Path) -> None:
    (root / "file").touch()
    refusal((root / "file" / "7.mp4").as_uri(), root)


def test_a_directory_that_is_swapped_while_it_is_checked_is_refused(tmp_path: Path, root: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (root / "in").mkdir()

    def roots() -> Iterator[Path]:
        (root / "in").rmdir()
        (root / "in").symlink_to(tmp_path / "elsewhere")
        yield root

    with pytest.raises(DestinationNotAllowedError, match="symlinks resolved"):
        FileDestination.open((root / "in" / "7.mp4").as_uri(), roots())


def test_a_symlink_within_the_roots_is_resolved_once(root: Path) -> None:
    (root / "real").mkdir()
    (root / "link").symlink_to(root / "real")
    with closing(FileDestination.open((root / "link" / "7.mp4").as_uri(), [root])) as destination:
        assert destination.key == str(root / "real" / "7.mp4")


def test_a_version_of_a_file_is_told_from_every_other(root: Path) -> None:
    (root / "a").write_bytes(b"1")
    with closing(FileDestination.open((root / "a").as_uri(), [root])) as destination:
        first = destination.look()
        (root / "b").write_bytes(b"1")
        (root / "b").rename(root / "a")
        second = destination.look()
        os.utime(root / "a", ns=(0, 0))
        assert len({first, second, destination.look()}) == 3


# --- an unwilling disk -----------------------------------------------------------------------------------------------


@needs_mount
def test_a_full_disk_is_seen_before_anything_is_fetched(root: Path) -> None:
    with mounted(root, "size=512k"):
        world = World(root, os.urandom(MIB), b"old")
        with pytest.raises(DestinationFullError) as caught:
            world.run(part_size=64 * KIB)
        assert re.search(rf"{root} on worker host {HOST} has \d+ bytes free, {MIB} more", str(caught.value))
        assert (world.fetched(), world.seen()) == ([], b"old")


@needs_mount
def test_a_disk_that_is_full_in_the_middle_keeps_rows_and_bytes_to_go_on_with(root: Path) -> None:
    with mounted(root, "size=2m"):
        world, gets, others = World(root, os.urandom(MIB), b"old"), 0, root / "others"

        def fill_the_disk(verb: str) -> None:
            nonlocal gets
            gets += verb == "get"
            if gets == 5 and not others.exists():
                with suppress(OSError), others.open("wb", buffering=0) as file:
                    while file.write(bytes(4 * KIB)):
                        pass

        with pytest.raises(DestinationFullError) as caught:
            world.run(part_size=64 * KIB, store=HookedStore(world.memory, before=fill_the_disk))
        found = re.search(rf"{root} on worker host {HOST} has 0 bytes free, (\d+) more are needed", str(caught.value))
        assert found
        assert int(found[1]) == MIB - 4 * 64 * KIB
        assert (caught.value.transient, world.seen()) == (True, b"old")

        others.unlink()
        world.run(part_size=64 * KIB)
        world.assert_all_is_well()
        assert world.fetched() == [part * 64 * KIB for part in range(4, 16)]


@needs_mount
def test_bytes_that_are_on_the_disk_already_need_no_room_again(root: Path) -> None:
    with mounted(root, "size=1600k"):
        world = World(root, os.urandom(MIB))
        interrupt(world, 12, part_size=64 * KIB)
        world.run(part_size=64 * KIB)
        world.assert_all_is_well()


@needs_mount
def test_a_directory_that_is_mounted_read_only_is_refused_for_good(root: Path) -> None:
    with mounted(root, "size=64k,ro"):
        world = World(root)
        with pytest.raises(DestinationNotAllowedError, match="Read-only"):
            world.run()
    assert world.fetched() == []


@needs_mount
def test_no_more_inodes_is_a_full_disk_too(root: Path) -> None:
    with mounted(root, "size=1m,nr_inodes=1"):
        world = World(root)
        with pytest.raises(DestinationFullError):
            world.run()


def test_a_file_larger_than_the_worker_may_write_is_an_error_for_good(root: Path) -> None:
    world = World(root, os.urandom(64 * KIB))
    old = resource.getrlimit(resource.RLIMIT_FSIZE)  # Python ignores the signal that comes with it
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 * KIB, old[1]))
    try:
        with pytest.raises(DestinationNotAllowedError, match="write the partial file"):
            world.run(part_size=8 * KIB)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    world.run(part_size=8 * KIB)
    world.assert_all_is_well()


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, DestinationFullError),
        (errno.EDQUOT, DestinationFullError),
        (errno.EACCES, DestinationNotAllowedError),
        (errno.EFBIG, DestinationNotAllowedError),
        (errno.EIO, DestinationUnavailableError),
        (errno.ESTALE, DestinationUnavailableError),
        (errno.EMFILE, DestinationUnavailableError),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else "",
)
def test_trouble_with_the_disk_has_a_name(number: int, kind: type[DestinationError], root: Path) -> None:
    with closing(FileDestination.open((root / "a").as_uri(), [root])) as destination:
        with pytest.raises(kind) as caught, destination.errors("do it"):
            raise OSError(number, os.strerror(number))
        assert HOST in str(caught.value)
        assert isinstance(caught.value.__cause__, OSError)


def test_a_directory_that_is_removed_is_an_error(root: Path) -> None:
    with closing(FileDestination.open((root / "a").as_uri(), [root])) as destination:
        root.rmdir()
        with pytest.raises(DestinationUnavailableError, match="deleted"):
            destination.check()
        with pytest.raises(DestinationNotAllowedError):
            destination.create("a", 0o666)
