"""What the local store holds, and the one place where what readers see changes.

Whoever publishes to a key or deletes it holds the key's lock, one of 256 files in ``locks``. Before it touches the
key's files it writes into the lock file what it is about to: if it is killed, the next owner of that lock removes what
was left behind. The kernel frees a lock with its process.
"""

import fcntl
import json
import os
import secrets
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from worker.errors import KeyNotFoundError, PreconditionFailedError, StoreError, StoreUnavailableError
from worker.stores.local_digests import KEPT, Staged
from worker.stores.local_files import closing_fd, directory, prune, remove, unnamed_file
from worker.stores.local_names import key_bytes, locate
from worker.stores.local_records import Record
from worker.stores.local_slots import clear, open_bytes, place, read_record, tidy
from worker.stores.values import BlobOptions, Condition, Limits, PutReceipt

BLOBS: Final = "blobs"
UPLOADS: Final = "uploads"
UPLOAD_RECORD: Final = "upload.json"
_LOCKS: Final = "locks"
_LOCK_COUNT: Final = 256
_MAX_INTENT: Final = 16_384  # bytes
_TRIES: Final = 100  # each failure takes another process that removes an empty directory at that very moment


class LocalBucket:
    """A bucket in a directory. Any number of threads and processes of one host may share it."""

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
        self.limits = limits or Limits()
        self.checksum = checksum
        self._kept = KEPT.get(checksum)
        self._now = now

    # --- files -------------------------------------------------------------------------------------------------------

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

    # --- blobs -------------------------------------------------------------------------------------------------------

    def _record(self, key: str) -> Record | None:
        """What is visible under a key now."""
        directories, name = locate(key_bytes(key))
        try:
            with self._root() as root, directory(root, [BLOBS, *directories]) as fd:
                return read_record(fd, name)
        except FileNotFoundError:
            return None

    def _found(self, key: str, if_match: str | None = None) -> Record:
        record = self._record(key)
        if record is None:
            raise KeyNotFoundError(f"local: nothing is stored under {key!r} in {self.bucket!r}")
        if if_match is not None and if_match != record.etag:
            raise PreconditionFailedError(f"local: {key!r} has the ETag {record.etag}, not {if_match}")
        return record

    def _open(self, key: str, if_match: str | None = None) -> tuple[Record, int]:
        """A blob and its bytes, an open file that is the caller's to close."""
        directories, name = locate(key_bytes(key))
        missed = None
        while True:
            record = self._found(key, if_match)
            with suppress(FileNotFoundError), self._root() as root, directory(root, [BLOBS, *directories]) as fd:
                return record, open_bytes(fd, name, record)
            if record.version == missed:
                raise StoreUnavailableError(f"local: {key!r} has lost its bytes, by other hands than ours")
            missed = record.version  # it was replaced or deleted in between: look again

    def _publish(
        self,
        key: str,
        staged: Staged,
        condition: Condition | None,
        options: BlobOptions,
        upload_id: str | None = None,
    ) -> PutReceipt:
        """The one place where readers come to see something else."""
        os.fsync(staged.file)
        with self._root(create=True) as root, self._locked(root, key) as lock:
            old = self._record(key)
            check_condition(condition, key, old)
            record = self._new_record(staged, options, old, upload_id)
            self._intend(lock, key, old, record)
            try:
                if old is not None:
                    self._drop_upload_of(root, old)
                self._place(root, key, staged.file, record)
            finally:
                self._settle(root, lock, key, old, record)
        return PutReceipt(record.etag)

    def _new_record(
        self, staged: Staged, options: BlobOptions, old: Record | None = None, upload_id: str | None = None
    ) -> Record:
        now = self._now()
        return Record(
            version=secrets.token_hex(8),
            size=staged.size,
            etag=staged.etag,
            mod_time=now if old is None else max(now, old.mod_time + timedelta(microseconds=1)),
            checksums=staged.checksums,
            options=options,
            upload_id=upload_id,
        )

    def _place(self, root: int, key: str, file: int, record: Record) -> None:
        directories, name = locate(key_bytes(key))
        for attempt in range(_TRIES):
            try:
                with directory(root, [BLOBS, *directories], create=True) as fd:
                    return place(fd, name, file, record)
            except FileNotFoundError:  # a directory was empty until now, and the last delete in it removed it
                if attempt == _TRIES - 1:
                    raise

    def _delete(self, key: str, if_match: str | None) -> None:
        if self._record(key) is None:
            return
        directories, name = locate(key_bytes(key))
        with self._root() as root, self._locked(root, key) as lock:
            old = self._record(key)
            if old is None:
                return
            check_condition(Condition(if_match=if_match), key, old)
            with suppress(OSError):  # a full disk must not keep anybody from deleting
                self._intend(lock, key, old)
            self._drop_upload_of(root, old)
            with directory(root, [BLOBS, *directories]) as fd:
                clear(fd, name)
            self._settle(root, lock, key, old)

    def _intend(self, lock: int, key: str, *records: Record | None) -> None:
        os.pwrite(lock, json.dumps([key, [record.version for record in records if record]]).encode(), 0)

    def _settle(self, root: int, lock: int, key: str, *records: Record | None) -> None:
        with suppress(OSError):  # what readers see is decided; the next owner of the lock tries this again
            self._tidy(root, key, [record.version for record in records if record])
            os.ftruncate(lock, 0)

    # --- uploads that have become blobs ------------------------------------------------------------------------------

    def _drop_upload_of(self, root: int, record: Record) -> None:
        """Before a blob goes that says which upload it was made of: later nothing would say that this is complete."""
        if record.upload_id is not None:
            self._drop_upload(root, record.upload_id)

    def _drop_upload(self, root: int, upload_id: str) -> None:
        """Remove an upload, its record last: if killed here, it is still known what must be removed."""
        try:
            with directory(root, [UPLOADS]) as uploads:
                with directory(uploads, [upload_id]) as fd:
                    for name in os.listdir(fd):
                        if name != UPLOAD_RECORD:
                            remove(name, fd)
                    remove(UPLOAD_RECORD, fd)
                os.rmdir(upload_id, dir_fd=uploads)
        except FileNotFoundError:
            return


@contextmanager
def flocked(fd: int, how: int) -> Iterator[None]:
    """Hold the lock of an open file. Unlocked by name, for a child that was forked meanwhile has it open too."""
    fcntl.flock(fd, how)
    try:
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)


def check_condition(condition: Condition | None, key: str, there: Record | None) -> None:
    """Refuse if the key is not as the call demands."""
    if condition is None:
        return
    if condition.if_none_match and there is not None:
        raise PreconditionFailedError(f"local: something is stored under {key!r} already")
    if condition.if_match is not None and (there is None or there.etag != condition.if_match):
        raise PreconditionFailedError(f"local: {key!r} no longer has the ETag {condition.if_match}")
