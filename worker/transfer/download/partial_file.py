"""Partial files: the bytes that a download has written so far, under a name that shows job and run.

``.NAME.blobferry-JOB-VERSION-OPENING-TOKEN.part``: the part before ``-TOKEN`` is the upload id in the upload's row.
OPENING is random, so nobody can guess the name: whoever sees it in a directory may adopt or remove the file. The token
is that of the run that writes the file. A takeover renames the file to its own name; the earlier run then has no file
to commit, and stops writing when it sees that the name is gone.
"""

import os
import re
import secrets
from contextlib import closing, suppress
from hashlib import sha256
from typing import Final, Self

from worker.errors import DestinationNotAllowedError, DestinationUnavailableError, LeaseLostError
from worker.transfer.download.destination import FileDestination, etag_of
from worker.transfer.download.direct_writes import DirectWrites

_SUFFIX: Final = re.compile(r"-(0|[1-9][0-9]*)\.part", re.ASCII)
_UPLOAD_ID: Final = re.compile(
    r"\.[\w.-]{1,40}\.blobferry-[\w.-]{0,32}-[0-9a-f]{16}-(?:[0-9a-f]{20}|[0-9a-f]{8})", re.ASCII
)
_TRIES: Final = 10  # each failed try needs another run that renames the file just then


def new_upload_id(name: str, *, mark: str, version: str) -> str:
    """Return an upload id, the beginning of each partial file's name: at most 140 bytes with token and suffix."""
    plain = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)
    return f".{plain[:28]}.blobferry-{mark[:32]}-{sha256(version.encode()).hexdigest()[:16]}-{secrets.token_hex(10)}"


class PartialFile:
    """An open partial file. Thread-safe, apart from :meth:`close`."""

    def __init__(self, destination: FileDestination, name: str, descriptor: int, size: int) -> None:
        self.name = name
        self.size = size  #: in bytes, once it is complete
        self._destination = destination
        self._descriptor = descriptor
        self._direct = DirectWrites(descriptor)

    @classmethod
    def create(cls, destination: FileDestination, upload_id: str, token: int, size: int) -> Self:
        """Create an empty partial file, not readable by more users than the file that it will replace."""
        name, mode = _name(upload_id, token), destination.mode()
        partial = cls(destination, name, destination.create(name, 0o666 if mode is None else 0o600), size)
        partial._take_mode()
        destination.sync()
        return partial

    @classmethod
    def adopt(cls, destination: FileDestination, upload_id: str, token: int, size: int) -> Self | None:
        """Rename the partial file of this run or an earlier one to this run's name; None if there is none.

        A symlink, or a hard link to any file but the destination, is removed instead. Raises LeaseLostError if a later
        run has adopted the file.
        """
        own_name = _name(upload_id, token)
        for _ in range(_TRIES):
            newest = max(_tokens(destination, upload_id), default=None)
            if newest is None:
                return None
            if newest > token:
                raise LeaseLostError(f"{destination.url}: a later run has adopted the partial file")
            if newest != token and not destination.rename(_name(upload_id, newest), own_name):
                continue
            descriptor = destination.open_file(own_name, writing=True)
            if descriptor is not None:
                partial = cls(destination, own_name, descriptor, size)
                if partial.is_ours():
                    destination.sync()
                    return partial
                partial.close()
            destination.remove(own_name)
        raise LeaseLostError(f"{destination.url}: other runs keep renaming the partial file")

    def is_ours(self) -> bool:
        """True if the file has no other name, except that of the destination."""
        return os.fstat(self._descriptor).st_nlink == 1 or self.is_committed()

    def is_committed(self) -> bool:
        """True if it has the destination's name too: a run died before it removed the partial file's name."""
        there = self._destination.status(self._destination.name)
        return there is not None and os.path.samestat(there, os.fstat(self._descriptor))

    @property
    def length(self) -> int:
        """The current length in bytes."""
        return os.fstat(self._descriptor).st_size

    @property
    def etag(self) -> str:
        """The ETag that the destination gets."""
        return etag_of(os.fstat(self._descriptor))

    @property
    def missing(self) -> int:
        """Approximately how many more bytes of disk the file needs."""
        return max(self.size - os.fstat(self._descriptor).st_blocks * 512, 0)

    def write(self, data: memoryview, offset: int) -> None:
        """Write at the offset. Raises DestinationUnavailableError if another run has renamed the file.

        This run would write the same bytes, but the other run may have committed the file.
        """
        if self._destination.status(self.name) is None:
            raise DestinationUnavailableError(f"{self._destination.url}: the partial file {self.name} is gone")
        with self._destination.errors("write the partial file", lambda: self.missing):
            while data:
                written = self._direct.write(data, offset) or os.pwrite(self._descriptor, data, offset)
                data, offset = data[written:], offset + written

    def sync(self) -> None:
        """Make sure that the bytes are on the disk, before rows are written for them."""
        with self._destination.errors("write the partial file to the disk", lambda: self.missing):
            os.fdatasync(self._descriptor)

    def finish(self) -> None:
        """Prepare the commit: copy the permissions of the replaced file, and write all bytes to the disk."""
        self._take_mode()
        with self._destination.errors("write the partial file to the disk", lambda: self.missing):
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file; it stays where it is."""
        self._direct.close()
        os.close(self._descriptor)

    def _take_mode(self) -> None:
        mode = self._destination.mode()
        if mode is not None:
            with suppress(PermissionError):  # some file systems have no permissions
                os.fchmod(self._descriptor, mode)


def remove_partials(destination: FileDestination, upload_id: str, token: int) -> None:
    """Remove the partial files of this run and earlier ones."""
    for left in _tokens(destination, upload_id):
        if left <= token:
            destination.remove(_name(upload_id, left))


def has_partial(destination: FileDestination, upload_id: str) -> bool:
    """Whether a partial file of any run is there."""
    return bool(_tokens(destination, upload_id))


def remove_partial(key: str, upload_id: str) -> bool:
    """Remove the partial file of an upload that no job needs; whether there was one. ``key`` is that of its row.

    Safe to repeat: a missing file is no error. Raises DestinationError.
    """
    if not _UPLOAD_ID.fullmatch(upload_id):
        raise DestinationNotAllowedError(f"{key}: {upload_id!r:.200} is not the id of a download")
    destination = FileDestination.reopen(key)
    if destination is None:
        return False
    with closing(destination):
        tokens = _tokens(destination, upload_id)
        for token in tokens:
            destination.remove(_name(upload_id, token))
    return bool(tokens)


def _name(upload_id: str, token: int) -> str:
    return f"{upload_id}-{token}.part"


def _tokens(destination: FileDestination, upload_id: str) -> list[int]:
    names = (name.removeprefix(upload_id) for name in destination.names() if name.startswith(upload_id))
    return [int(found[1]) for found in map(_SUFFIX.fullmatch, names) if found]
