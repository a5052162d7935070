"""Destinations: the file that a blob is written to, always seen through the open directory that it lies in."""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import gethostname
from typing import Final, Self
from urllib.parse import unquote_to_bytes, urlsplit

from worker.errors import (
    BlobExistsError,
    DestinationError,
    DestinationFullError,
    DestinationNotAllowedError,
    DestinationUnavailableError,
)
from worker.transfer.checkpoint import VisibleVersion

_FULL: Final = {errno.ENOSPC, errno.EDQUOT}
#: What no retry will change. All else, an I/O error or a stale network mount, may pass.
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
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not make us wait


class FileDestination:
    """A file, there or not, in a directory below one of the allowed roots.

    Symlinks above it are resolved once; what was opened is checked, not what was named, and every later step goes
    through the open directory: swapping it for a symlink gains nothing. A symlink at the file's own name is replaced,
    never followed. Every method raises DestinationError; names given to them are names in the directory.
    """

    def __init__(self, url: str, directory: str, name: str, descriptor: int) -> None:
        self.url = url
        self.name = name
        self.bucket = directory  #: for the ledger, as a store has it
        self.endpoint = host_endpoint()  #: for the ledger: the file is one that this host sees
        self.key = os.path.join(directory, name)
        self._descriptor = descriptor

    @classmethod
    def open(cls, url: str, roots: Iterable[Path]) -> Self:
        """Open the directory of a ``file:`` URL. Every refusal names the host, for the path is the worker's."""
        path = os.fsdecode(unquote_to_bytes(urlsplit(url).path))
        parent, name = os.path.split(path)
        if not path.startswith("/") or "\0" in path or name in ("", ".", ".."):
            raise DestinationNotAllowedError(f"{url}: names no file on worker host {gethostname()}")
        real = os.path.realpath(parent)
        roots = [Path(os.path.realpath(root)) for root in roots]
        _refuse_outside(url, real, roots)
        try:
            descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _error(url, "open its directory", error) from error
        try:
            directory = os.readlink(f"/proc/self/fd/{descriptor}")
            _refuse_outside(url, directory, roots)
            destination = cls(url, directory, name, descriptor)
            _refuse_odd_name(url, destination.key)  # the ledger could not hold it
            destination.look()
        except BaseException:
            os.close(descriptor)
            raise
        return destination

    @classmethod
    def reopen(cls, key: str) -> Self | None:
        """The destination of a row in the ledger; None if its directory is gone."""
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
        """What readers see at the name now. Raises DestinationNotAllowedError if no file can replace it."""
        status = self.status(self.name)
        if status is None:
            return VisibleVersion()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            raise DestinationNotAllowedError(f"{self.url}: is no regular file on worker host {gethostname()}")
        return VisibleVersion(etag_of(status))

    def mode(self) -> int | None:
        """The permissions of the file that is there; None without one."""
        status = self.status(self.name)
        return stat.S_IMODE(status.st_mode) & 0o777 if status and stat.S_ISREG(status.st_mode) else None

    def link(self, name: str) -> bool:
        """Give the file of this name the final one too; False if there is none. Raises BlobExistsError."""
        with self.errors("publish the file (overwrite=False needs hard links)"):
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
        """All that the directory holds."""
        with self.errors("list its directory"):
            return os.listdir(self._descriptor)

    def status(self, name: str) -> os.stat_result | None:
        """That of a name itself, be it a symlink's; None if it is not there."""
        with self.errors("look at a file"):
            try:
                return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
            except FileNotFoundError:
                return None

    def create(self, name: str, mode: int) -> int:
        """A new file's descriptor."""
        with self.errors("create a partial file"):
            return os.open(name, _NEW, mode, dir_fd=self._descriptor)

    def open_file(self, name: str, *, writing: bool = False) -> int | None:
        """A regular file's descriptor; None if nothing of the kind is there."""
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
        """Rename within the directory, replacing what is there; False if ``old`` is gone."""
        with self.errors("rename the partial file"):
            try:
                os.rename(old, new, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
            except FileNotFoundError:
                return False
        return True

    def remove(self, name: str) -> None:
        """Remove a file, or a symlink itself, if it is there."""
        with self.errors("remove a partial file"):
            try:
                os.unlink(name, dir_fd=self._descriptor)
            except FileNotFoundError:
                return

    def sync(self) -> None:
        """Bring the directory's names to the disk."""
        with self.errors("sync its directory"):
            os.fsync(self._descriptor)

    # --- trouble ---------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise DestinationUnavailableError if the directory was moved or removed: its path leads elsewhere now."""
        now = os.readlink(f"/proc/self/fd/{self._descriptor}")
        if now != self.bucket:
            raise DestinationUnavailableError(
                f"{self.url}: the directory {self.bucket} on worker host {gethostname()} has become {now}"
            )

    def check_space(self, needed: int) -> None:
        """Raise DestinationFullError if so many bytes more cannot fit."""
        free = _free(self._descriptor)
        if free is not None and free < needed:
            raise self.full_error(needed)

    def full_error(self, needed: int) -> DestinationFullError:
        """There is no room for so many bytes more."""
        return DestinationFullError(
            f"{self.url}: the disk is full: {self.bucket} on worker host {gethostname()} has "
            f"{_free(self._descriptor)} bytes free, {needed} more are needed"
        )

    @contextmanager
    def errors(self, action: str, needed: Callable[[], int] = lambda: 0) -> Iterator[None]:
        """Raise an OSError from inside as a DestinationError. ``action`` is a verb phrase: ``"open a file"``."""
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                raise self.full_error(needed()) from error
            raise _error(self.url, action, error) from error


def host_endpoint() -> str:
    """What the ledger calls this host."""
    return f"file://{gethostname()}"


def etag_of(status: os.stat_result) -> str:
    """What tells one version of a file from another. A rename does not change it."""
    return f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"


def _free(descriptor: int) -> int | None:
    found = os.fstatvfs(descriptor)
    blocks = found.f_bavail if os.geteuid() else found.f_bfree
    return blocks * found.f_frsize if found.f_blocks else None  # some network file systems do not say


def _error(url: str, action: str, error: OSError) -> DestinationError:
    kind = DestinationNotAllowedError if error.errno in _REFUSED else DestinationUnavailableError
    return kind(f"{url}: cannot {action} on worker host {gethostname()}: {error.strerror}")


def _refuse_outside(url: str, real: str, roots: Iterable[Path]) -> None:
    if not any(Path(real).is_relative_to(root) for root in roots):
        allowed = ", ".join(map(str, roots)) or "none are configured (sources.file_roots)"
        raise DestinationNotAllowedError(
            f"{url}: lies outside of the allowed roots on worker host {gethostname()} (symlinks resolved): {allowed}"
        )


def _refuse_odd_name(url: str, path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise DestinationNotAllowedError(f"{url}: a name is not UTF-8 on worker host {gethostname()}") from error
