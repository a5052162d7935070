"""The files that hold bytes, one for each blob or part. They are named at random and never change under their name.

So a reader that has opened one reads on, whatever becomes of the blob. No symbolic link is followed.
"""

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from io import FileIO
from typing import Final

from worker.errors import StoreUnavailableError
from worker.stores.strict.bucket import File
from worker.units import MIB

_COPY: Final = 128 * MIB  # a multiple of any block size, so that a file system may share blocks; soon interrupted
#: What a file system answers that cannot copy in the kernel, or not between these two files.
_NO_COPY: Final = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


class LocalFiles:
    """The directory ``files`` of a store."""

    def __init__(self, root: str) -> None:
        self._root = root
        self.path = os.path.join(root, "files")

    def unnamed(self) -> FileIO:
        """A file that has no name yet: it vanishes with the process that made it."""
        os.makedirs(self._root, exist_ok=True)
        return FileIO(os.open(self._root, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666), "r+b")

    def open(self, name: str, size: int) -> FileIO:
        """A file, to read. Raises FileNotFoundError; StoreUnavailableError if it has another size."""
        file = FileIO(os.path.join(self.path, name), "rb", opener=no_follow)
        found = os.fstat(file.fileno())
        if stat.S_ISREG(found.st_mode) and found.st_size == size:
            return file
        file.close()
        raise StoreUnavailableError(f"local: file {name!r} has {found.st_size} bytes and its record says {size}")

    def append_range(self, target: File, source: File, offset: int, size: int) -> None:
        """Copy inside the kernel, by sharing blocks where the file system can."""
        while size:
            count = min(size, _COPY)
            try:
                copied = os.copy_file_range(source.fileno(), target.fileno(), count, offset)
            except OSError as error:
                if error.errno not in _NO_COPY:
                    raise
                copied = os.sendfile(target.fileno(), source.fileno(), offset, count)
            if not copied:
                raise OSError(errno.EIO, "a file is shorter than its record says")
            offset, size = offset + copied, size - copied

    def write(self, file: File, data: bytes | memoryview) -> None:
        view = memoryview(data).cast("B")
        while view:
            view = view[file.write(view) :]

    def sync(self, file: File) -> None:
        os.fsync(file.fileno())

    def remove(self, names: Iterable[str]) -> None:
        """Remove those of the files that are there."""
        for name in names:
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(self.path, name))


def link(file: File, directory: str, name: str) -> None:
    """Give an open file a name, its first or one more, on the disk. Raises FileExistsError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.link(f"/proc/self/fd/{file.fileno()}", name, dst_dir_fd=fd, follow_symlinks=True)
        os.fsync(fd)
    finally:
        os.close(fd)


def no_follow(path: str, flags: int) -> int:
    """An opener that refuses symbolic links, and does not wait for the other end of a FIFO."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
