"""What is visible under the keys of the local store, and the one place where that changes."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from io import FileIO

from worker.errors import StoreUnavailableError
from worker.stores import refusals
from worker.stores.blob_values import BlobOptions, Condition, PutReceipt
from worker.stores.checksums import Digests
from worker.stores.local.blob_files import BlobFiles, digest_file, write_all
from worker.stores.local.index import Change, Index
from worker.stores.local.index_rows import StoredBlob, StoredFile, delete_blob, find_blob, put_blob
from worker.stores.local.local_errors import local_errors
from worker.stores.streams import Body, pieces_of


class LocalBlobs:
    """Blobs are replaced in one step, and open readers keep the old bytes."""

    def __init__(
        self, bucket: str, index: Index, files: BlobFiles, kept: str | None, now: Callable[[], datetime]
    ) -> None:
        """Args: ``kept``: the algorithm of the checksum that is kept of every blob; ``now``: the store's clock."""
        self.bucket = bucket
        self.index = index
        self.files = files
        self.now = now
        self._kept = kept

    def algorithms(self, checksum: str | None = None) -> list[str]:
        """The algorithm of a checksum, and the one that is kept. Raises InvalidStoreRequestError."""
        return list(dict.fromkeys(name for name in (refusals.check_algorithm("local", checksum), self._kept) if name))

    def find(self, key: str, if_match: str | None = None) -> StoredBlob:
        """The blob under a key. Raises KeyNotFoundError, PreconditionFailedError."""
        with self.index.read() as db:
            blob = find_blob(db, key)
        if blob is None:
            raise refusals.key_not_found("local", self.bucket, key)
        refusals.check_if_match("local", key, blob.file.etag, if_match)
        return blob

    def open(self, key: str, if_match: str | None = None) -> tuple[StoredBlob, FileIO]:
        """A blob and its bytes, an open file that is the caller's to close."""
        missed = None
        while True:
            blob = self.find(key, if_match)
            with suppress(FileNotFoundError):
                return blob, self.files.open(blob.file.name, blob.file.size)
            if blob.file.name == missed:
                raise StoreUnavailableError(f"local: {key!r} has lost its bytes: file {missed!r} is missing")
            missed = blob.file.name  # the blob was replaced or deleted in between: look again

    @contextmanager
    def received(self, key: str, body: Body | bytes, checksum: str | None) -> Iterator[tuple[FileIO, StoredFile]]:
        """A body in an unnamed file on the disk. An error of the body comes out as it is."""
        names = self.algorithms(checksum)
        digests = Digests("MD5", *names)
        with ExitStack() as stack:
            with local_errors("write", self.bucket, key):
                file = stack.enter_context(self.files.unnamed())
            for piece in pieces_of(body):
                digests.update(piece)
                with local_errors("write", self.bucket, key):
                    write_all(file, piece)
            refusals.check_body_size("local", digests.size, len(body))
            refusals.check_checksum("local", key, digests.checksum(names[0]) if checksum else None, checksum)
            with local_errors("write", self.bucket, key):
                os.fsync(file)
            yield file, _described(digests, names)

    def copied(self, file: FileIO, size: int) -> StoredFile:
        """What is in an unnamed file, which is read for that and brought to the disk."""
        names = self.algorithms()
        os.fsync(file)
        return _described(digest_file(file, size, "MD5", *names), names)

    def put(
        self, key: str, file: FileIO, content: StoredFile, options: BlobOptions, condition: Condition | None
    ) -> PutReceipt:
        """Make an unnamed file on the disk the blob of a key; see :meth:`commit`."""
        with self.index.write() as change:
            return self.commit(change, key, file, content, options, condition)

    def commit(
        self,
        change: Change,
        key: str,
        file: FileIO | None,
        content: StoredFile,
        options: BlobOptions,
        condition: Condition | None,
    ) -> PutReceipt:
        """Make a file the blob of a key once the change is committed.

        Args:
            change: the transaction.
            key: of the blob.
            file: an unnamed file on the disk; None: one that the change takes away from elsewhere.
            content: what is in it.
            options: what the blob carries.
            condition: what must be there now. Raises PreconditionFailedError.
        """
        old = find_blob(change.db, key)
        refusals.check_condition("local", key, condition, None if old is None else old.file.etag)
        now = self.now()
        if old is not None:
            change.drop([old.file.name])
            now = max(now, old.mod_time + timedelta(microseconds=1))
        kept = content.checksum(self._kept) if self._kept else None
        name = content.name if file is None else change.add(file)
        put_blob(change.db, key, StoredBlob(replace(content, name=name, checksums=kept or ""), now, options))
        return PutReceipt(content.etag)

    def delete(self, keys: Sequence[str], condition: Condition | None) -> None:
        """Leave nothing under any of the keys, or change nothing."""
        with self.index.read() as db:
            there = [key for key in keys if find_blob(db, key)]
        if not there:
            return
        with self.index.write(is_deletion=True) as change:
            for key in there:
                old = find_blob(change.db, key)
                if old is not None:
                    refusals.check_condition("local", key, condition, old.file.etag)
                    delete_blob(change.db, key)
                    change.drop([old.file.name])


def _described(digests: Digests, names: list[str]) -> StoredFile:
    return StoredFile("", digests.size, f'"{digests.md5}"', " ".join(digests.checksum(name) for name in names))
