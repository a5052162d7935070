"""What is visible under the keys of the local store, and the one place where that changes."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from io import FileIO

from worker.errors import StoreUnavailableError
from worker.stores import refusals
from worker.stores.blob_values import Condition, PutReceipt
from worker.stores.checksums import FULL_OBJECT_ALGORITHMS, Digests, digests_of
from worker.stores.local.blob_files import BlobFiles, append_range, write_all
from worker.stores.local.index import Change, Index
from worker.stores.local.index_rows import Record, delete_blob, find_blob, put_blob
from worker.stores.local.local_errors import local_errors
from worker.stores.streams import Body, pieces_of


class LocalBlobs:
    """Blobs are replaced in one step, and open readers keep the old bytes."""

    def __init__(self, bucket: str, checksum: str, now: Callable[[], datetime]) -> None:
        """Args: ``checksum``: the store's; ``now``: its clock."""
        self.bucket = bucket
        self.files = BlobFiles(bucket)
        self.index = Index(bucket, self.files)
        self.kept = FULL_OBJECT_ALGORITHMS.get(checksum)  #: whose checksum is kept of every blob
        self.now = now

    def find(self, key: str, if_match: str | None = None) -> Record:
        """The blob under a key. Raises KeyNotFoundError, PreconditionFailedError."""
        with self.index.read() as db:
            blob = find_blob(db, key)
        if blob is None:
            raise refusals.key_not_found("local", self.bucket, key)
        refusals.check_if_match("local", key, blob.etag, if_match)
        return blob

    def open(self, key: str, if_match: str | None = None) -> tuple[Record, FileIO]:
        """A blob and its bytes, an open file that is the caller's to close."""
        missed = None
        while (blob := self.find(key, if_match)) != missed:
            missed = blob
            with suppress(FileNotFoundError):  # it was replaced or deleted in between: look again
                return blob, self.files.open(blob.file, blob.size)
        raise StoreUnavailableError(f"local: {key!r} has lost its bytes: file {blob.file!r} is missing")

    @contextmanager
    def received(self, key: str, body: Body | bytes, checksum: str | None) -> Iterator[tuple[FileIO, Record]]:
        """A body in an unnamed file on the disk. An error of the body comes out as it is."""
        algorithm = refusals.check_algorithm("local", checksum)
        digests = Digests("MD5", algorithm, self.kept)
        errors = partial(local_errors, "write", self.bucket, key)
        with errors():
            file = self.files.unnamed()
        with file:
            for piece in pieces_of(body):
                digests.update(piece)
                with errors():
                    write_all(file, piece)
            refusals.check_body_size("local", digests.size, len(body))
            refusals.check_checksum("local", key, digests.checksum(algorithm) if algorithm else None, checksum)
            with errors():
                os.fsync(file)
            yield file, self._described(digests)

    @contextmanager
    def copied(self, source: FileIO, offset: int, size: int, known: Record | None) -> Iterator[tuple[FileIO, Record]]:
        """A range of a file in an unnamed file on the disk. ``known``: what is in it; None: read it for that."""
        with self.files.unnamed() as file:
            append_range(file, source, offset, size)
            os.fsync(file)
            yield file, known or self._described(digests_of(file, "MD5", self.kept))

    def commit(
        self, change: Change, key: str, file: FileIO, content: Record, condition: Condition | None
    ) -> PutReceipt:
        """Make a file the blob of a key once the change is committed.

        Args:
            change: the transaction.
            key: of the blob.
            file: on the disk; it is given a name.
            content: what is in it, with the blob's options.
            condition: what must be there now. Raises PreconditionFailedError.
        """
        old = find_blob(change.db, key)
        refusals.check_condition("local", key, condition, None if old is None else old.etag)
        now = self.now()
        if old is not None:
            now = max(now, datetime.fromisoformat(old.mod_time) + timedelta(microseconds=1))
        put_blob(change, key, content._replace(file=change.add(file), mod_time=now.isoformat()))
        return PutReceipt(content.etag)

    def delete(self, keys: Sequence[str], condition: Condition) -> None:
        """Leave nothing under any of the keys, or change nothing."""
        with self.index.read() as db:
            there = [key for key in keys if find_blob(db, key)]
        if not there:
            return
        with self.index.write(is_deletion=True) as change:
            for key in there:
                old = find_blob(change.db, key)
                if old is not None:
                    refusals.check_condition("local", key, condition, old.etag)
                    delete_blob(change, key)

    def _described(self, digests: Digests) -> Record:
        checksum = digests.checksum(self.kept) if self.kept else None
        return Record(size=digests.size, etag=f'"{digests.md5}"', checksum=checksum)
