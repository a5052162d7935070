"""Files and directories, named relative to an open directory so that no symbolic link is ever followed.

Knows no keys and no stores. Raises OSError as it comes.
"""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from worker.units import MIB

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not make us wait
_COPY_STEP: Final = 128 * MIB  # a multiple of any block size, so that a file system may share blocks; soon interrupted
_TRIES: Final = 100  # each failure takes another process that removes the directory at that very moment
#: What a file system answers that cannot copy in the kernel, or not between these two files.
_NO_COPY: Final = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


@contextmanager
def closing_fd(fd: int) -> Iterator[int]:
    """Close it at the end."""
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def directory(top: int, names: Sequence[str], *, create: bool = False) -> Iterator[int]:
    """The directory that the names lead down to, made if need be. Raises FileNotFoundError."""
    fd = os.dup(top)
    try:
        for name in names:
            below = _enter(fd, name, create)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def _enter(fd: int, name: str, create: bool) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=fd)
    except FileNotFoundError:
        if not create:
            raise
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=fd)
        os.fsync(fd)
    return os.open(name, _DIRECTORY, dir_fd=fd)


def fill_directory(top: int, names: Sequence[str], fill: Callable[[int], None]) -> None:
    """Do what gives the directory its first file. Safe to repeat while nothing is in it.

    Again if it is gone: it was empty until now, and a :func:`prune` elsewhere had every right to remove it.
    """
    for left in reversed(range(_TRIES)):
        try:
            with directory(top, names, create=True) as fd:
                fill(fd)
            return
        except FileNotFoundError:
            if not left:
                raise


def unnamed_file(fd: int) -> int:
    """A file in the directory's file system that has no name yet: it goes with the process that made it."""
    return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666, dir_fd=fd)


def link(file: int, name: str, fd: int) -> None:
    """Give an open file a name that nothing has. Raises FileExistsError."""
    os.link(f"/proc/self/fd/{file}", name, dst_dir_fd=fd, follow_symlinks=True)


def open_file(name: str, fd: int) -> int:
    """An open file, to read. Raises FileNotFoundError."""
    return os.open(name, _READ, dir_fd=fd)


def read_file(name: str, fd: int) -> bytes | None:
    """All of a small file; None if it is not there."""
    try:
        file = open_file(name, fd)
    except FileNotFoundError:
        return None
    with open(file, "rb", buffering=0) as opened:
        return opened.read()


def write_all(file: int, data: bytes | memoryview) -> None:
    """Write at the file's position, however many writes it takes."""
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(file, view) :]


def remove(name: str, fd: int) -> None:
    """Remove a file, or a symbolic link itself, if it is there."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=fd)


def replace_file(name: str, draft: str, data: bytes, fd: int) -> None:
    """Write a small file under the name ``draft`` and rename it to ``name`` when it is on the disk."""
    remove(draft, fd)
    with closing_fd(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=fd)) as file:
        write_all(file, data)
        os.fsync(file)
    os.rename(draft, name, src_dir_fd=fd, dst_dir_fd=fd)
    os.fsync(fd)


def copy_range(source: int, offset: int, target: int, position: int, size: int) -> None:
    """Copy bytes between files inside the kernel, by sharing blocks where the file system can."""
    while size:
        count = min(size, _COPY_STEP)
        try:
            copied = os.copy_file_range(source, target, count, offset, position)
        except OSError as error:
            if error.errno not in _NO_COPY:
                raise
            os.lseek(target, position, os.SEEK_SET)
            copied = os.sendfile(target, source, offset, count)
        if not copied:
            raise OSError(errno.EIO, "a file is shorter than its record says")
        offset, position, size = offset + copied, position + copied, size - copied


def prune(top: int, names: Sequence[str]) -> None:
    """Remove the directories that the names lead down to, from the last one up, as long as they are empty."""
    for depth in range(len(names), 0, -1):
        try:
            with directory(top, names[: depth - 1]) as fd:
                os.rmdir(names[depth - 1], dir_fd=fd)
        except FileNotFoundError:
            continue  # somebody else was faster
        except OSError:
            return
