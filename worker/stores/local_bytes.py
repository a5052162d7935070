"""Bytes on their way into files and out of them."""

from collections.abc import Iterator
from io import FileIO
from typing import Final

from worker.errors import InvalidStoreRequestError, StoreUnavailableError
from worker.stores.local_digests import Digests
from worker.stores.local_errors import local_errors
from worker.stores.local_files import write_all
from worker.stores.store import Body
from worker.units import MIB

_STEP: Final = MIB


def receive(file: int, body: Body | bytes, digests: Digests, bucket: str, key: str) -> None:
    """Write a body's bytes into a file. An error of the body comes out as it is."""
    for piece in _pieces(body):
        digests.update(piece)
        with local_errors("write", bucket, key):
            write_all(file, piece)
    if digests.size != len(body):
        raise InvalidStoreRequestError(f"local: the body has {digests.size} bytes and says {len(body)}")


def _pieces(body: Body | bytes) -> Iterator[bytes | memoryview]:
    if isinstance(body, bytes):
        view = memoryview(body)
        yield from (view[start : start + _STEP] for start in range(0, len(view), _STEP))
        return
    body.seek(0)
    left = len(body) + 1  # one more than there should be: a body that has more is found out
    while left > 0 and (piece := body.read(min(_STEP, left))):
        left -= len(piece)
        yield piece


class LocalReader:
    """A range of an open file, which no later call changes."""

    def __init__(self, file: int, offset: int, size: int, etag: str, bucket: str, key: str) -> None:
        self.etag = etag
        self._file = FileIO(file)
        self._file.seek(offset)
        self._left = size
        self._where = (bucket, key)

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes."""
        wanted = self._left if size < 0 else min(size, self._left)
        pieces = []
        while wanted:
            with local_errors("read", *self._where):
                piece = self._file.read(wanted)
            if not piece:
                raise StoreUnavailableError(f"local: {self._where[1]!r} was cut short by other hands than ours")
            pieces.append(piece)
            wanted -= len(piece)
            self._left -= len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
