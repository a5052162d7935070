"""Partial files: what a download has written so far, under a name that tells whose it is.

``.NAME.blobferry-JOB-VERSION-OPENING-TOKEN.part``: what stands before the token is the upload id in the upload's row.
The token is that of the run that writes the file. A takeover renames the file to its own name; the earlier run then has
no name left to commit, and stops writing once it sees that.
"""

import os
import re
from contextlib import closing, suppress
from hashlib import sha256
from typing import Final, Self
from uuid import uuid4

from worker.errors import DestinationNotAllowedError, DestinationUnavailableError, LeaseLostError
from worker.transfer.download.destination import FileDestination, etag_of

_SUFFIX: Final = re.compile(r"-(0|[1-9][0-9]*)\.part", re.ASCII)
_UPLOAD_ID: Final = re.compile(r"\.[\w.-]{1,40}\.blobferry-[\w.-]{0,32}-[0-9a-f]{16}-[0-9a-f]{8}", re.ASCII)
_TRIES: Final = 10  # each failure needs another run that renames the file at that moment


def new_upload_id(name: str, *, mark: str, version: str) -> str:
    """An upload id with which all names of the partial file begin: at most 140 bytes with token and suffix."""
    plain = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)
    return f".{plain[:40]}.blobferry-{mark[:32]}-{sha256(version.encode()).hexdigest()[:16]}-{uuid4().hex[:8]}"


class PartialFile:
    """An open partial file. Thread-safe, apart from :meth:`close`."""

    def __init__(self, destination: FileDestination, name: str, descriptor: int, size: int) -> None:
        self.name = name
        self.size = size  #: in bytes, once it is complete
        self._destination = destination
        self._descriptor = descriptor

    @classmethod
    def create(cls, destination: FileDestination, upload_id: str, token: int, size: int) -> Self:
        """Create an empty partial file, no more readable for others than the file that it will replace."""
        name, mode = _name(upload_id, token), destination.mode()
        partial = cls(destination, name, destination.create(name, 0o666 if mode is None else 0o600), size)
        partial._take_mode()
        destination.sync()
        return partial

    @classmethod
    def adopt(cls, destination: FileDestination, upload_id: str, token: int, size: int) -> Self | None:
        """The partial file that this run or an earlier one has left, renamed to this run's name; None if there is none.

        A symlink, or a hard link to anything but the destination, is removed instead. Raises LeaseLostError if a later
        run has adopted the file.
        """
        mine = _name(upload_id, token)
        for _ in range(_TRIES):
            newest = max(_tokens(destination, upload_id), default=None)
            if newest is None:
                return None
            if newest > token:
                raise LeaseLostError(f"{destination.url}: a later run has adopted the partial file")
            if newest != token and not destination.rename(_name(upload_id, newest), mine):
                continue
            descriptor = destination.open_file(mine, writing=True)
            if descriptor is not None:
                partial = cls(destination, mine, descriptor, size)
                if partial.is_ours():
                    destination.sync()
                    return partial
                partial.close()
            destination.remove(mine)
        raise LeaseLostError(f"{destination.url}: other runs keep renaming the partial file")

    def is_ours(self) -> bool:
        """Whether it has no other name, except that of the destination."""
        return os.fstat(self._descriptor).st_nlink == 1 or self.is_committed()

    def is_committed(self) -> bool:
        """Whether it has the destination's name too: a run died between the link and the removal of its own name."""
        there = self._destination.status(self._destination.name)
        return there is not None and os.path.samestat(there, os.fstat(self._descriptor))

    @property
    def length(self) -> int:
        """In bytes, now."""
        return os.fstat(self._descriptor).st_size

    @property
    def etag(self) -> str:
        """The ETag that the destination will have."""
        return etag_of(os.fstat(self._descriptor))

    @property
    def missing(self) -> int:
        """About how many more bytes of the disk it needs."""
        return max(self.size - os.fstat(self._descriptor).st_blocks * 512, 0)

    def write(self, data: memoryview, offset: int) -> None:
        """Write at the offset. Raises DestinationUnavailableError if another run has renamed the file.

        This run would write the same bytes, but a committed file belongs to its readers.
        """
        if self._destination.status(self.name) is None:
            raise DestinationUnavailableError(f"{self._destination.url}: the partial file {self.name} is gone")
        with self._destination.errors("write the partial file", lambda: self.missing):
            while data:
                written = os.pwrite(self._descriptor, data, offset)
                data, offset = data[written:], offset + written

    def sync(self) -> None:
        """Bring its bytes to the disk, before rows are written for them."""
        with self._destination.errors("bring the partial file to the disk", lambda: self.missing):
            os.fdatasync(self._descriptor)

    def finish(self) -> None:
        """Prepare the commit: bytes on the disk, permissions of the file that it replaces."""
        self._take_mode()
        with self._destination.errors("bring the partial file to the disk", lambda: self.missing):
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file; it stays where it is."""
        os.close(self._descriptor)

    def _take_mode(self) -> None:
        mode = self._destination.mode()
        if mode is not None:
            with suppress(PermissionError):  # a file system without permissions
                os.fchmod(self._descriptor, mode)


def remove_partials(destination: FileDestination, upload_id: str, token: int) -> None:
    """Remove the partial files of an upload that runs up to this token have left."""
    for left in _tokens(destination, upload_id):
        if left <= token:
            destination.remove(_name(upload_id, left))


def remove_partial(key: str, upload_id: str) -> None:
    """Remove the partial file of an upload that no job needs; its row, with this key, is of this host.

    Safe to repeat: a missing file is no error. Raises DestinationError.
    """
    if not _UPLOAD_ID.fullmatch(upload_id):
        raise DestinationNotAllowedError(f"{key}: {upload_id!r:.200} names no partial file of ours")
    destination = FileDestination.reopen(key)
    if destination is not None:
        with closing(destination):
            for token in _tokens(destination, upload_id):
                destination.remove(_name(upload_id, token))


def _name(upload_id: str, token: int) -> str:
    return f"{upload_id}-{token}.part"


def _tokens(destination: FileDestination, upload_id: str) -> list[int]:
    names = (name.removeprefix(upload_id) for name in destination.names() if name.startswith(upload_id))
    return [int(found[1]) for found in map(_SUFFIX.fullmatch, names) if found]
