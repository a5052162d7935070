"""Files of this host as sources, under configured roots only."""

import errno
import os
import stat
import threading
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from socket import gethostname
from typing import Any, Final, TypeVar
from urllib.parse import unquote_to_bytes, urlsplit

from blobferry.jobs.needs import directories_of, directory_need
from worker.errors import (
    BlobferryError,
    SourceChangedError,
    SourceNotAllowedError,
    SourceNotFoundError,
    SourceUnavailableError,
)
from worker.transfer.fingerprint import INSTANCE
from worker.transfer.sources.file_times import settled_status
from worker.transfer.sources.patience import POLL, Patience, waited_for, watched
from worker.transfer.sources.spooled_file import SpooledFile
from worker.transfer.sources.uploaded_bytes import refuse_other_upload
from worker.transfer.stop import Stop, never
from worker.units import KIB

_PIECE: Final = 256 * KIB  #: bytes read at once, at most: each part thread needs them beside its buffer
_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}

Missing = TypeVar("Missing", bound=BlobferryError)


class FileSource:
    """A regular file below one of the allowed roots.

    Symlinks are resolved, and the check is repeated on the opened file: swapping a directory for a symlink between
    check and open gains nothing.
    """

    def __init__(self, url: str, descriptor: int, patience: Patience | None = None) -> None:
        self.url = url
        self._patience = patience or Patience()
        self._descriptor = descriptor
        self.fingerprint: Mapping[str, Any] = self._fingerprint()
        self.size: int = self.fingerprint["size"]

    @classmethod
    def open(
        cls,
        url: str,
        roots: Iterable[Path],
        *,
        spool_directory: Path = Path("/var/tmp"),
        stop: Stop = never,
        patience: Patience | None = None,
    ) -> "FileSource | SpooledFile":
        """Open the file of a ``file:`` URL. A file that has bytes although its size is 0 is read into a spool.

        Raises SourceNotFoundError, SourceNotAllowedError, SourceUnavailableError, Interrupted; each error names the
        host, because the path is the worker's, not the caller's.
        """
        patience, roots = patience or Patience(), list(roots)
        source, tells_size = waited_for(
            lambda: cls.open_at_once(url, roots, patience), patience.watch(url), discard=lambda found: found[0].close()
        )
        if tells_size:
            return source
        with closing(source):
            return SpooledFile.of(url, source._descriptor, spool_directory, stop, patience)

    @classmethod
    def open_at_once(
        cls, url: str, roots: Iterable[Path], patience: Patience | None = None
    ) -> "tuple[FileSource, bool]":
        """Open the file; also return whether its status tells the number of its bytes.

        Takes as long as its mount does, so it is for a thread that may be lost. Raises as ``open`` does.
        """
        path = path_of(url)
        roots = [Path(os.path.realpath(root)) for root in roots]
        refuse_outside(url, os.path.realpath(path), roots, SourceNotAllowedError)
        descriptor = _open(url, path, roots)
        try:
            refuse_outside(url, os.readlink(f"/proc/self/fd/{descriptor}"), roots, SourceNotAllowedError)
            if not stat.S_ISREG(mode := os.fstat(descriptor).st_mode):
                raise _not_regular(url, _KINDS.get(stat.S_IFMT(mode), "something else"))
            source = cls(url, descriptor, patience)
            refuse_other_upload(url, source.size, source.whole)
            if source.size or not source.has_more():
                return source, True
            if os.fstat(descriptor).st_size:  # it is being written just now
                return cls(url, descriptor, patience), True
        except BaseException:
            os.close(descriptor)
            raise
        return source, False

    def readinto(self, offset: int, buffer: memoryview) -> None:
        # A network mount without its server hangs for ever: then only the thread of watched() is lost, not the slot.
        filled, watch = 0, self._patience.watch(self.url)
        for piece in watched(self._pieces(offset, len(buffer)), watch):
            watch.arrived(len(piece))
            buffer[filled : filled + len(piece)] = piece
            filled += len(piece)
        if filled < len(buffer):
            raise self._too_short(offset + filled)

    def whole(self) -> bytes:
        """All bytes, with everything checked that ``check`` does. Raises as that does.

        Takes as long as its mount does, so it is for a thread that may be lost.
        """
        data = b"".join(self._pieces(0, self.size))
        if len(data) < self.size:
            raise self._too_short(len(data))
        self._compare(self._fingerprint(), has_more=self.has_more())
        return data

    def check(self) -> None:
        """Raise SourceChangedError if size or modification time have changed, or the file has bytes after its end.

        Where only the instance has changed, by a chmod or a rewrite that set the old time again, ``fingerprint`` is the
        new one afterwards.
        """
        watch = self._patience.watch(self.url)
        now, has_more = waited_for(lambda: (self._fingerprint(), self.has_more()), watch)
        self._compare(now, has_more=has_more)

    def _compare(self, now: Mapping[str, Any], *, has_more: bool) -> None:
        if any(now[name] != self.fingerprint[name] for name in ("size", "mtime_ns")):
            raise SourceChangedError(f"{self.url}: changed while it was read: {self.fingerprint} is now {now}")
        if has_more:
            raise SourceChangedError(
                f"{self.url}: has more than the {self.size} bytes of its status on worker host {gethostname()}: it "
                "grows, or its file system tells no true sizes; write a file that is complete"
            )
        self.fingerprint = now

    def _too_short(self, end: int) -> SourceChangedError:
        return SourceChangedError(
            f"{self.url}: ends at byte {end}, it had {self.size} bytes, by its status on worker host {gethostname()}"
        )

    def has_more(self) -> bool:
        """Whether a byte can be read after the end that the file's status tells."""
        return bool(self._read(self.size, 1))

    def close(self) -> None:
        # Also closing may hang, until the reads that a mount has not answered are over.
        thread = threading.Thread(target=self.close_at_once, name="source", daemon=True)
        thread.start()
        thread.join(POLL)

    def close_at_once(self) -> None:
        """Close the file, which takes as long as its mount does."""
        with suppress(OSError):  # of a mount that is gone by now; nothing was written
            os.close(self._descriptor)

    def _pieces(self, offset: int, size: int) -> Generator[bytes]:
        while size and (piece := self._read(offset, min(size, _PIECE))):
            offset, size = offset + len(piece), size - len(piece)
            yield piece

    def _read(self, offset: int, size: int) -> bytes:
        try:
            return os.pread(self._descriptor, size, offset)
        except OSError as error:  # a failing disk or network file system
            raise SourceUnavailableError(f"{self.url}: {error.strerror}") from error

    def _fingerprint(self) -> dict[str, Any]:
        status = settled_status(self._descriptor)
        instance = [status.st_dev, status.st_ino, status.st_ctime_ns]
        return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, INSTANCE: instance}


def _open(url: str, path: str, roots: Collection[Path]) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # without O_NONBLOCK, a FIFO would block
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
        if error.errno in (errno.ENXIO, errno.ENODEV):
            raise _not_regular(url, "a socket, or a device without a driver") from error
        raise SourceUnavailableError(f"{url}: {error.strerror} on worker host {gethostname()}") from error


def _not_regular(url: str, kind: str) -> SourceNotAllowedError:
    return SourceNotAllowedError(f"{url}: not a regular file on worker host {gethostname()}: it is {kind}")


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
