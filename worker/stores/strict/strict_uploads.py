"""Multipart uploads of a bucket: records of the index, and a file for each part."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from worker.errors import StoreUnavailableError
from worker.stores.blob_values import BlobOptions, Body, Condition, PartReceipt, PutReceipt, UploadEntry, normal
from worker.stores.checksums import digests_of, join_checksums, multipart_etag
from worker.stores.strict import refusals
from worker.stores.strict.bucket import Bucket, File, Record
from worker.stores.strict.strict_blobs import StrictBlobs


class StrictUploads:
    """The verbs of an upload, as :class:`~worker.stores.store.Store` has them."""

    def __init__(self, bucket: Bucket, blobs: StrictBlobs) -> None:
        self._bucket = bucket
        self._store = bucket.store
        self._blobs = blobs
        self._index = bucket.index
        self._errors = bucket.errors
        self._files = bucket.files

    def create_upload(self, key: str, *, options: BlobOptions | None = None) -> str:
        refusals.check_key(self._store, key)
        upload_id = uuid.uuid4().hex
        upload = Record(mod_time=self._bucket.now(), options=normal(options))
        with self._errors("open an upload to", key), self._index.write() as change:
            change.put_part(key, upload_id, 0, upload)
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
        self._check_part(key, upload_id, part_number, size)
        with self._errors(f"copy from {source_key!r} to", key):
            blob, source = self._blobs.open(source_key, source_if_match)
            with source:
                refusals.check_part_range(self._store, source_key, offset, size, blob.size)
                with self._blobs.copied(source, offset, size, None) as (file, part):
                    return self._add_part(key, upload_id, part_number, file, part)

    def list_parts(self, key: str, upload_id: str) -> Iterator[PartReceipt]:
        with self._errors("list the parts of", key), self._index.read() as rows:
            _, held = rows.find_parts(key, upload_id)
        return iter([part.receipt(number) for number, part in held.items()])

    def complete_upload(
        self, key: str, upload_id: str, parts: Sequence[PartReceipt],
        *, checksum: str | None = None, size: int | None = None, condition: Condition | None = None
    ) -> PutReceipt:  # fmt: skip
        """See :meth:`~worker.stores.store.Store.complete_upload`. If parts change meanwhile, they are read again."""
        missed = None
        with self._errors("complete the upload to", key):
            while (named := self._named(key, upload_id, parts, size)) != missed:
                missed = named
                with suppress(FileNotFoundError), self._joined(named) as file:
                    whole = self._described(key, file, named, checksum)
                    with self._index.write() as change:
                        upload, held = change.find_parts(key, upload_id)
                        if named == [held.get(part.part_number) for part in parts]:
                            whole = whole._replace(options=upload.options)
                            receipt = self._blobs.commit(change, key, file, whole, condition)
                            change.end_upload(upload_id)
                            return receipt
        raise StoreUnavailableError(f"{self._store}: the file of a part of the upload to {key!r} is missing")

    def abort_upload(self, key: str, upload_id: str) -> None:
        with self._errors("abort the upload to", key), self._index.write() as change:
            change.find_parts(key, upload_id, last=0)
            change.end_upload(upload_id)

    def list_uploads(self, prefix: str = "") -> Iterator[UploadEntry]:
        """By key, then by age."""
        with self._errors("list the uploads in", ""), self._index.read() as rows:
            return iter(rows.list_uploads(prefix))

    def _check_part(self, key: str, upload_id: str, part_number: int, size: int) -> None:
        refusals.check_part_number(self._store, part_number, self._bucket.limits)
        refusals.check_size(self._store, key, size, self._bucket.limits)
        with self._errors("look for the upload to", key), self._index.read() as rows:
            rows.find_parts(key, upload_id, last=0)

    def _add_part(self, key: str, upload_id: str, number: int, file: File, part: Record) -> PartReceipt:
        with self._errors(f"keep part {number} of", key), self._index.write() as change:
            change.find_parts(key, upload_id, last=0)  # it may have been completed or aborted meanwhile
            change.put_part(key, upload_id, number, part._replace(file=change.add(file)))
        return part.receipt(number)

    def _named(self, key: str, upload_id: str, parts: Sequence[PartReceipt], size: int | None) -> list[Record]:
        """The parts that the blob is to be made of, if S3 would take them."""
        with self._index.read() as rows:
            _, held = rows.find_parts(key, upload_id)
        receipts = {number: part.receipt(number) for number, part in held.items()}
        refusals.check_parts(self._store, key, parts, receipts, self._bucket.limits)
        refusals.check_whole_size(self._store, key, sum(receipts[part.part_number].size for part in parts), size)
        return [held[part.part_number] for part in parts]

    @contextmanager
    def _joined(self, parts: list[Record]) -> Iterator[File]:
        """The parts in a row in a new file; or the file of the only one, which a blob may share."""
        if len(parts) == 1:
            with self._files.open(parts[0].file, parts[0].size) as file:
                yield file
            return
        with self._files.unnamed() as file:
            for part in parts:
                with self._files.open(part.file, part.size) as source:
                    self._files.append_range(file, source, 0, part.size)
            self._files.sync(file)
            yield file

    def _described(self, key: str, file: File, parts: list[Record], checksum: str | None) -> Record:
        """What is in the joined file. It is only read for a checksum that the parts do not have."""
        algorithm = refusals.check_algorithm(self._store, checksum)
        wanted = {name for name in (algorithm, self._bucket.kept) if name}
        joined = join_checksums((part.checksum, part.size) for part in parts) or ""
        if wanted <= {joined.partition(":")[0]}:
            known = dict.fromkeys(wanted, joined)
        else:
            digests = digests_of(file, *wanted)
            known = {name: digests.checksum(name) for name in wanted}
        refusals.check_checksum(self._store, key, known.get(algorithm or ""), checksum)
        etag = f'"{multipart_etag(part.etag for part in parts)}"'
        return Record("", sum(part.size for part in parts), etag, known.get(self._bucket.kept or ""))
