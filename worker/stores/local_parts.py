"""Unfinished uploads of the local store as files: a directory for each, and a slot in it for each part.

An upload's directory is its lock: who adds a part holds it shared, who completes or aborts it holds it alone.
Completing publishes a record that names the upload. From then on the upload is gone, whoever is killed before its
directory is: every look at it compares, and removes what is left.
"""

import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Final, NoReturn

from worker.errors import UploadNotFoundError
from worker.stores.blob_values import BlobOptions, PartReceipt
from worker.stores.local_bucket import UPLOAD_RECORD, UPLOADS, LocalBucket
from worker.stores.local_bytes import receive
from worker.stores.local_digests import (
    Digests,
    Staged,
    algorithms,
    check_checksum,
    digest_file,
    etag_of_parts,
    join_checksums,
)
from worker.stores.local_errors import local_errors
from worker.stores.local_files import closing_fd, copy_range, directory, read_file
from worker.stores.local_records import Record, UploadRecord, load_upload
from worker.stores.local_root import flocked
from worker.stores.local_slots import open_bytes, place, read_record, slot_of, tidy
from worker.stores.store import Body

_UPLOAD_ID: Final = re.compile(r"[0-9a-f]{32}")


class LocalParts(LocalBucket):
    """What the verbs of an upload are made of."""

    @contextmanager
    def _upload(self, key: str, upload_id: str, how: int | None = None) -> Iterator[tuple[int, UploadRecord]]:
        """An unfinished upload and its open directory, locked if ``how`` says so. Raises UploadNotFoundError."""
        with ExitStack() as stack:
            try:
                fd = self._upload_directory(stack, upload_id)
            except FileNotFoundError:
                self._unknown(key, upload_id)
            if how is not None:
                stack.enter_context(flocked(fd, how))
            upload = self._unfinished(upload_id, fd)
            if upload is None or upload.key != key:
                self._unknown(key, upload_id)
            yield fd, upload

    def _upload_directory(self, stack: ExitStack, upload_id: str) -> int:
        if not _UPLOAD_ID.fullmatch(upload_id):
            raise FileNotFoundError
        root = stack.enter_context(self._root())
        return stack.enter_context(directory(root, [UPLOADS, upload_id]))

    def _unfinished(self, upload_id: str, fd: int) -> UploadRecord | None:
        """The upload, unless it was aborted or completed: then what a killed process has left of it is removed."""
        text = read_file(UPLOAD_RECORD, fd)
        upload = None if text is None else load_upload(text)
        if upload is not None:
            blob = self._record(upload.key)
            if blob is None or blob.upload_id != upload_id:
                return upload
        with suppress(OSError), self._root() as root:
            self._drop_upload(root, upload_id)
        return None

    def _unknown(self, key: str, upload_id: str) -> NoReturn:
        raise UploadNotFoundError(f"local: no upload {upload_id!r} to {key!r}: completed, aborted or never opened")

    def _upload_ids(self) -> list[str]:
        try:
            with self._root() as root, directory(root, [UPLOADS]) as fd:
                return [name for name in os.listdir(fd) if _UPLOAD_ID.fullmatch(name)]
        except FileNotFoundError:
            return []

    # --- bytes -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _received(self, key: str, body: Body | bytes, checksum: str | None) -> Iterator[Staged]:
        """A body in a file, with the checksum that came along and the one that is kept here."""
        names = algorithms(checksum, self._kept)
        with ExitStack() as stack:
            with local_errors("write", self.bucket, key):
                file = stack.enter_context(self._unnamed_file())
            digests = Digests(names)
            receive(file, body, digests, self.bucket, key)
            staged = digests.staged(file, names)
            check_checksum(staged.checksums, checksum, key)
            yield staged

    @contextmanager
    def _joined(self, fd: int, parts: Mapping[int, Record], checksum: str | None, key: str) -> Iterator[Staged]:
        """The parts in a row in one file. Checksums are joined where each part has one, and else read."""
        size = sum(part.size for part in parts.values())
        names = algorithms(checksum, self._kept)
        known = join_checksums(names, [(part.checksums, part.size) for part in parts.values()])
        check_checksum(known, checksum, key)
        with ExitStack() as stack:
            if len(parts) == 1:
                ((number, part),) = parts.items()
                file = stack.enter_context(closing_fd(open_bytes(fd, part_slot(number), part)))
            else:
                file = stack.enter_context(self._unnamed_file())
                _concatenate(fd, parts, file)
            unknown = [name for name in names if name not in known]
            if unknown:
                known |= digest_file(file, size, Digests(unknown)).staged(file, unknown).checksums
                check_checksum(known, checksum, key)
            yield Staged(file, size, etag_of_parts([part.etag for part in parts.values()]), known)

    def _add_part(self, key: str, upload_id: str, part_number: int, staged: Staged) -> PartReceipt:
        os.fsync(staged.file)
        with (
            self._upload(key, upload_id, fcntl.LOCK_SH) as (fd, _),
            self._root() as root,
            self._locked(root, f"{upload_id}/{part_number}"),
        ):
            name = part_slot(part_number)
            old = read_record(fd, name)
            record = self._new_record(staged, BlobOptions(), old)
            try:
                place(fd, name, staged.file, record)
            except FileNotFoundError:
                self._unknown(key, upload_id)
            finally:
                with suppress(OSError):  # what is left over goes with the upload
                    tidy(fd, name, [record.version, *([old.version] if old else [])])
            return record.receipt(part_number)


def part_slot(part_number: int) -> str:
    """The slot of a part in its upload's directory."""
    return f"{part_number:05}"


def parts_in(fd: int) -> dict[int, Record]:
    """The parts in an upload's directory, by number."""
    slots = sorted(slot for slot in map(slot_of, os.listdir(fd)) if slot is not None and slot.isdecimal())
    records = ((int(slot), read_record(fd, slot)) for slot in slots)
    return {number: record for number, record in records if record is not None}


def _concatenate(fd: int, parts: Mapping[int, Record], file: int) -> None:
    position = 0
    for number, part in parts.items():
        with closing_fd(open_bytes(fd, part_slot(number), part)) as source:
            copy_range(source, 0, file, position, part.size)
        position += part.size
