"""Multipart uploads of the local store."""

import fcntl
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress

from worker.errors import InvalidStoreRequestError
from worker.stores.local_bucket import UPLOAD_RECORD, UPLOADS
from worker.stores.local_checks import check_part_number, check_parts, check_size
from worker.stores.local_digests import Digests, algorithms, digest_file
from worker.stores.local_errors import local_errors
from worker.stores.local_files import closing_fd, copy_range, fill_directory, link, write_all
from worker.stores.local_names import check_key, key_bytes
from worker.stores.local_parts import LocalParts, parts_in
from worker.stores.local_records import UploadRecord, dump
from worker.stores.store import Body
from worker.stores.values import BlobOptions, Condition, PartReceipt, PutReceipt, UploadEntry, normal


class LocalUploads(LocalParts):
    """The verbs of an upload."""

    def create_upload(self, key: str, *, options: BlobOptions | None = None) -> str:
        """See :meth:`~worker.stores.store.Store.create_upload`."""
        check_key(key)
        upload_id = uuid.uuid4().hex
        text = dump(UploadRecord(key, self._now(), normal(options)))
        with local_errors("open an upload to", self.bucket, key), self._unnamed_file() as file:
            write_all(file, text)
            os.fsync(file)
            with self._root() as root:
                fill_directory(root, [UPLOADS, upload_id], lambda fd: _link(file, fd))
        return upload_id

    def upload_part(
        self, key: str, upload_id: str, part_number: int, body: Body | bytes, *, checksum: str | None = None
    ) -> PartReceipt:
        """See :meth:`~worker.stores.store.Store.upload_part`."""
        check_part_number(part_number, self.limits)
        check_size(len(body), self.limits, key)
        self._check_upload(key, upload_id)
        with (
            self._received(key, body, checksum) as staged,
            local_errors(f"keep part {part_number} of", self.bucket, key),
        ):
            return self._add_part(key, upload_id, part_number, staged)

    def copy_part(
        self,
        key: str,
        upload_id: str,
        part_number: int,
        source_key: str,
        offset: int,
        size: int,
        *,
        source_if_match: str | None = None,
    ) -> PartReceipt:
        """See :meth:`~worker.stores.store.Store.copy_part`. The kernel copies; the bytes are only read for the ETag."""
        check_part_number(part_number, self.limits)
        check_size(size, self.limits, key)
        self._check_upload(key, upload_id)
        with local_errors(f"copy from {source_key!r} to", self.bucket, key), ExitStack() as stack:
            record, source = self._open(source_key, source_if_match)
            stack.enter_context(closing_fd(source))
            if offset < 0 or size < 1 or offset + size > record.size:
                raise InvalidStoreRequestError(f"local: {source_key!r} has no {size} bytes at {offset}")
            file = stack.enter_context(self._unnamed_file())
            copy_range(source, offset, file, 0, size)
            kept = algorithms(self._kept)
            staged = digest_file(file, size, Digests(kept)).staged(file, kept)
            return self._add_part(key, upload_id, part_number, staged)

    def list_parts(self, key: str, upload_id: str) -> Iterator[PartReceipt]:
        """See :meth:`~worker.stores.store.Store.list_parts`."""
        with local_errors("list the parts of", self.bucket, key), self._upload(key, upload_id) as (fd, _):
            receipts = [record.receipt(number) for number, record in parts_in(fd).items()]
        self._check_upload(key, upload_id)  # else the parts of one that was just completed might be gone in part
        return iter(receipts)

    def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[PartReceipt],
        *,
        checksum: str | None = None,
        size: int | None = None,
        condition: Condition | None = None,
    ) -> PutReceipt:
        """See :meth:`~worker.stores.store.Store.complete_upload`. A refused upload stays open."""
        with (
            local_errors("complete the upload to", self.bucket, key),
            self._upload(key, upload_id, fcntl.LOCK_EX) as (fd, upload),
        ):
            held = parts_in(fd)
            check_parts(key, parts, held, self.limits)
            named = {part.part_number: held[part.part_number] for part in parts}
            found = sum(part.size for part in named.values())
            if size is not None and size != found:
                raise InvalidStoreRequestError(f"local: the parts of {key!r} hold {found} bytes instead of {size}")
            with self._joined(fd, named, checksum, key) as staged:
                receipt = self._publish(key, staged, condition, upload.options, upload_id)
            with suppress(OSError), self._root() as root:
                self._drop_upload(root, upload_id)
            return receipt

    def abort_upload(self, key: str, upload_id: str) -> None:
        """See :meth:`~worker.stores.store.Store.abort_upload`."""
        with (
            local_errors("abort the upload to", self.bucket, key),
            self._upload(key, upload_id, fcntl.LOCK_EX),
            self._root() as root,
        ):
            self._drop_upload(root, upload_id)

    def list_uploads(self, prefix: str = "") -> Iterator[UploadEntry]:
        """See :meth:`~worker.stores.store.Store.list_uploads`. By key, then by age."""
        entries = []
        with local_errors("list the uploads in", self.bucket):
            for upload_id in self._upload_ids():
                with suppress(FileNotFoundError), ExitStack() as stack:
                    upload = self._unfinished(upload_id, self._upload_directory(stack, upload_id))
                    if upload is not None and upload.key.startswith(prefix):
                        entries.append(UploadEntry(upload.key, upload_id, upload.opened_at))
        return iter(sorted(entries, key=lambda entry: (key_bytes(entry.key), entry.opened_at)))

    def _check_upload(self, key: str, upload_id: str) -> None:
        with local_errors("look for the upload to", self.bucket, key), self._upload(key, upload_id):
            return


def _link(file: int, fd: int) -> None:
    link(file, UPLOAD_RECORD, fd)
    os.fsync(fd)
