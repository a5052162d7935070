"""Files of this host as sources, under configured roots only."""

import errno
import os
import stat
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from socket import gethostname
from typing import Any, Self, TypeVar
from urllib.parse import unquote_to_bytes, urlsplit

from blobferry.jobs.needs import directories_of, directory_need
from worker.errors import (
    BlobferryError,
    SourceChangedError,
    SourceNotAllowedError,
    SourceNotFoundError,
    SourceUnavailableError,
)

Missing = TypeVar("Missing", bound=BlobferryError)


class FileSource:
    """A regular file below one of the allowed roots.

    Symlinks are resolved, and the check is repeated on the opened file: swapping a directory for a symlink between
    check and open gains nothing.
    """

    def __init__(self, url: str, descriptor: int) -> None:
        self.url = url
        self._descriptor = descriptor
        self.fingerprint: Mapping[str, Any] = self._fingerprint()
        self.size: int = self.fingerprint["size"]

    @classmethod
    def open(cls, url: str, roots: Iterable[Path]) -> Self:
        """Open the file of a ``file:`` URL.

        Raises SourceNotFoundError, SourceNotAllowedError, SourceUnavailableError; each names the host, because the
        path is the worker's, not the caller's.
        """
        path = path_of(url)
        roots = [Path(os.path.realpath(root)) for root in roots]
        refuse_outside(url, os.path.realpath(path), roots, SourceNotAllowedError)
        try:
            descriptor = os.open(
                path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
            )  # without O_NONBLOCK, a FIFO would block
        except (FileNotFoundError, NotADirectoryError) as error:
            missing = SourceNotFoundError(f"{url}: no such file on worker host {gethostname()}")
            raise perhaps_unmounted(missing, url, roots) from error
        except PermissionError as error:
            refused = SourceNotAllowedError(f"{url}: worker host {gethostname()} may not read it")
            refused.lacks = directory_need(url)
            raise refused from error
        except OSError as error:
            if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
                raise SourceNotFoundError(f"{url}: {error.strerror} on worker host {gethostname()}") from error
            raise SourceUnavailableError(f"{url}: {error.strerror} on worker host {gethostname()}") from error
        try:
            refuse_outside(url, os.readlink(f"/proc/self/fd/{descriptor}"), roots, SourceNotAllowedError)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise SourceNotAllowedError(f"{url}: not a regular file on worker host {gethostname()}")
            return cls(url, descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def readinto(self, offset: int, buffer: memoryview) -> None:
        filled = 0
        while filled < len(buffer):
            try:
                count = os.preadv(self._descriptor, [buffer[filled:]], offset + filled)
            except OSError as error:  # a failing disk or network file system
                raise SourceUnavailableError(f"{self.url}: {error.strerror}") from error
            if count == 0:
                raise SourceChangedError(f"{self.url}: ends at byte {offset + filled}, it had {self.size} bytes")
            filled += count

    def check(self) -> None:
        """Raise SourceChangedError if the size or modification time has changed."""
        if (now := self._fingerprint()) != self.fingerprint:
            raise SourceChangedError(f"{self.url}: changed while it was read: {self.fingerprint} is now {now}")

    def close(self) -> None:
        os.close(self._descriptor)

    def _fingerprint(self) -> dict[str, Any]:
        status = os.fstat(self._descriptor)
        return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def path_of(url: str) -> str:
    """Return the path of a ``file:`` URL. It need not be UTF-8."""
    return os.fsdecode(unquote_to_bytes(urlsplit(url).path))


def refuse_outside(url: str, real_path: str, roots: Iterable[Path], error: type[BlobferryError]) -> None:
    """Raise ``error`` unless the path, whose symlinks are resolved, is below one of the roots.

    The roots of another worker may be others.
    """
    if not any(Path(real_path).is_relative_to(root) for root in roots):
        allowed = ", ".join(map(str, roots)) or "none are configured (sources.file_roots)"
        refused = error(
            f"{url}: lies outside of the allowed roots on worker host {gethostname()} (symlinks resolved): {allowed}"
        )
        refused.lacks, refused.certainly_lacks = directory_need(url), True
        raise refused


def perhaps_unmounted(missing: Missing, url: str, roots: Collection[Path]) -> Missing:
    """The error of a path that is not there, with the directory that may be a mount which only this worker lacks.

    A root that is not there is certainly this worker's problem. An empty directory may be a mount point with nothing
    mounted.
    """
    for above in directories_of(url):
        directory = os.path.realpath(path_of(above))
        if os.path.isdir(directory):
            if _is_empty(directory):
                missing.lacks = directory_need(above)
            break
        if Path(directory) in roots:
            missing.lacks, missing.certainly_lacks = directory_need(above), True
            break
    return missing


def _is_empty(directory: str) -> bool:
    try:
        with os.scandir(directory) as entries:
            return next(entries, None) is None
    except OSError:
        return False
