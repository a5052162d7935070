"""A storage: a store below a root directory, and the engine that writes to it. Maps paths to keys."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from blobferry.checks.paths import key_of
from worker.driver.directories import is_directory
from worker.errors import KeyNotFoundError, PathNotFoundError, StoreError
from worker.stores.blob_values import BlobHead, BlobOptions
from worker.stores.store import Store
from worker.transfer.checkpoint import Checkpoint, MemoryCheckpoint
from worker.transfer.stop import Stop
from worker.transfer.upload.engine import Engine
from worker.transfer.upload.server_copy import Copying
from worker.transfer.upload.target import Target
from worker.transfer.visible import look
from worker.units import MIB

DEFAULT_CHUNK_SIZE: Final = 16 * MIB  #: bytes; the part size of a driver that is given no engine
DIRECTORY: Final = " is a directory, and this needs a blob"
BLOB: Final = " is a blob, not a directory"
DEFAULT_THREADS: Final = 4  #: that send parts at once, in a driver that is given no engine


class Storage:
    """What the operations of a driver share."""

    def __init__(self, store: Store, root: str, engine: Engine, copying: Copying, keys: str) -> None:
        self.store = store
        self.keys = keys  #: which paths there are: "registry" or "any"
        self.root = root.strip("/")  #: the directory within the store below which all paths lie; "" is the whole store
        store.capabilities.probes_below = self.root  # credentials may permit no other place
        self.engine = engine
        self.copying = copying

    def key(self, path: str) -> str:
        """The key of a path. Raises InvalidPathError."""
        return key_of(path, root=self.root, keys=self.keys, driver=self.store.name)

    def prefix(self, path: str) -> str:
        """The prefix of all keys below a directory, which may be ``/``. Raises InvalidPathError."""
        if path == "/":
            return f"{self.root}/" if self.root else ""
        return self.key(path) + "/"

    def look(self, path: str) -> BlobHead | None:
        """The blob that readers see at the path; None if there is none."""
        return look(self.store, self.key(path))

    def head(self, path: str) -> BlobHead:
        """The blob that readers see at the path. Raises PathNotFoundError."""
        head = self.look(path)
        if head is None:
            # An answer to HEAD does not tell a missing bucket from a missing key; a listing raises for the bucket.
            raise self.missing(path)
        return head

    def missing(self, path: str) -> PathNotFoundError:
        """The error for a path without a blob, which says if it is a directory. Raises StoreError."""
        why = DIRECTORY if is_directory(self.store, self.prefix(path)) else ""
        return PathNotFoundError(path, self.store.name, why)

    def target(
        self, path: str, checkpoint: Checkpoint, stop: Stop, *, overwrite: bool, options: BlobOptions | None = None
    ) -> Target:
        """The engine's target for a write to the path.

        Args:
            path: of the blob.
            checkpoint: of a job, or a MemoryCheckpoint for a plain call, which no other run resumes.
            stop: asked between two parts; the write raises Interrupted once it is true.
            overwrite: False: the write raises BlobExistsError if a blob is there.
            options: content type and metadata; None: the store's defaults.
        """
        return Target(
            store=self.store,
            key=self.key(path),
            checkpoint=checkpoint,
            stop=stop,
            options=options,
            overwrite=overwrite,
            is_last_writer=isinstance(checkpoint, MemoryCheckpoint),
        )

    @contextmanager
    def not_found(self, path: str) -> Iterator[None]:
        """Raise KeyNotFoundError inside the context as PathNotFoundError."""
        try:
            yield
        except KeyNotFoundError as error:
            missing = PathNotFoundError(path, self.store.name)
            with suppress(StoreError):  # the credentials may not permit to list
                missing = self.missing(path)
            raise missing from error
