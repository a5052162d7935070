"""The kernel's and SQLite's errors become ours here, and nowhere else."""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from worker.errors import InvalidStoreRequestError, NotSupportedError, PermissionDeniedError, StoreUnavailableError

_Kind = type[InvalidStoreRequestError | NotSupportedError | PermissionDeniedError | StoreUnavailableError]
_LINK: Final = "a symbolic link or a file lies where it should not, and no link is followed"
#: What is not in the tables is StoreUnavailableError: an I/O error, too many open files, a stale network mount.
LOCAL_ERRORS: Final[dict[int, tuple[_Kind, str]]] = {
    errno.ENOSPC: (StoreUnavailableError, "the disk is full"),
    errno.EDQUOT: (StoreUnavailableError, "the disk quota is used up"),
    errno.EACCES: (PermissionDeniedError, "this process may not do that there"),
    errno.EPERM: (PermissionDeniedError, "this process may not do that there"),
    errno.EROFS: (PermissionDeniedError, "the disk is mounted read-only"),
    errno.ELOOP: (PermissionDeniedError, _LINK),
    errno.ENOTDIR: (PermissionDeniedError, _LINK),
    errno.EFBIG: (InvalidStoreRequestError, "the file system or a resource limit allows no file of this size"),
    errno.EOPNOTSUPP: (NotSupportedError, "the file system lacks O_TMPFILE: use ext4, XFS, btrfs or tmpfs"),
}
_INDEX_ERRORS: Final[dict[int, tuple[_Kind, str]]] = {
    sqlite3.SQLITE_FULL: (StoreUnavailableError, "the disk is full"),
    sqlite3.SQLITE_READONLY: (PermissionDeniedError, "index.db is read-only for this process"),
    sqlite3.SQLITE_CORRUPT: (StoreUnavailableError, "index.db is damaged: restore the directory from a backup"),
    sqlite3.SQLITE_NOTADB: (StoreUnavailableError, "index.db is damaged: restore the directory from a backup"),
}


@contextmanager
def local_errors(bucket: str, action: str, key: str) -> Iterator[None]:
    """Raise an OSError or sqlite3.Error from inside as a StoreError. ``action`` is a verb phrase: ``"read"``."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        if isinstance(error, OSError):
            kind, hint = LOCAL_ERRORS.get(error.errno or 0, (StoreUnavailableError, "the kernel refuses"))
        else:  # the higher bits of SQLite's codes tell variants of one error apart
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            kind, hint = _INDEX_ERRORS.get(code, (StoreUnavailableError, "index.db cannot be used"))
        where = f"{key!r} in {bucket!r}" if key else repr(bucket)
        raise kind(f"local: cannot {action} {where}: {hint} ({error})") from error
