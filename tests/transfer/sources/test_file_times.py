"""When a file's times can be relied on."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from worker.errors import SourceChangedError
from worker.transfer.sources.file_source import FileSource
from worker.transfer.sources.file_times import seconds_to_settle, settled_status

SECOND = 10**9


@pytest.fixture
def coarse(tmp_path: Path) -> Iterator[Path]:
    """A directory whose files have times of whole seconds: an ext4 with small inodes."""
    if os.geteuid() or not shutil.which("mkfs.ext4") or not os.path.exists("/dev/loop-control"):
        pytest.skip("needs root, mkfs.ext4 and a loop device to mount a file system of coarse times")
    image, directory = tmp_path / "image", tmp_path / "mounted"
    directory.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-I", "128", image], check=True, capture_output=True)
    mounted = subprocess.run(["mount", "-o", "loop", image, directory], check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no loop device can be mounted here: {mounted.stderr}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


def test_a_rewrite_within_the_second_of_the_last_change_is_noticed(coarse: Path) -> None:
    file = coarse / "7.mp4"
    file.write_bytes(b"one")
    with closing(FileSource.open(file.as_uri(), [coarse])) as source:
        with file.open("r+b") as opened:
            opened.write(b"two")
        with pytest.raises(SourceChangedError):
            source.check()


@pytest.mark.parametrize(
    ("changed", "now", "left"),
    [
        (7 * SECOND + 1, 7 * SECOND + 1, 0.03),
        (7 * SECOND + 1, 8 * SECOND, 0.0),
        (7 * SECOND, 7 * SECOND + SECOND // 2, 1.53),
        (7 * SECOND, 10 * SECOND, 0.0),
        (7 * SECOND, 5 * SECOND, 2.03),  # by a clock that is ahead
    ],
)
def test_whole_seconds_take_longer_to_settle(changed: int, now: int, left: float) -> None:
    assert seconds_to_settle(changed, now) == pytest.approx(left)


def test_an_old_file_is_not_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with file.open() as opened:
        seen = settled_status(opened.fileno())
        assert seconds_to_settle(seen.st_ctime_ns, time.time_ns()) == 0
        assert settled_status(opened.fileno()) == os.fstat(opened.fileno()) == seen
