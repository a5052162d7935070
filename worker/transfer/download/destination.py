"""The file that a blob is written to, and the open directory through which all its calls go."""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import gethostname
from typing import Final, Self

from blobferry.jobs.needs import directory_need, short_directory
from worker.errors import (
    BlobExistsError,
    DestinationError,
    DestinationFullError,
    DestinationNotAllowedError,
    DestinationUnavailableError,
)
from worker.transfer.checkpoint import VisibleVersion
from worker.transfer.sources.file_source import path_of, perhaps_unmounted, refuse_outside

_FULL: Final = {errno.ENOSPC, errno.EDQUOT}
#: Errors that no retry mends. Any other, such as an I/O error or a stale network mount, may pass.
_REFUSED: Final = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EFBIG,
    errno.EOPNOTSUPP,
}
_OF_THIS_WORKER: Final = {errno.EACCES, errno.EPERM, errno.EROFS}  #: its user, or how the directory is mounted here
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # O_NONBLOCK: opening a FIFO must not block


class FileDestination:
    """A file, existing or not, in a directory below one of the allowed roots.

    Symlinks above it are resolved once, the check is repeated on the opened directory, and every later call goes
    through that: swapping the directory for a symlink gains nothing. A symlink at the file's own name is replaced,
    never followed. Every method may raise DestinationError; names given to methods are names in the directory.
    """

    def __init__(self, url: str, directory: str, name: str, descriptor: int) -> None:
        self.url = url
        self.name = name
        self.directory = directory
        self.bucket = short_directory(directory)  #: of the upload's row, as a store has it
        self.endpoint = host_endpoint()  #: of the upload's row: only this host sees the file
        self.identity = None  #: it has no other name
        self.key = os.path.join(directory, name)
        self._descriptor = descriptor

    @classmethod
    def open(cls, url: str, roots: Iterable[Path]) -> Self:
        """Open the directory of a ``file:`` URL. Errors name the host, because the path is the worker's."""
        path = path_of(url)
        parent, name = os.path.split(path)
        if not path.startswith("/") or "\0" in path or name in ("", ".", ".."):
            raise DestinationNotAllowedError(f"{url}: not the path of a file on worker host {gethostname()}")
        roots = [Path(os.path.realpath(root)) for root in roots]
        refuse_outside(url, os.path.realpath(parent), roots, DestinationNotAllowedError)
        try:
            descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise perhaps_unmounted(_error(url, "open its directory", error), url, roots) from error
        except OSError as error:
            raise _error(url, "open its directory", error) from error
        try:
            directory = os.readlink(f"/proc/self/fd/{descriptor}")
            refuse_outside(url, directory, roots, DestinationNotAllowedError)
            destination = cls(url, directory, name, descriptor)
            _refuse_undecodable(url, destination.key)  # the upload's row could not hold it
            destination.look()
        except BaseException:
            os.close(descriptor)
            raise
        return destination

    @classmethod
    def reopen(cls, key: str) -> Self | None:
        """Open the destination of an upload's row; None if its directory is gone."""
        directory, name = os.path.split(key)
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _error(key, "open its directory", error) from error
        return cls(key, directory, name, descriptor)

    def close(self) -> None:
        """Close the directory."""
        os.close(self._descriptor)

    # --- the file --------------------------------------------------------------------------------------------------

    def look(self) -> VisibleVersion:
        """Return the version that readers see. Raises DestinationNotAllowedError if a file cannot replace it."""
        status = self.status(self.name)
        if status is None:
            return VisibleVersion()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            raise DestinationNotAllowedError(f"{self.url}: not a regular file on worker host {gethostname()}")
        return VisibleVersion(etag_of(status))

    def mode(self) -> int | None:
        """Return the permissions of the existing file; None if there is none."""
        status = self.status(self.name)
        return stat.S_IMODE(status.st_mode) & 0o777 if status and stat.S_ISREG(status.st_mode) else None

    def link(self, name: str) -> bool:
        """Link the file ``name`` to the destination's name; False if it is missing. Raises BlobExistsError."""
        with self.errors("link the file to its name (overwrite=False needs hard links)"):
            here = self._descriptor
            try:
                os.link(name, self.name, src_dir_fd=here, dst_dir_fd=here, follow_symlinks=False)
            except FileNotFoundError:
                return False
            except FileExistsError as error:
                raise BlobExistsError(f"{self.url}: a file is there already, and overwrite is off") from error
        return True

    # --- its directory ---------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """List all names in the directory."""
        with self.errors("list its directory"):
            return os.listdir(self._descriptor)

    def status(self, name: str) -> os.stat_result | None:
        """Return the status of a name, without following a symlink; None if it is missing."""
        with self.errors("read the status of a file"):
            try:
                return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
            except FileNotFoundError:
                return None

    def create(self, name: str, mode: int) -> int:
        """Create a file and return its descriptor."""
        with self.errors("create a partial file"):
            return os.open(name, _NEW, mode, dir_fd=self._descriptor)

    def open_file(self, name: str, *, writing: bool = False) -> int | None:
        """Open a regular file and return its descriptor; None if there is none."""
        with self.errors("open a file"):
            try:
                descriptor = os.open(name, _OLD | (os.O_RDWR if writing else os.O_RDONLY), dir_fd=self._descriptor)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENXIO):
                    return None
                raise
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        return None

    def rename(self, old: str, new: str) -> bool:
        """Rename within the directory, replacing ``new``; False if ``old`` is missing."""
        with self.errors("rename the partial file"):
            try:
                os.rename(old, new, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
            except FileNotFoundError:
                return False
        return True

    def remove(self, name: str) -> None:
        """Remove a file or symlink; a missing one is no error."""
        with self.errors("remove a partial file"):
            try:
                os.unlink(name, dir_fd=self._descriptor)
            except FileNotFoundError:
                return

    def sync(self) -> None:
        """Write the directory's entries to the disk."""
        with self.errors("sync its directory"):
            os.fsync(self._descriptor)

    # --- errors ----------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise DestinationUnavailableError if the directory was moved or removed since it was opened."""
        now = os.readlink(f"/proc/self/fd/{self._descriptor}")
        if now != self.directory:
            raise DestinationUnavailableError(
                f"{self.url}: the directory {self.directory} on worker host {gethostname()} is now {now}"
            )

    def check_space(self, needed: int) -> None:
        """Raise DestinationFullError if the disk has less than ``needed`` bytes free."""
        free = _free(self._descriptor)
        if free is not None and free < needed:
            raise self.full_error(needed)

    def full_error(self, needed: int) -> DestinationFullError:
        """Make the error for a disk that has no room for ``needed`` bytes."""
        return DestinationFullError(
            f"{self.url}: the disk is full: {self.directory} on worker host {gethostname()} has "
            f"{_free(self._descriptor)} bytes free, {needed} more are needed"
        )

    @contextmanager
    def errors(self, action: str, needed: Callable[[], int] = lambda: 0) -> Iterator[None]:
        """Turn an OSError of the block into a DestinationError. ``action`` is a verb phrase: ``"open a file"``."""
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                raise self.full_error(needed()) from error
            raise _error(self.url, action, error) from error


def host_endpoint() -> str:
    """Return the endpoint that rows of downloads to this host have."""
    return f"file://{gethostname()}"


def etag_of(status: os.stat_result) -> str:
    """Return a value that differs between versions of a file. A rename does not change it."""
    return f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"


def _free(descriptor: int) -> int | None:
    found = os.fstatvfs(descriptor)
    blocks = found.f_bavail if os.geteuid() else found.f_bfree
    return blocks * found.f_frsize if found.f_blocks else None  # some network file systems report no blocks


def _error(url: str, action: str, error: OSError) -> DestinationError:
    kind = DestinationNotAllowedError if error.errno in _REFUSED else DestinationUnavailableError
    refused = kind(f"{url}: cannot {action} on worker host {gethostname()}: {error.strerror}")
    if error.errno in _OF_THIS_WORKER:
        refused.lacks = directory_need(url)
    return refused


def _refuse_undecodable(url: str, path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise DestinationNotAllowedError(f"{url}: a name is not UTF-8 on worker host {gethostname()}") from error
