"""What the local store holds, and the one place where what readers see changes."""

import os
import secrets
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Final

from worker.errors import KeyNotFoundError, PreconditionFailedError, StoreUnavailableError
from worker.stores.blob_values import BlobOptions, Condition, PutReceipt
from worker.stores.local_digests import Staged
from worker.stores.local_files import directory, fill_directory, remove
from worker.stores.local_names import key_bytes, locate
from worker.stores.local_records import Record
from worker.stores.local_root import BLOBS, LocalRoot
from worker.stores.local_slots import clear, open_bytes, place, read_record

UPLOADS: Final = "uploads"
UPLOAD_RECORD: Final = "upload.json"


class LocalBucket(LocalRoot):
    """A bucket in a directory. A blob is replaced in one step, and open readers keep the old bytes."""

    def _record(self, key: str) -> Record | None:
        """What is visible under a key now."""
        directories, name = locate(key_bytes(key))
        try:
            with self._root() as root, directory(root, [BLOBS, *directories]) as fd:
                return read_record(fd, name)
        except FileNotFoundError:
            return None

    def _found(self, key: str, if_match: str | None = None) -> Record:
        record = self._record(key)
        if record is None:
            raise KeyNotFoundError(f"local: nothing is stored under {key!r} in {self.bucket!r}")
        if if_match is not None and if_match != record.etag:
            raise PreconditionFailedError(f"local: {key!r} has the ETag {record.etag}, not {if_match}")
        return record

    def _open(self, key: str, if_match: str | None = None) -> tuple[Record, int]:
        """A blob and its bytes, an open file that is the caller's to close."""
        directories, name = locate(key_bytes(key))
        missed = None
        while True:
            record = self._found(key, if_match)
            with suppress(FileNotFoundError), self._root() as root, directory(root, [BLOBS, *directories]) as fd:
                return record, open_bytes(fd, name, record)
            if record.version == missed:
                raise StoreUnavailableError(f"local: {key!r} has lost its bytes, by other hands than ours")
            missed = record.version  # it was replaced or deleted in between: look again

    def _commit(
        self,
        key: str,
        staged: Staged,
        condition: Condition | None,
        options: BlobOptions,
        upload_id: str | None = None,
    ) -> PutReceipt:
        """The one place where readers come to see something else."""
        directories, name = locate(key_bytes(key))
        os.fsync(staged.file)
        with self._root(create=True) as root, self._locked(root, key) as lock:
            old = self._record(key)
            check_condition(condition, key, old)
            kept = {name: value for name, value in staged.checksums.items() if name == self._kept}
            record = self._new_record(replace(staged, checksums=kept), options, old, upload_id)
            self._intend(lock, key, old, record)
            try:
                if old is not None:
                    self._drop_upload_of(root, old)
                fill_directory(root, [BLOBS, *directories], lambda fd: place(fd, name, staged.file, record))
            finally:
                self._settle(root, lock, key, old, record)
        return PutReceipt(record.etag)

    def _new_record(
        self, staged: Staged, options: BlobOptions, old: Record | None = None, upload_id: str | None = None
    ) -> Record:
        now = self._now()
        return Record(
            version=secrets.token_hex(8),
            size=staged.size,
            etag=staged.etag,
            mod_time=now if old is None else max(now, old.mod_time + timedelta(microseconds=1)),
            checksums=staged.checksums,
            options=options,
            upload_id=upload_id,
        )

    def _delete(self, key: str, if_match: str | None) -> None:
        if self._record(key) is None:
            return
        directories, name = locate(key_bytes(key))
        with self._root() as root, self._locked(root, key) as lock:
            old = self._record(key)
            if old is None:
                return
            check_condition(Condition(if_match=if_match), key, old)
            with suppress(OSError):  # a full disk must not keep anybody from deleting
                self._intend(lock, key, old)
            self._drop_upload_of(root, old)
            with directory(root, [BLOBS, *directories]) as fd:
                clear(fd, name)
            self._settle(root, lock, key, old)

    # --- uploads that have become blobs ------------------------------------------------------------------------------

    def _drop_upload_of(self, root: int, record: Record) -> None:
        """Before a blob goes that says which upload it was made of: later nothing would say that this is complete."""
        if record.upload_id is not None:
            self._drop_upload(root, record.upload_id)

    def _drop_upload(self, root: int, upload_id: str) -> None:
        """Remove an upload, its record last: if killed here, it is still known what must be removed."""
        try:
            with directory(root, [UPLOADS]) as uploads:
                with directory(uploads, [upload_id]) as fd:
                    for name in os.listdir(fd):
                        if name != UPLOAD_RECORD:
                            remove(name, fd)
                    remove(UPLOAD_RECORD, fd)
                os.rmdir(upload_id, dir_fd=uploads)
        except FileNotFoundError:
            return


def check_condition(condition: Condition | None, key: str, there: Record | None) -> None:
    """Refuse if the key is not as the call demands."""
    if condition is None:
        return
    if condition.if_none_match and there is not None:
        raise PreconditionFailedError(f"local: something is stored under {key!r} already")
    if condition.if_match is not None and (there is None or there.etag != condition.if_match):
        raise PreconditionFailedError(f"local: {key!r} no longer has the ETag {condition.if_match}")
