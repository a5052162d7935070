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
from tests.transfer.bench import at
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


@pytest.fixture
def destination(root: Path) -> Iterator[FileDestination]:
    with closing(FileDestination.open((root / "7.mp4").as_uri(), [root])) as destination:
        yield destination


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


# --- which files -----------------------------------------------------------------------------------------------------


def test_it_tells_the_ledger_host_directory_and_file(destination: FileDestination, root: Path) -> None:
    assert (destination.endpoint, destination.bucket) == (f"file://{HOST}", str(root))
    assert (destination.key, destination.name) == (str(root / "7.mp4"), "7.mp4")
    assert destination.look().is_absent
    assert os.listdir(root) == []


@pytest.mark.parametrize("name", ["with space.bin", "100%.bin", "#1?.bin", "ümläut.bin", "...", "\n", "a" * 255])
def test_a_percent_encoded_name_is_decoded(name: str, tmp_path: Path) -> None:
    world = World(tmp_path)
    world.path = tmp_path / name
    world.finish()


NO_FILE = ["{root}/", "{root}/.", "{root}/..", "{root}/%2e%2e", "{root}/in/", "{root}/a%00b", "{root}/%00"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        *[(url, "not the path of a file") for url in [*NO_FILE, "file:7.mp4"]],
        ("{root}/caf%E9.bin", "not UTF-8"),  # the ledger cannot hold it
        ("{root}/none/7.mp4", "open its directory"),
        ("{root}/file/7.mp4", "open its directory"),
    ],
)
def test_what_can_be_no_destination_is_refused_and_nothing_is_made_or_left_open(
    url: str, reason: str, root: Path
) -> None:
    (root / "in").mkdir()
    (root / "file").touch()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(DestinationNotAllowedError, match=f"{reason}.* on worker host {HOST}") as caught:
        FileDestination.open(url.format(root=root.as_uri()), [root])
    assert not caught.value.transient
    assert (len(os.listdir("/proc/self/fd")), sorted(os.listdir(root))) == (before, ["file", "in"])


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


def test_a_version_of_a_file_is_told_from_every_other(destination: FileDestination, root: Path) -> None:
    versions = {destination.look()}
    for name in ("7.mp4", "b"):
        (root / name).write_bytes(b"1")
        (root / name).rename(root / "7.mp4")
        versions.add(destination.look())
    os.utime(root / "7.mp4", ns=(0, 0))
    assert len({*versions, destination.look()}) == 4


# --- an unwilling disk -----------------------------------------------------------------------------------------------


@needs_mount
def test_a_full_disk_is_seen_before_anything_is_fetched(root: Path) -> None:
    with mounted(root, "size=512k"):
        world = World(root, os.urandom(MIB), b"old")
        full = rf"{root} on worker host {HOST} has \d+ bytes free, {MIB} more"
        with pytest.raises(DestinationFullError, match=full):
            world.run(part_size=64 * KIB)
        assert (world.fetched(), world.seen()) == ([], b"old")


@needs_mount
def test_a_disk_that_is_full_in_the_middle_keeps_rows_and_bytes_to_go_on_with(root: Path) -> None:
    with mounted(root, "size=2m"):
        world, others = World(root, os.urandom(MIB), b"old"), root / "others"

        def fill_the_disk() -> None:
            with suppress(OSError), others.open("wb", buffering=0) as file:
                while file.write(bytes(4 * KIB)):
                    pass

        needed = MIB - 4 * 64 * KIB
        full = f"{root} on worker host {HOST} has 0 bytes free, {needed} more are needed"
        with pytest.raises(DestinationFullError, match=full) as caught:
            world.run(part_size=64 * KIB, store=HookedStore(world.memory, before=at("get", fill_the_disk, 5)))
        assert (caught.value.transient, world.seen()) == (True, b"old")

        others.unlink()
        world.finish(part_size=64 * KIB)
        assert world.fetched() == [part * 64 * KIB for part in range(4, 16)]


@needs_mount
def test_bytes_that_are_on_the_disk_already_need_no_room_again(root: Path) -> None:
    with mounted(root, "size=1600k"):
        world = World(root, os.urandom(MIB))
        interrupt(world, 12, part_size=64 * KIB)
        world.finish(part_size=64 * KIB)


@needs_mount
@pytest.mark.parametrize(
    ("options", "kind", "reason"),
    [
        ("size=64k,ro", DestinationNotAllowedError, "Read-only"),
        ("size=1m,nr_inodes=1", DestinationFullError, "the disk is full"),
    ],
    ids=["read-only", "no more inodes"],
)
def test_a_file_system_that_takes_no_file_is_an_error_before_anything_is_fetched(
    options: str, kind: type[DestinationError], reason: str, root: Path
) -> None:
    with mounted(root, options):
        world = World(root)
        with pytest.raises(kind, match=reason):
            world.run()
    assert world.fetched() == []


def test_a_file_larger_than_the_worker_may_write_is_an_error_for_good(root: Path) -> None:
    world = World(root, os.urandom(64 * KIB))
    old = resource.getrlimit(resource.RLIMIT_FSIZE)  # Python ignores the signal that comes with it
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 * KIB, old[1]))
    try:
        with pytest.raises(DestinationNotAllowedError, match="write the partial file"):
            world.run(part_size=8 * KIB)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    world.finish(part_size=8 * KIB)


ERRORS: dict[type[DestinationError], list[int]] = {
    DestinationFullError: [errno.ENOSPC, errno.EDQUOT],
    DestinationNotAllowedError: [errno.EACCES, errno.EFBIG],
    DestinationUnavailableError: [errno.EIO, errno.ESTALE, errno.EMFILE],
}


@pytest.mark.parametrize(
    ("kind", "number"),
    [(kind, number) for kind, numbers in ERRORS.items() for number in numbers],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else value.__name__,
)
def test_trouble_with_the_disk_has_a_name(
    kind: type[DestinationError], number: int, destination: FileDestination
) -> None:
    with pytest.raises(kind, match=HOST) as caught, destination.errors("do it"):
        raise OSError(number, os.strerror(number))
    assert isinstance(caught.value.__cause__, OSError)


def test_a_directory_that_is_removed_is_an_error(destination: FileDestination, root: Path) -> None:
    root.rmdir()
    with pytest.raises(DestinationUnavailableError, match="deleted"):
        destination.check()
    with pytest.raises(DestinationNotAllowedError):
        destination.create("a", 0o666)
