"""The kernel's errors become ours here, and nowhere else."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from worker.errors import (
    InvalidStoreRequestError,
    NotSupportedError,
    PermissionDeniedError,
    StoreError,
    StoreUnavailableError,
)

#: What is not in the table is StoreUnavailableError: an I/O error, too many open files, a stale network mount.
LOCAL_ERRORS: Final[dict[int, type[StoreError]]] = {
    errno.ENOSPC: StoreUnavailableError,
    errno.EDQUOT: StoreUnavailableError,
    errno.EACCES: PermissionDeniedError,
    errno.EPERM: PermissionDeniedError,
    errno.EROFS: PermissionDeniedError,
    errno.ELOOP: PermissionDeniedError,
    errno.ENOTDIR: PermissionDeniedError,
    errno.EFBIG: InvalidStoreRequestError,
    errno.EOPNOTSUPP: NotSupportedError,
}

_HINTS: Final = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is mounted read-only",
    errno.ELOOP: "a symbolic link lies in the way, and none is followed",
    errno.ENOTDIR: "a symbolic link or a file lies where a directory belongs, and no link is followed",
    errno.EFBIG: "the file system or a resource limit allows no file of this size",
    errno.EOPNOTSUPP: "the file system lacks unnamed files (O_TMPFILE): use ext4, XFS, btrfs or tmpfs",
}


@contextmanager
def local_errors(action: str, bucket: str, key: str = "") -> Iterator[None]:
    """Raise an OSError from inside as a StoreError, itself the cause. ``action`` is a verb phrase: ``"read"``."""
    try:
        yield
    except OSError as error:
        raise error_class(error)(
            f"local: cannot {action} {f'{key!r} in ' * bool(key)}{bucket!r}: {reason(error)}"
        ) from error


def error_class(error: OSError) -> type[StoreError]:
    """Which of ours it is."""
    return LOCAL_ERRORS.get(error.errno or 0, StoreUnavailableError)


def reason(error: OSError) -> str:
    """What went wrong, in words."""
    said = error.strerror or str(error)
    hint = _HINTS.get(error.errno or 0)
    return f"{hint} ({said})" if hint else said
