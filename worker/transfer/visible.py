"""Compares the blob that readers see with the blob that was sent.

The size alone proves nothing. Our mark in the blob's metadata does, or a checksum, or the ETag: either that of the
commit call's answer, or the one that follows from our parts by S3's rule for multipart uploads.
"""

from dataclasses import dataclass

from blobferry.checks.arguments import MARK_NAME
from worker.errors import KeyNotFoundError
from worker.stores.blob_values import BlobHead
from worker.stores.store import Store


@dataclass(frozen=True, slots=True)
class Expected:
    """The blob that a transfer means to make visible."""

    size: int
    mark: str
    checksum: str | None = None  #: "ALGORITHM:base64" of the whole
    etags: frozenset[str] = frozenset()  #: without quotes

    def difference(self, head: BlobHead | None) -> str | None:
        """Say how the visible blob differs from the expected one; None if it is the expected one."""
        if head is None:
            return "nothing is there"
        if head.size != self.size:
            return f"{head.size} bytes are there instead of {self.size}"
        if head.checksum and self.checksum and head.checksum.partition(":")[0] == self.checksum.partition(":")[0]:
            return None if head.checksum == self.checksum else f"its checksum is {head.checksum}, not {self.checksum}"
        if head.metadata.get(MARK_NAME) == self.mark or head.etag.strip('"') in self.etags:
            return None
        return f"another blob of the same size is there (ETag {head.etag})"


def look(store: Store, key: str) -> BlobHead | None:
    """Return the head of the blob that readers see at the key; None if they see none."""
    try:
        return store.head(key)
    except KeyNotFoundError:
        return None
