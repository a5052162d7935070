"""Multipart uploads of the local store: rows of the index, and a file for each part."""

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import FileIO

from worker.errors import StoreUnavailableError
from worker.stores import refusals
from worker.stores.blob_values import BlobOptions, Condition, Limits, PartReceipt, PutReceipt, UploadEntry, normal
from worker.stores.checksums import digests_of, join_checksums, multipart_etag
from worker.stores.local import index_rows
from worker.stores.local.blob_files import append_range
from worker.stores.local.index_rows import Record, find_parts
from worker.stores.local.local_blobs import LocalBlobs
from worker.stores.local.local_errors import local_errors
from worker.stores.store import Body


class LocalUploads:
    """The verbs of an upload, as :class:`~worker.stores.store.Store` has them."""

    def __init__(self, blobs: LocalBlobs, limits: Limits) -> None:
        self._blobs = blobs
        self._bucket = blobs.bucket
        self._index = blobs.index
        self._limits = limits

    def create_upload(self, key: str, *, options: BlobOptions | None = None) -> str:
        refusals.check_key("local", key)
        upload_id = uuid.uuid4().hex
        upload = Record(mod_time=self._blobs.now().isoformat(), options=index_rows.json_of(normal(options)))
        with local_errors("open an upload to", self._bucket, key), self._index.write() as change:
            index_rows.put_part(change, key, upload_id, 0, upload)
        return upload_id

    def upload_part(
        self, key: str, upload_id: str, part_number: int, body: Body | bytes, *, checksum: str | None = None
    ) -> PartReceipt:
        self._check_part(key, upload_id, part_number, len(body))
        with self._blobs.received(key, body, checksum) as (file, part):
            return self._add_part(key, upload_id, part_number, file, part._replace(checksum=checksum or part.checksum))

    def copy_part(
        self, key: str, upload_id: str, part_number: int, source_key: str, offset: int, size: int,
        *, source_if_match: str | None = None
    ) -> PartReceipt:  # fmt: skip
        """The kernel copies; the bytes are only read for the ETag."""
        self._check_part(key, upload_id, part_number, size)
        with local_errors(f"copy from {source_key!r} to", self._bucket, key):
            blob, source = self._blobs.open(source_key, source_if_match)
            with source:
                refusals.check_part_range("local", source_key, offset, size, blob.size)
                with self._blobs.copied(source, offset, size, None) as (file, part):
                    return self._add_part(key, upload_id, part_number, file, part)

    def list_parts(self, key: str, upload_id: str) -> Iterator[PartReceipt]:
        with local_errors("list the parts of", self._bucket, key), self._index.read() as db:
            _, held = find_parts(db, key, upload_id)
        return iter([part.receipt(number) for number, part in held.items()])

    def complete_upload(
        self, key: str, upload_id: str, parts: Sequence[PartReceipt],
        *, checksum: str | None = None, size: int | None = None, condition: Condition | None = None
    ) -> PutReceipt:  # fmt: skip
        """See :meth:`~worker.stores.store.Store.complete_upload`. If parts change meanwhile, they are read again."""
        missed = None
        with local_errors("complete the upload to", self._bucket, key):
            while (named := self._named(key, upload_id, parts, size)) != missed:
                missed = named
                with suppress(FileNotFoundError), self._joined(named) as file:
                    whole = self._described(key, file, named, checksum)
                    with self._index.write() as change:
                        upload, held = find_parts(change.db, key, upload_id)
                        if named == [held.get(part.part_number) for part in parts]:
                            index_rows.end_upload(change, upload_id)
                            whole = whole._replace(options=upload.options)
                            return self._blobs.commit(change, key, file, whole, condition)
        raise StoreUnavailableError(f"local: the file of a part of the upload to {key!r} is missing")

    def abort_upload(self, key: str, upload_id: str) -> None:
        with local_errors("abort the upload to", self._bucket, key), self._index.write() as change:
            find_parts(change.db, key, upload_id, last=0)
            index_rows.end_upload(change, upload_id)

    def list_uploads(self, prefix: str = "") -> Iterator[UploadEntry]:
        """By key, then by age."""
        with local_errors("list the uploads in", self._bucket), self._index.read() as db:
            return iter(index_rows.list_uploads(db, prefix))

    def _check_part(self, key: str, upload_id: str, part_number: int, size: int) -> None:
        refusals.check_part_number("local", part_number, self._limits)
        refusals.check_size("local", key, size, self._limits)
        with local_errors("look for the upload to", self._bucket, key), self._index.read() as db:
            find_parts(db, key, upload_id, last=0)

    def _add_part(self, key: str, upload_id: str, number: int, file: FileIO, part: Record) -> PartReceipt:
        with local_errors(f"keep part {number} of", self._bucket, key), self._index.write() as change:
            find_parts(change.db, key, upload_id, last=0)  # it may have been completed or aborted meanwhile
            index_rows.put_part(change, key, upload_id, number, part._replace(file=change.add(file)))
        return part.receipt(number)

    def _named(self, key: str, upload_id: str, parts: Sequence[PartReceipt], size: int | None) -> list[Record]:
        """The parts that the blob is to be made of, if S3 would take them."""
        with self._index.read() as db:
            _, held = find_parts(db, key, upload_id)
        receipts = {number: part.receipt(number) for number, part in held.items()}
        refusals.check_parts("local", key, parts, receipts, self._limits)
        refusals.check_whole_size("local", key, sum(receipts[part.part_number].size for part in parts), size)
        return [held[part.part_number] for part in parts]

    @contextmanager
    def _joined(self, parts: list[Record]) -> Iterator[FileIO]:
        """The parts in a row in an unnamed file on the disk; or the file of the only one, which a blob may share."""
        if len(parts) == 1:
            with self._blobs.files.open(parts[0].file, parts[0].size) as file:
                yield file
            return
        with self._blobs.files.unnamed() as file:
            for part in parts:
                with self._blobs.files.open(part.file, part.size) as source:
                    append_range(file, source, 0, part.size)
            os.fsync(file)
            yield file

    def _described(self, key: str, file: FileIO, parts: list[Record], checksum: str | None) -> Record:
        """What is in the joined file. It is only read for a checksum that the parts do not have."""
        algorithm = refusals.check_algorithm("local", checksum)
        wanted = {name for name in (algorithm, self._blobs.kept) if name}
        joined = join_checksums((part.checksum, part.size) for part in parts) or ""
        if wanted <= {joined.partition(":")[0]}:
            known = dict.fromkeys(wanted, joined)
        else:
            digests = digests_of(file, *wanted)
            known = {name: digests.checksum(name) for name in wanted}
        refusals.check_checksum("local", key, known.get(algorithm or ""), checksum)
        etag = f'"{multipart_etag(part.etag for part in parts)}"'
        return Record("", sum(part.size for part in parts), etag, known.get(self._blobs.kept or ""))
