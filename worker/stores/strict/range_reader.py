"""Reads a range of an open file."""

from worker.errors import StoreUnavailableError
from worker.stores.strict.bucket import Bucket, File


class RangeReader:
    """The bytes of one get: all of them, or an error. No later call changes them."""

    def __init__(self, bucket: Bucket, key: str, etag: str, file: File, offset: int, size: int) -> None:
        """Args: the blob, and the range in bytes, which the file has."""
        file.seek(offset)
        self.etag = etag
        self.close = file.close
        self._file = file
        self._left = size
        self._bucket = bucket
        self._key = key

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes."""
        wanted = self._left if size < 0 else min(size, self._left)
        with self._bucket.errors("read", self._key):
            data = self._file.read(wanted)
            while len(data) < wanted and (more := self._file.read(wanted - len(data))):
                data += more  # one call of the kernel reads 2 GiB at most
        if len(data) < wanted:
            raise StoreUnavailableError(f"{self._bucket.store}: {self._key!r} was cut short by another program")
        self._left -= wanted
        return data
