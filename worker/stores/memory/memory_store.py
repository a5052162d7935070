"""The memory store: a bucket in a dict, as strict as S3. For tests and for trying things out."""

from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime

from worker.stores.blob_values import Limits
from worker.stores.memory.memory_index import MemoryFiles, MemoryIndex
from worker.stores.strict.bucket import Bucket
from worker.stores.strict.strict_store import StrictStore


class MemoryStore(StrictStore):
    """A bucket in this process's memory."""

    _index: MemoryIndex

    def __init__(
        self, bucket: str = "memory", *, limits: Limits | None = None, checksum: str = "crc64nvme",
        now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:  # fmt: skip
        """``now`` is the store's clock; the times that it gives to blobs and uploads always grow."""
        index = MemoryIndex(now)
        parts = Bucket(
            "memory", bucket, index, MemoryFiles(), lambda action, key: nullcontext(), limits or Limits(), checksum,
            index.next_time
        )  # fmt: skip
        super().__init__(parts, f"memory-{id(self):x}/{bucket}")
