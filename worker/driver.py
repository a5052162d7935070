"""Driver: the storage operations with exact semantics, on top of a store. It knows paths; the store knows keys."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Self

from blobferry.checks import MAX_KEY_BYTES, check_path
from blobferry.values import FileInfo
from worker.errors import InvalidOffsetError, InvalidPathError, NotSupportedError, PathNotFoundError, StoreError
from worker.parameters import DriverParameters
from worker.stores.local import LocalStore
from worker.stores.memory import MemoryStore
from worker.stores.s3 import S3Store
from worker.stores.s3_client import S3Access
from worker.stores.store import Store
from worker.stores.values import BlobHead, BlobOptions, UploadEntry
from worker.transfer.aborting import abort_upload, lost_uploads
from worker.transfer.checkpoint import Checkpoint, MemoryCheckpoint
from worker.transfer.control import Stop, never
from worker.transfer.engine import Engine
from worker.transfer.sources import Source
from worker.transfer.visible import look
from worker.units import MIB

logger = logging.getLogger(__name__)

DEFAULT_CHUNK_SIZE = 16 * MIB  #: bytes; the part size of a driver that is given no engine


class Driver:
    """One storage. Constructing it sends no request."""

    def __init__(self, store: Store, *, root: str = "", engine: Engine | None = None) -> None:
        self.store = store
        self._root = root.strip("/")
        self._engine = engine or Engine(part_size=DEFAULT_CHUNK_SIZE, part_threads=1)

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any] | DriverParameters, *, engine: Engine | None = None) -> Self:
        """A driver from the registry's parameter names. Raises ConfigurationError naming a wrong or missing one."""
        if not isinstance(parameters, DriverParameters):
            parameters = DriverParameters.parse(parameters)
        engine = engine or Engine(part_size=parameters.chunksize or DEFAULT_CHUNK_SIZE, part_threads=1)
        match parameters.driver:
            case "s3":
                store: Store = _s3_store(parameters, engine.threads.count)
            case "local":
                directory = Path(parameters.rootdirectory)
                return cls(LocalStore(directory, checksum=parameters.checksum), engine=engine)
            case "memory":
                store = MemoryStore(checksum=parameters.checksum)
        return cls(store, root=parameters.rootdirectory, engine=engine)

    def write_stream(
        self,
        path: str,
        offset: int,
        reader: Source,
        *,
        overwrite: bool = True,
        options: BlobOptions | None = None,
        checkpoint: Checkpoint | None = None,
        stop: Stop = never,
    ) -> int:
        """Write the reader's bytes to the path and return how many there were.

        Atomic: on any failure the blob is what it was. With a ``checkpoint`` of the caller's, an upload that failed
        stays open, to go on with; without, it is aborted. Only whole blobs (offset 0) so far.
        """
        key = self.key(path)
        if offset < 0:
            raise InvalidOffsetError(path, offset, self.store.name)
        if offset > 0:
            raise NotSupportedError(f"{self.store.name}: write_stream at offset {offset}: only 0 so far")
        with self._aborting_what_is_left(MemoryCheckpoint()) if checkpoint is None else nullcontext(checkpoint) as used:
            self._engine.write(
                self.store, key, reader, checkpoint=used, stop=stop, options=options, overwrite=overwrite
            )
        return reader.size

    def settle(self, path: str, checkpoint: Checkpoint) -> bool:
        """Whether a write that an earlier run had begun to publish is there; needs no source. See Engine.settle."""
        return self._engine.settle(self.store, self.key(path), checkpoint)

    def stat(self, path: str) -> FileInfo:
        """What is at the path: the blob, else the directory. Raises PathNotFoundError."""
        key = self.key(path)
        head = look(self.store, key)
        if head is not None:
            return FileInfo(path, head.size, head.mod_time, is_dir=False)
        if self.store.list_page(key + "/", limit=1).entries:
            return FileInfo(path, 0, None, is_dir=True)
        raise PathNotFoundError(path, self.store.name)

    def look(self, path: str) -> BlobHead | None:
        """What readers see at the path, with ETag, checksum and metadata; None for nothing."""
        return look(self.store, self.key(path))

    @contextmanager
    def _aborting_what_is_left(self, checkpoint: MemoryCheckpoint) -> Iterator[MemoryCheckpoint]:
        try:
            yield checkpoint
        finally:
            for upload in checkpoint.unfinished():
                try:
                    known = [upload.upload_id] if upload.upload_id else lost_uploads(self.store, upload, set)
                    for upload_id in known:
                        abort_upload(self.store, upload.key, upload_id)
                except StoreError as error:  # must not hide the error that brought us here
                    logger.warning("upload not aborted", extra={"key": upload.key, "reason": str(error)})

    def warm_up(self) -> None:
        """Make the store's client now. Sends no request."""
        if isinstance(self.store, S3Store):
            self.store.warm_up()

    def unfinished_uploads(self, path: str) -> list[UploadEntry]:
        """Multipart uploads that the store says are open at exactly this path."""
        key = self.key(path)
        return [entry for entry in self.store.list_uploads(key) if entry.key == key]

    def key(self, path: str) -> str:
        """The key of a path, below the root directory. Raises InvalidPathError."""
        key = "/".join(filter(None, (self._root, _checked(path, self.store.name)[1:])))
        if len(key.encode()) > MAX_KEY_BYTES:
            raise InvalidPathError(path, self.store.name)
        return key


def _checked(path: str, driver: str) -> str:
    try:
        return check_path(path)
    except InvalidPathError as error:
        raise InvalidPathError(error.path, driver) from None


def _s3_store(parameters: DriverParameters, threads: int) -> S3Store:
    def reveal(name: str) -> str | None:
        secret = getattr(parameters, name)
        return None if secret is None else secret.get_secret_value()

    access = S3Access(
        region=parameters.region,
        endpoint=parameters.regionendpoint,
        access_key=reveal("accesskey"),
        secret_key=reveal("secretkey"),
        session_token=reveal("sessiontoken"),
        path_style=parameters.forcepathstyle,
        secure=parameters.secure,
        # AWS takes unsigned bodies over TLS only; compatible stores take them anywhere.
        sign_payload=not parameters.secure and not parameters.regionendpoint,
        max_pool_connections=threads + 2,  # the engine's own thread looks and lists meanwhile
    )
    return S3Store(
        access,
        parameters.bucket,
        checksum=parameters.checksum,
        encrypt=parameters.encrypt,
        keyid=parameters.keyid,
        storageclass=parameters.storageclass,
    )
