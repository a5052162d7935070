"""A file whose status says 0 bytes although it has some, as in /proc and some FUSE mounts: kept in a spool."""

import hashlib
import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from socket import gethostname
from typing import Any, Final, Self

from worker.errors import SourceChangedError, SourceNotAllowedError, SourceUnavailableError
from worker.transfer.sources.patience import Patience, watched
from worker.transfer.sources.spool import Spool
from worker.transfer.stop import Interrupted, Stop
from worker.units import GIB, MIB

MAX_SIZE: Final = 5 * GIB  #: bytes; some files of that kind never end
_PIECE: Final = MIB  #: bytes read at once, at most


class SpooledFile:
    """The bytes of such a file, as one reading from its beginning to its end gave them.

    The fingerprint holds a checksum, because the file's size and time say nothing about its bytes.
    """

    def __init__(self, url: str, spool: Spool, fingerprint: Mapping[str, Any]) -> None:
        self.url = url
        self.fingerprint = fingerprint
        self.size: int = fingerprint["size"]
        self._spool = spool

    @classmethod
    def of(cls, url: str, descriptor: int, directory: Path, stop: Stop, patience: Patience) -> Self:
        """Read the opened file to its end. The caller closes it.

        Raises SourceUnavailableError for a file that fails and a full disk, SourceNotAllowedError for one that does not
        end, Interrupted.
        """
        where = f"{url}: has bytes although its status on worker host {gethostname()} says 0"
        with _os_errors(f"{where}, and cannot be kept in {directory}"):
            spool = Spool(directory)
        try:
            size, checksum, watch = 0, hashlib.sha256(), patience.watch(url)
            for piece in watched(_pieces(descriptor, where), watch):
                watch.arrived(len(piece))
                if stop():
                    raise Interrupted
                size += len(piece)
                if size > MAX_SIZE:
                    raise SourceNotAllowedError(f"{where}, and does not end within {MAX_SIZE} bytes")
                checksum.update(piece)
                with _os_errors(f"{where}, and cannot be kept in {directory}"):
                    spool.append(piece)
        except BaseException:
            spool.close()
            raise
        return cls(url, spool, {"size": size, "checksum": f"SHA-256:{checksum.hexdigest()}"})

    def readinto(self, offset: int, buffer: memoryview) -> None:
        with _os_errors(f"{self.url}: cannot be read back"):
            filled = self._spool.readinto(offset, buffer)
        if filled < len(buffer):
            raise SourceChangedError(f"{self.url}: ends at byte {offset + filled}, more was expected")

    def check(self) -> None:
        """Nothing to check: the bytes are kept here."""

    def close(self) -> None:
        """Drop the kept bytes."""
        self._spool.close()


def _pieces(descriptor: int, where: str) -> Generator[bytes]:
    while True:
        with _os_errors(f"{where}, and cannot be read"):
            piece = os.read(descriptor, _PIECE)
        if not piece:
            return
        yield piece


@contextmanager
def _os_errors(problem: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceUnavailableError(f"{problem}: {error.strerror}") from error
