"""The local store: as strict as S3, and as safe between threads and processes that may be killed at any moment."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from worker.stores.blob_values import Limits
from worker.stores.local.index import LocalIndex
from worker.stores.local.local_errors import local_errors
from worker.stores.local.local_files import LocalFiles
from worker.stores.strict.bucket import Bucket
from worker.stores.strict.strict_store import StrictStore


class LocalStore(StrictStore):
    """A bucket in a directory that any number of threads and processes of one host may share."""

    _index: LocalIndex

    def __init__(
        self, directory: Path, *, limits: Limits | None = None, checksum: str = "crc64nvme",
        now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:  # fmt: skip
        """The directory is made at the first write. ``now`` is the store's clock; a key's times only ever grow."""
        root = str(directory)
        files = LocalFiles(root)
        index = LocalIndex(root, files)
        bucket = Bucket("local", root, index, files, partial(local_errors, root), limits or Limits(), checksum, now)
        super().__init__(bucket, f"/{os.path.realpath(directory)}")
