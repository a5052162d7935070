"""The local store's directory, and the locks that its threads and processes share.

Whoever publishes to a key or deletes it holds the key's lock, one of 256 files in ``locks``. Before it touches the
key's files it writes into the lock file what it is about to: if it is killed, the next owner of that lock removes what
was left behind. The kernel frees a lock with its process.
"""

import fcntl
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from worker.errors import StoreError
from worker.stores.blob_values import Limits
from worker.stores.local_digests import KEPT
from worker.stores.local_files import closing_fd, directory, prune, unnamed_file
from worker.stores.local_names import key_bytes, locate
from worker.stores.local_records import Record
from worker.stores.local_slots import tidy

BLOBS: Final = "blobs"
_LOCKS: Final = "locks"
_LOCK_COUNT: Final = 256
_MAX_INTENT: Final = 16_384  # bytes


class LocalRoot:
    """A directory that any number of threads and processes of one host may share."""

    name = "local"
    endpoint = ""

    def __init__(
        self,
        directory: Path,
        *,
        limits: Limits | None = None,
        checksum: str = "crc64nvme",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """The directory is made at the first write. ``now`` is the store's clock; a key's times only ever grow."""
        self.bucket = str(directory)
        self.identity = f"/{os.path.realpath(directory)}"
        self.limits = limits or Limits()
        self.checksum = checksum
        self._kept = KEPT.get(checksum)
        self._now = now

    def warm_up(self) -> None:
        """Nothing to prepare."""

    @contextmanager
    def _root(self, *, create: bool = False) -> Iterator[int]:
        """The store's own directory; it alone may be reached by a symbolic link. Raises FileNotFoundError."""
        if create:
            os.makedirs(self.bucket, exist_ok=True)
        with closing_fd(os.open(self.bucket, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
            yield root

    @contextmanager
    def _unnamed_file(self) -> Iterator[int]:
        with self._root(create=True) as root:
            file = unnamed_file(root)
        with closing_fd(file):
            yield file

    @contextmanager
    def _locked(self, root: int, name: str) -> Iterator[int]:
        """The lock of a name, free of what a killed owner left; yields the open lock file."""
        with directory(root, [_LOCKS], create=True) as fd:
            number = zlib.crc32(key_bytes(name)) % _LOCK_COUNT
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            lock = os.open(f"{number:02x}", flags, 0o666, dir_fd=fd)
        with closing_fd(lock), flocked(lock, fcntl.LOCK_EX):
            self._recover(root, lock)
            yield lock

    def _recover(self, root: int, lock: int) -> None:
        text = os.pread(lock, _MAX_INTENT, 0)
        if text:
            # Not JSON: it was killed while it wrote this. Else: no trouble with that key may keep others from theirs.
            with suppress(ValueError, OSError, StoreError):
                key, versions = json.loads(text)
                self._tidy(root, key, versions)
            os.ftruncate(lock, 0)

    def _tidy(self, root: int, key: str, versions: Iterable[str]) -> None:
        directories, name = locate(key_bytes(key))
        names = [BLOBS, *directories]
        try:
            with directory(root, names) as fd:
                occupied = tidy(fd, name, versions)
        except FileNotFoundError:
            occupied = False
        if not occupied:
            with directory(root, names[:1]) as blobs:
                prune(blobs, directories)

    def _intend(self, lock: int, key: str, *records: Record | None) -> None:
        os.pwrite(lock, json.dumps([key, [record.version for record in records if record]]).encode(), 0)

    def _settle(self, root: int, lock: int, key: str, *records: Record | None) -> None:
        with suppress(OSError):  # what readers see is decided; the next owner of the lock tries this again
            self._tidy(root, key, [record.version for record in records if record])
            os.ftruncate(lock, 0)


@contextmanager
def flocked(fd: int, how: int) -> Iterator[None]:
    """Hold the lock of an open file. Unlocked by name, for a child that was forked meanwhile has it open too."""
    fcntl.flock(fd, how)
    try:
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)
