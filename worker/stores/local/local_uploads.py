"""Multipart uploads of the local store: rows of the index, and a file for each part."""

import os
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import FileIO

from worker.errors import StoreUnavailableError
from worker.stores import refusals
from worker.stores.blob_values import BlobOptions, Condition, Limits, PartReceipt, PutReceipt, UploadEntry, normal
from worker.stores.checksums import join_checksums, multipart_etag
from worker.stores.local import index_rows
from worker.stores.local.blob_files import copy_range, digest_file
from worker.stores.local.index_rows import StoredFile
from worker.stores.local.local_blobs import LocalBlobs
from worker.stores.local.local_errors import local_errors
from worker.stores.store import Body


class LocalUploads:
    """The verbs of an upload, as :class:`~worker.stores.store.Store` has them."""

    def __init__(self, blobs: LocalBlobs, limits: Limits) -> None:
        self._blobs = blobs
        self._bucket = blobs.bucket
        self._index = blobs.index
        self._files = blobs.files
        self._limits = limits

    def create_upload(self, key: str, *, options: BlobOptions | None = None) -> str:
        """Open an upload."""
        refusals.check_key("local", key)
        upload = UploadEntry(key, uuid.uuid4().hex, self._blobs.now())
        with local_errors("open an upload to", self._bucket, key), self._index.write() as change:
            index_rows.add_upload(change.db, upload, normal(options))
        return upload.upload_id

    def upload_part(
        self, key: str, upload_id: str, part_number: int, body: Body | bytes, *, checksum: str | None = None
    ) -> PartReceipt:
        """Keep a part."""
        self._check_part(key, upload_id, part_number, len(body))
        with self._blobs.received(key, body, checksum) as (file, part):
            return self._add_part(key, upload_id, part_number, file, part)

    def copy_part(
        self, key: str, upload_id: str, part_number: int, source_key: str, offset: int, size: int,
        *, source_if_match: str | None = None
    ) -> PartReceipt:  # fmt: skip
        """Keep a part that the kernel copies; its bytes are only read for the ETag."""
        self._check_part(key, upload_id, part_number, size)
        with local_errors(f"copy from {source_key!r} to", self._bucket, key):
            blob, source = self._blobs.open(source_key, source_if_match)
            with source, self._files.unnamed() as file:
                refusals.check_part_range("local", source_key, offset, size, blob.file.size)
                copy_range(source.fileno(), offset, file.fileno(), 0, size)
                return self._add_part(key, upload_id, part_number, file, self._blobs.copied(file, size))

    def list_parts(self, key: str, upload_id: str) -> Iterator[PartReceipt]:
        """The parts that are here."""
        with local_errors("list the parts of", self._bucket, key), self._index.read() as db:
            _, held = _unfinished(db, key, upload_id)
        return iter([part.receipt(number) for number, part in held.items()])

    def complete_upload(
        self, key: str, upload_id: str, parts: Sequence[PartReceipt],
        *, checksum: str | None = None, size: int | None = None, condition: Condition | None = None
    ) -> PutReceipt:  # fmt: skip
        """Make the parts a blob. A refused upload stays open. If parts change meanwhile, they are read again."""
        missed = None
        with local_errors("complete the upload to", self._bucket, key):
            while True:
                named = self._named(key, upload_id, parts, size)
                with (
                    suppress(FileNotFoundError),
                    self._joined(key, list(named.values()), checksum) as (file, whole),
                    self._index.write() as change,
                ):
                    options, held = _unfinished(change.db, key, upload_id)
                    if any(held.get(number) != part for number, part in named.items()):
                        continue
                    change.drop(index_rows.end_upload(change.db, upload_id) - {whole.name})
                    return self._blobs.commit(change, key, file, whole, options, condition)
                if named == missed:
                    raise StoreUnavailableError(f"local: the file of a part of the upload to {key!r} is missing")
                missed = named

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Drop an upload and its parts."""
        with local_errors("abort the upload to", self._bucket, key), self._index.write() as change:
            _options(change.db, key, upload_id)
            change.drop(index_rows.end_upload(change.db, upload_id))

    def list_uploads(self, prefix: str = "") -> Iterator[UploadEntry]:
        """By key, then by age."""
        with local_errors("list the uploads in", self._bucket), self._index.read() as db:
            return iter(index_rows.unfinished_uploads(db, prefix))

    def _check_part(self, key: str, upload_id: str, part_number: int, size: int) -> None:
        refusals.check_part_number("local", part_number, self._limits)
        refusals.check_size("local", key, size, self._limits)
        with local_errors("look for the upload to", self._bucket, key), self._index.read() as db:
            _options(db, key, upload_id)

    def _add_part(self, key: str, upload_id: str, number: int, file: FileIO, part: StoredFile) -> PartReceipt:
        with local_errors(f"keep part {number} of", self._bucket, key), self._index.write() as change:
            _options(change.db, key, upload_id)  # it may have been completed or aborted meanwhile
            part = replace(part, name=change.add(file))
            change.drop(index_rows.put_part(change.db, upload_id, number, part))
        return part.receipt(number)

    def _named(self, key: str, upload_id: str, parts: Sequence[PartReceipt], size: int | None) -> dict[int, StoredFile]:
        """The parts that the blob is to be made of, if S3 would take them."""
        with self._index.read() as db:
            _, held = _unfinished(db, key, upload_id)
        wanted = {part.part_number: (part.checksum or "").partition(":")[0] for part in parts}
        receipts = {number: part.receipt(number, wanted.get(number, "")) for number, part in held.items()}
        refusals.check_parts("local", key, parts, receipts, self._limits)
        named = {number: held[number] for number in wanted}
        refusals.check_whole_size("local", key, sum(part.size for part in named.values()), size)
        return named

    @contextmanager
    def _joined(
        self, key: str, parts: list[StoredFile], checksum: str | None
    ) -> Iterator[tuple[FileIO | None, StoredFile]]:
        """The parts in a row in an unnamed file; None: a single part is the blob's file itself.

        Checksums are joined where each part has one, and else made of the bytes.
        """
        size = sum(part.size for part in parts)
        names = self._blobs.algorithms(checksum)
        known = {name: join_checksums((part.checksum(name), part.size) for part in parts) for name in names}
        refusals.check_checksum("local", key, known[names[0]] if checksum else None, checksum)
        with self._files.open(parts[0].name, size) if len(parts) == 1 else self._concatenated(parts) as file:
            unknown = [name for name, joined in known.items() if joined is None]
            if unknown:
                digests = digest_file(file, size, *unknown)
                known |= {name: digests.checksum(name) for name in unknown}
                refusals.check_checksum("local", key, known[names[0]] if checksum else None, checksum)
            etag = f'"{multipart_etag(part.etag for part in parts)}"'
            whole = StoredFile(parts[0].name, size, etag, " ".join(f"{joined}" for joined in known.values()))
            yield (None, whole) if len(parts) == 1 else (file, replace(whole, name=""))

    def _concatenated(self, parts: list[StoredFile]) -> FileIO:
        position = 0
        with self._files.unnamed() as file:
            for part in parts:
                with self._files.open(part.name, part.size) as source:
                    copy_range(source.fileno(), 0, file.fileno(), position, part.size)
                position += part.size
            os.fsync(file)
            return FileIO(os.dup(file.fileno()), "r+b")


def _options(db: sqlite3.Connection, key: str, upload_id: str) -> BlobOptions:
    """What the blob of an upload is to carry. Raises UploadNotFoundError."""
    options = index_rows.find_upload(db, key, upload_id)
    if options is None:
        raise refusals.upload_not_found("local", key, upload_id)
    return options


def _unfinished(db: sqlite3.Connection, key: str, upload_id: str) -> tuple[BlobOptions, dict[int, StoredFile]]:
    held = index_rows.find_parts(db, upload_id)  # first: these are all if the upload is still there afterwards
    return _options(db, key, upload_id), held
