"""The local store: a bucket in a directory, for somebody without S3. As strict as S3, and as safe between processes.

Below the directory lie ``blobs``, in which every blob is a plain file, ``uploads`` and ``locks``. Files become visible
by renaming and are on the disk by then, so that a process or a machine may stop at any instruction.
"""

import os
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from typing import Final, Literal

from worker.errors import InvalidStoreRequestError, NotSupportedError, RangeNotSatisfiableError, StoreError
from worker.stores.local_bytes import LocalReader
from worker.stores.local_checks import check_size
from worker.stores.local_digests import Digests, Staged, algorithms, digest_file
from worker.stores.local_errors import local_errors
from worker.stores.local_files import closing_fd, copy_range, directory
from worker.stores.local_listing import Listing
from worker.stores.local_names import check_key, key_bytes
from worker.stores.local_records import Record
from worker.stores.local_root import BLOBS
from worker.stores.local_uploads import LocalUploads
from worker.stores.store import Body, Reader
from worker.stores.values import BlobHead, BlobOptions, Condition, DeleteFailure, Page, PutReceipt, carried, normal

_MD5: Final = re.compile(r'"[0-9a-f]{32}"')


class LocalStore(LocalUploads):
    """Whole blobs and listings; uploads and what is stored are in its bases."""

    # --- whole blobs -------------------------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        body: Body | bytes,
        *,
        checksum: str | None = None,
        condition: Condition | None = None,
        options: BlobOptions | None = None,
    ) -> PutReceipt:
        """See :meth:`~worker.stores.store.Store.put`."""
        check_key(key)
        check_size(len(body), self.limits, key)
        with self._received(key, body, checksum) as staged, local_errors("put", self.bucket, key):
            return self._publish(key, staged, condition, normal(options))

    def get(
        self, key: str, offset: int = 0, size: int | None = None, *, if_match: str | None = None
    ) -> AbstractContextManager[Reader]:
        """See :meth:`~worker.stores.store.Store.get`."""
        with local_errors("read", self.bucket, key):
            record, file = self._open(key, if_match)
        if size != 0 and offset >= record.size and (offset, size) != (0, None):
            os.close(file)
            raise RangeNotSatisfiableError(f"local: {key!r} has {record.size} bytes and none at {offset}")
        left = record.size - offset
        size = left if size is None else min(size, left)
        return closing(LocalReader(file, offset, size, record.etag, self.bucket, key))

    def head(self, key: str) -> BlobHead:
        """See :meth:`~worker.stores.store.Store.head`."""
        with local_errors("look at", self.bucket, key):
            return self._found(key).head(key)

    def options_of(self, key: str, *, with_tags: bool = True) -> BlobOptions:
        """See :meth:`~worker.stores.store.Store.options_of`."""
        with local_errors("look at", self.bucket, key):
            options = self._found(key).options
        return options if with_tags else replace(options, tags=None)

    def copy(
        self,
        source_key: str,
        key: str,
        *,
        source_if_match: str | None = None,
        condition: Condition | None = None,
        options: BlobOptions | None = None,
    ) -> PutReceipt:
        """See :meth:`~worker.stores.store.Store.copy`. The kernel copies, from a file that stays as it is."""
        check_key(key)
        with local_errors(f"copy {source_key!r} to", self.bucket, key):
            record, source = self._open(source_key, source_if_match)
            with closing_fd(source), self._unnamed_file() as file:
                if source_key == key and options is None:
                    raise InvalidStoreRequestError(f"local: copying {key!r} onto itself would change nothing")
                check_size(record.size, self.limits, source_key)
                copy_range(source, 0, file, 0, record.size)
                return self._publish(key, self._copied(record, file), condition, carried(record.options, options))

    def _copied(self, record: Record, file: int) -> Staged:
        """A copy has the MD5 as its ETag, as on S3; what came in parts must be read for it."""
        kept = algorithms(self._kept)
        if _MD5.fullmatch(record.etag) and all(name in record.checksums for name in kept):
            return Staged(file, record.size, record.etag, record.checksums)
        return digest_file(file, record.size, Digests(kept)).staged(file, kept)

    # --- many keys ---------------------------------------------------------------------------------------------------

    def list_page(self, prefix: str, *, delimiter: str = "", token: str | None = None, limit: int = 1_000) -> Page:
        """See :meth:`~worker.stores.store.Store.list_page`."""
        with local_errors("list", self.bucket):
            try:
                with self._root() as root, directory(root, [BLOBS]) as blobs:
                    return Listing(blobs, key_bytes(prefix), key_bytes(delimiter), token, limit).page()
            except FileNotFoundError:  # nothing was ever stored
                return Page([], [], None)

    def delete_batch(self, keys: Sequence[str], *, if_match: str | None = None) -> list[DeleteFailure]:
        """See :meth:`~worker.stores.store.Store.delete_batch`."""
        if len(keys) > self.limits.max_delete:
            raise InvalidStoreRequestError(f"local: {len(keys)} keys in one delete; at most {self.limits.max_delete}")
        if if_match is not None:
            (key,) = keys
            with local_errors("delete", self.bucket, key):
                self._delete(key, if_match)
            return []
        return [failure for key in keys if (failure := self._failure(key)) is not None]

    def _failure(self, key: str) -> DeleteFailure | None:
        try:
            with local_errors("delete", self.bucket, key):
                self._delete(key, None)
        except StoreError as error:
            return DeleteFailure(key, error.code, str(error))
        return None

    # --- else --------------------------------------------------------------------------------------------------------

    def presign(self, method: Literal["GET", "HEAD"], key: str, expires_in: int) -> str:
        """There is no server that a URL could name."""
        raise NotSupportedError("local: a blob in a directory has no URL")
