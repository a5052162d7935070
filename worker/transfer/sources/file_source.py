"""Files of this host as sources, under configured roots only."""

import errno
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from socket import gethostname
from typing import Any, Self
from urllib.parse import unquote_to_bytes, urlsplit

from worker.errors import SourceChangedError, SourceNotAllowedError, SourceNotFoundError, SourceUnavailableError


class FileSource:
    """A regular file below one of the allowed roots.

    Symlinks are resolved first, and what was opened is checked, not what was named: swapping a directory for a
    symlink between the check and the open gains nothing.
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
        path is one that the worker sees, not the caller.
        """
        path = os.fsdecode(unquote_to_bytes(urlsplit(url).path))  # a name need not be UTF-8
        roots = [Path(os.path.realpath(root)) for root in roots]
        _refuse_outside(url, Path(os.path.realpath(path)), roots)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO would block for ever
        except (FileNotFoundError, NotADirectoryError) as error:
            raise SourceNotFoundError(f"{url}: no such file on worker host {gethostname()}") from error
        except PermissionError as error:
            raise SourceNotAllowedError(f"{url}: not readable for the worker on host {gethostname()}") from error
        except OSError as error:
            if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
                raise SourceNotFoundError(f"{url}: {error.strerror} on worker host {gethostname()}") from error
            raise SourceUnavailableError(f"{url}: {error.strerror} on worker host {gethostname()}") from error
        try:
            _refuse_outside(url, Path(os.readlink(f"/proc/self/fd/{descriptor}")), roots)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise SourceNotAllowedError(f"{url}: not a regular file on worker host {gethostname()}")
            return cls(url, descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def readinto(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer from ``offset``."""
        filled = 0
        while filled < len(buffer):
            try:
                count = os.preadv(self._descriptor, [buffer[filled:]], offset + filled)
            except OSError as error:  # a disk or network file system in trouble
                raise SourceUnavailableError(f"{self.url}: {error.strerror}") from error
            if count == 0:
                raise SourceChangedError(f"{self.url}: ends at byte {offset + filled}, it had {self.size}")
            filled += count

    def check(self) -> None:
        """Raise SourceChangedError if size or modification time have moved."""
        if (now := self._fingerprint()) != self.fingerprint:
            raise SourceChangedError(f"{self.url}: changed while it was read: {self.fingerprint} is now {now}")

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _fingerprint(self) -> dict[str, Any]:
        status = os.fstat(self._descriptor)
        return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _refuse_outside(url: str, real: Path, roots: Iterable[Path]) -> None:
    if not any(real.is_relative_to(root) for root in roots):
        allowed = ", ".join(map(str, roots)) or "none are configured (sources.file_roots)"
        raise SourceNotAllowedError(
            f"{url}: lies outside of the allowed roots on worker host {gethostname()} (symlinks resolved): {allowed}"
        )
