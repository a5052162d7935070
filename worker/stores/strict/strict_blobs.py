"""What is visible under the keys of a bucket, and the one place where that changes."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial

from worker.errors import StoreUnavailableError
from worker.stores.blob_values import Body, Condition, DeleteFailure, PutReceipt
from worker.stores.checksums import Digests, digests_of
from worker.stores.strict import refusals
from worker.stores.strict.bucket import Bucket, Change, File, Record
from worker.units import MIB


class StrictBlobs:
    """Blobs are replaced in one step, and open readers keep the old bytes."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._store = bucket.store
        self._files = bucket.files

    def find(self, key: str, if_match: str | None = None) -> Record:
        """The blob under a key. Raises KeyNotFoundError, PreconditionFailedError."""
        with self._bucket.index.read() as rows:
            blob = rows.find_blob(key)
        if blob is None:
            raise refusals.key_not_found(self._store, self._bucket.name, key)
        refusals.check_if_match(self._store, key, blob.etag, if_match)
        return blob

    def open(self, key: str, if_match: str | None = None) -> tuple[Record, File]:
        """A blob and its bytes, an open file that is the caller's to close."""
        missed = None
        while (blob := self.find(key, if_match)) != missed:
            missed = blob
            with suppress(FileNotFoundError):  # it was replaced or deleted in between: look again
                return blob, self._files.open(blob.file, blob.size)
        raise StoreUnavailableError(f"{self._store}: {key!r} has lost its bytes: file {blob.file!r} is missing")

    @contextmanager
    def received(self, key: str, body: Body | bytes, checksum: str | None) -> Iterator[tuple[File, Record]]:
        """A body in a new file. An error of the body comes out as it is."""
        algorithm = refusals.check_algorithm(self._store, checksum)
        digests = Digests("MD5", algorithm, self._bucket.kept)
        errors = partial(self._bucket.errors, "write", key)
        with errors():
            file = self._files.unnamed()
        with file:
            for piece in _pieces_of(body):
                digests.update(piece)
                with errors():
                    self._files.write(file, piece)
            refusals.check_body_size(self._store, digests.size, len(body))
            refusals.check_checksum(self._store, key, digests.checksum(algorithm) if algorithm else None, checksum)
            with errors():
                self._files.sync(file)
            yield file, self._described(digests)

    @contextmanager
    def copied(self, source: File, offset: int, size: int, known: Record | None) -> Iterator[tuple[File, Record]]:
        """A range of a file in a new file. ``known``: what is in it; None: read it for that."""
        with self._files.unnamed() as file:
            self._files.append_range(file, source, offset, size)
            self._files.sync(file)
            yield file, known or self._described(digests_of(file, "MD5", self._bucket.kept))

    def commit(self, change: Change, key: str, file: File, content: Record, condition: Condition | None) -> PutReceipt:
        """Make a file the blob of a key once the change is committed.

        Args:
            change: the transaction.
            key: of the blob.
            file: what the change is to keep.
            content: what is in it, with the blob's options.
            condition: what must be there now. Raises PreconditionFailedError.
        """
        old = change.find_blob(key)
        refusals.check_condition(self._store, key, condition, None if old is None else old.etag)
        now = self._bucket.now()
        if old is not None:
            now = max(now, old.mod_time + timedelta(microseconds=1))
        change.put_blob(key, content._replace(file=change.add(file), mod_time=now))
        return PutReceipt(content.etag)

    def delete(self, keys: Sequence[str], etags: Mapping[str, str]) -> list[DeleteFailure]:
        """Leave nothing under any of the keys but blobs with other ETags, which are returned; or change nothing."""
        with self._bucket.index.read() as rows:
            there = [key for key in keys if rows.find_blob(key)]
        if not there:
            return []
        with self._bucket.index.write(is_deletion=True) as change:
            found = {key: blob.etag for key in there if (blob := change.find_blob(key))}
            changed = refusals.changed_keys(self._store, etags, found)
            for key in found.keys() - {failure.key for failure in changed}:
                change.delete_blob(key)
        return changed

    def _described(self, digests: Digests) -> Record:
        kept = self._bucket.kept
        return Record("", digests.size, f'"{digests.md5}"', digests.checksum(kept) if kept else None)


def _pieces_of(body: Body | bytes) -> Iterator[bytes | memoryview]:
    """A body from its beginning, at most a MiB at a time and at most one byte more than it says it has."""
    if isinstance(body, bytes):
        yield body
        return
    body.seek(0)
    left = len(body) + 1
    while left > 0 and (piece := body.read(min(MIB, left))):
        left -= len(piece)
        yield piece
