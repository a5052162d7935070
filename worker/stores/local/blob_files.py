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
from worker.stores.checksums import Digests
from worker.stores.local.local_errors import local_errors
from worker.units import KIB, MIB

_READ: Final = 64 * KIB  #: bytes; as many threads as a copy has each hold one
_COPY: Final = 128 * MIB  # a multiple of any block size, so that a file system may share blocks; soon interrupted
#: What a file system answers that cannot copy in the kernel, or not between these two files.
_NO_COPY: Final = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


class BlobFiles:
    """The directory ``files`` of a store."""

    def __init__(self, root: str) -> None:
        self._root = root
        self.path = os.path.join(root, "files")

    def unnamed(self) -> FileIO:
        """A file that has no name yet: it vanishes with the process that made it."""
        os.makedirs(self._root, exist_ok=True)
        return FileIO(os.open(self._root, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666), "r+b")

    def add(self, file: FileIO, name: str) -> None:
        """Give an unnamed file its name, on the disk. Its bytes are there already."""
        link(file, self.path, name)

    def open(self, name: str, size: int) -> FileIO:
        """A file, to read. Raises FileNotFoundError; StoreUnavailableError if it has another size."""
        file = FileIO(os.path.join(self.path, name), "rb", opener=no_follow)
        found = os.fstat(file.fileno())
        if stat.S_ISREG(found.st_mode) and found.st_size == size:
            return file
        file.close()
        raise StoreUnavailableError(f"local: file {name!r} has {found.st_size} bytes and its record says {size}")

    def remove(self, names: Iterable[str]) -> None:
        """Remove those of the files that are there."""
        for name in names:
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(self.path, name))


def link(file: FileIO, directory: str, name: str) -> None:
    """Give an unnamed file a name, on the disk. Raises FileExistsError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.link(f"/proc/self/fd/{file.fileno()}", name, dst_dir_fd=fd, follow_symlinks=True)
        os.fsync(fd)
    finally:
        os.close(fd)


def no_follow(path: str, flags: int) -> int:
    """An opener that refuses symbolic links, and does not wait for the other end of a FIFO."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)


def copy_range(source: int, offset: int, target: int, position: int, size: int) -> None:
    """Copy bytes between files inside the kernel, by sharing blocks where the file system can."""
    while size:
        count = min(size, _COPY)
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


def write_all(file: FileIO, data: bytes | memoryview) -> None:
    """Write at the file's position, however many writes it takes."""
    view = memoryview(data).cast("B")
    while view:
        view = view[file.write(view) :]


def digest_file(file: FileIO, size: int, *algorithms: str) -> Digests:
    """Digest the first bytes of a file."""
    digests = Digests(*algorithms)
    while digests.size < size:
        piece = os.pread(file.fileno(), min(_READ, size - digests.size), digests.size)
        if not piece:
            raise StoreUnavailableError(f"local: a file ends at {digests.size} instead of {size}")
        digests.update(piece)
    return digests


class LocalReader:
    """A range of an open file, which no later call changes."""

    def __init__(self, file: FileIO, offset: int, size: int, etag: str, where: tuple[str, str]) -> None:
        """Args: the range in bytes, which the file has; ``where``: the bucket and the key, for messages."""
        self.etag = etag
        self._file = file
        self._left = size
        self._where = where
        file.seek(offset)

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes."""
        wanted = self._left if size < 0 else min(size, self._left)
        data = b""
        while len(data) < wanted:
            with local_errors("read", *self._where):
                piece = self._file.read(wanted - len(data))
            if not piece:
                raise StoreUnavailableError(f"local: {self._where[1]!r} was cut short by another program")
            data = data + piece if data else piece
        self._left -= wanted
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()
