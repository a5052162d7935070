"""Compares the blob that readers see with the blob that was sent.

The size alone proves nothing, and neither do the bytes: somebody else may have written the same ones. Our mark in the
blob's metadata decides wherever one was sent and the store keeps metadata. Elsewhere the bytes have to do: by checksum,
or by the ETag that the commit call answered, or that follows from our parts by S3's rule for multipart uploads.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

from blobferry.checks.arguments import MARK_NAME, MAX_BLOB_METADATA
from worker.errors import KeyNotFoundError
from worker.stores.blob_values import BlobHead
from worker.stores.capabilities import Capability
from worker.stores.store import Store
from worker.transfer.probe import holds


@dataclass(frozen=True, slots=True)
class Expected:
    """The blob that a transfer means to make visible."""

    size: int
    mark: str  #: "" if none was sent
    checksum: str | None = None  #: "ALGORITHM:base64" of the whole
    etags: frozenset[str] = frozenset()  #: that the blob may get, without quotes
    answered: str | None = None  #: the ETag in the store's answer to the commit call
    kept_by: Capability = Capability.METADATA  #: what keeps the mark with the blob

    def difference(self, store: Store, head: BlobHead | None, *, by_bytes: bool = True) -> str | None:
        """Say how the visible blob differs from the expected one; None if it is the expected one.

        May probe the store, once in its life, where the answer depends on whether it keeps metadata.

        Args:
            store: that shows the blob.
            head: the visible blob; None for none.
            by_bytes: whether equal bytes prove anything. They do not if the store has refused every commit call.
        """
        if head is None:
            return "nothing is there"
        if head.size != self.size:
            return f"{head.size} bytes are there instead of {self.size}"
        if _are_comparable(head.checksum, self.checksum) and head.checksum != self.checksum:
            return f"its checksum is {head.checksum}, not {self.checksum}"
        seen = head.metadata.get(MARK_NAME)
        if self.mark and seen == self.mark:
            store.capabilities.confirm(self.kept_by)
            return None
        if self.mark and seen:
            return "the blob of another job is there"
        if not self._has_our_bytes(head) or not (by_bytes or self._was_answered(head)):
            return f"another blob of the same size is there (ETag {head.etag})"
        if self.mark and has_room_for_mark(head.metadata, self.mark) and holds(store, self.kept_by):
            return f"a blob with the same bytes, but without this job's mark, is there (ETag {head.etag})"
        return None

    def _has_our_bytes(self, head: BlobHead) -> bool:
        return (
            _are_comparable(head.checksum, self.checksum)
            or head.etag.strip('"') in self.etags
            or self._was_answered(head)
        )

    def _was_answered(self, head: BlobHead) -> bool:
        return self.answered is not None and head.etag.strip('"') == self.answered.strip('"')


def _are_comparable(one: str | None, other: str | None) -> bool:
    """Whether two checksums are of one algorithm."""
    return bool(one and other) and (one or "").partition(":")[0] == (other or "").partition(":")[0]


def has_room_for_mark(metadata: Mapping[str, str], mark: str) -> bool:
    """Whether the mark fits into a blob's metadata besides this one."""
    others = {name: value for name, value in metadata.items() if name != MARK_NAME}
    return sum(map(len, chain(*others.items(), (MARK_NAME, mark)))) <= MAX_BLOB_METADATA


def look(store: Store, key: str) -> BlobHead | None:
    """Return the head of the blob that readers see at the key; None if they see none."""
    try:
        return store.head(key)
    except KeyNotFoundError:
        return None
