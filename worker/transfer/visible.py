"""Looking at what readers see: is it the blob that was sent?

Size alone never confirms. Our mark in the blob's metadata does, or a checksum, or the ETag: the one that the store
gave when it published, or the one that S3's rule for multipart uploads gives for our parts.
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
        """What is wrong with what readers see, in words; None if it is the expected blob."""
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
    """What readers see at the key; None for nothing."""
    try:
        return store.head(key)
    except KeyNotFoundError:
        return None
