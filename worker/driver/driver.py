"""Driver: the nine storage operations with exact semantics, on top of a store. It knows paths; the store knows keys."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from io import BufferedReader
from typing import Any, Self

from blobferry.signing.signed_url import SignedUrl
from blobferry.values import FileInfo
from worker.driver.blob_reader import open_reader
from worker.driver.delete_moved import delete_unchanged
from worker.driver.delete_tree import Deletion, MemoryDeletion, delete_tree
from worker.driver.directories import children, is_directory
from worker.driver.move_blob import copy_blob, move_blob
from worker.driver.offsets import check_read_offset, check_write_offset
from worker.driver.signed_urls import sign
from worker.driver.storage import BLOB, DEFAULT_CHUNK_SIZE, DEFAULT_THREADS, Storage
from worker.driver.write_blob import write_at
from worker.errors import PathNotFoundError
from worker.parameters import DriverParameters
from worker.stores.blob_values import BlobHead, BlobOptions
from worker.stores.open_store import open_store
from worker.stores.store import Store
from worker.transfer.checkpoint import Checkpoint
from worker.transfer.sources.reader_stream import ReadableFile, ReaderStream
from worker.transfer.sources.source import MemorySource, Source, as_bytes
from worker.transfer.stop import Stop, never
from worker.transfer.upload.abort import call_checkpoint
from worker.transfer.upload.engine import Engine
from worker.transfer.upload.server_copy import Copying


class Driver:
    """One storage. Constructing it sends no request. Thread-safe.

    Every operation first checks its paths, and raises InvalidPathError before any request. It raises PathNotFoundError
    where nothing is stored, and other StoreErrors for permissions, a missing bucket and the network. Unless it says
    otherwise, a call that fails has changed nothing and may be repeated.
    """

    def __init__(
        self,
        store: Store,
        *,
        root: str = "",
        engine: Engine | None = None,
        copying: Copying | None = None,
        keys: str = "registry",
    ) -> None:
        """``root``: the directory within the store below which all paths lie; ``keys``: "any" or "registry"."""
        self.store = store
        engine = engine or Engine(part_size=DEFAULT_CHUNK_SIZE, part_threads=DEFAULT_THREADS)
        self._storage = Storage(store, root, engine, copying or Copying(), keys)

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any] | DriverParameters, *, engine: Engine | None = None) -> Self:
        """A driver from the registry's parameter names. Raises ConfigurationError naming a wrong or missing one."""
        if not isinstance(parameters, DriverParameters):
            parameters = DriverParameters.parse(parameters)
        engine = engine or Engine(part_size=parameters.chunksize or DEFAULT_CHUNK_SIZE, part_threads=DEFAULT_THREADS)
        copies = parameters.copy_threads(engine.threads.count)
        copying = Copying(parameters.multipartcopythresholdsize, parameters.multipartcopychunksize, copies)
        # Besides the parts, the engine's own thread sends requests: looks and listings.
        store = open_store(parameters, connections=max(engine.threads.count, copying.threads) + 2)
        return cls(store, root=parameters.root, engine=engine, copying=copying, keys=parameters.keys)

    def warm_up(self) -> None:
        """Prepare the store, so that the first request need not wait. Sends no request."""
        self.store.warm_up()

    # --- paths -------------------------------------------------------------------------------------------------------

    @property
    def root(self) -> str:
        """The directory within the store below which all paths lie; "" is the whole store."""
        return self._storage.root

    def key(self, path: str) -> str:
        """The store's key for a path. Raises InvalidPathError."""
        return self._storage.key(path)

    def look(self, path: str) -> BlobHead | None:
        """The blob that readers see at the path, with ETag, checksum and metadata; None if there is none."""
        return self._storage.look(path)

    def head(self, path: str) -> BlobHead:
        """The blob that readers see at the path. Raises PathNotFoundError."""
        return self._storage.head(path)

    # --- reading -----------------------------------------------------------------------------------------------------

    def get_content(self, path: str) -> bytes:
        """All bytes of one version of the blob."""
        with self.read_stream(path) as stream:
            return stream.read()

    def read_stream(self, path: str, offset: int = 0) -> BufferedReader:
        """The blob's bytes from ``offset``, empty at or past the end. The caller closes the stream.

        It reads one version: once that is replaced, reading raises SourceChangedError. After a dropped connection it
        reconnects at the byte it had reached. It never ends early without an error.
        """
        key = self.key(path)
        offset = check_read_offset(self.store, path, offset)
        with self._storage.not_found(path):
            return open_reader(self.store, key, offset, path)

    def stat(self, path: str) -> FileInfo:
        """The blob at the path, else the directory. ``/`` is always a directory."""
        prefix = self._storage.prefix(path)
        head = self.look(path) if path != "/" else None
        if head is not None:
            return FileInfo(path, head.size, head.mod_time, is_dir=False)
        if is_directory(self.store, prefix) or path == "/":
            return FileInfo(path, 0, None, is_dir=True)
        raise PathNotFoundError(path, self.store.name)

    def list(self, path: str, *, recursive: bool = False) -> list[str]:
        """The directory's children, or all blobs below it, as paths, in byte order. Only ``/`` may have none."""
        found = children(self.store, self._storage.prefix(path), path, recursive=recursive)
        if found is None and path != "/":
            raise PathNotFoundError(path, self.store.name, BLOB if self.look(path) is not None else "")
        return found or []

    def url_for(self, path: str, options: Mapping[str, Any] | None = None) -> SignedUrl:
        """A URL that allows anybody to GET, HEAD or PUT the path. Sends no request, so the blob may be missing.

        Options: ``method``, "GET" (default), "HEAD" or "PUT"; ``expiry``, an aware datetime at most 7 days from now, by
        default in 20 minutes, and not later than temporary credentials; ``response-content-disposition`` and ``-type``
        of a GET; ``content-type`` of a PUT. A PUT has to send the URL's ``headers``. Raises UnsupportedMethodError,
        also where blobs have no URLs; InvalidRequestError.
        """
        return sign(self.store, self.key(path), path, {} if options is None else options)

    # --- writing -----------------------------------------------------------------------------------------------------

    def put_content(
        self,
        path: str,
        contents: Any,
        *,
        overwrite: bool = True,
        options: BlobOptions | None = None,
        checkpoint: Checkpoint | None = None,
        stop: Stop = never,
    ) -> None:
        """Replace the blob by the bytes-like contents. Raises TypeError for anything else.

        Args:
            path: of the blob.
            contents: any bytes-like object.
            overwrite: False: raise BlobExistsError if a blob is there.
            options: content type and metadata.
            checkpoint: of a job, which resumes from it; None: one for this call, whose upload is aborted on failure.
            stop: asked between two parts; raises Interrupted once it is true.
        """
        self.key(path)  # checked before the contents
        source = MemorySource(as_bytes(contents))
        with self._checkpoint(checkpoint) as used:
            target = self._storage.target(path, used, stop, overwrite=overwrite, options=options)
            self._storage.engine.write(target, source)

    def write_stream(
        self,
        path: str,
        offset: int,
        reader: Source | ReadableFile,
        *,
        overwrite: bool = True,
        options: BlobOptions | None = None,
        checkpoint: Checkpoint | None = None,
        stop: Stop = never,
    ) -> int:
        """Make ``old[:offset] + zeros(up to offset) + data`` the blob; return the bytes of data that were read.

        An exception carries their number as ``total_read``. Raises SupersededError or SourceChangedError if somebody
        else replaces the blob meanwhile.

        Args:
            path: of the blob.
            offset: in bytes, 0 to the largest blob that the store can hold. Above 0, the old blob's options are kept,
                updated by ``options``.
            reader: a source, which can be read at any offset, or a file-like object, which is read once, in order.
            overwrite, options, stop: as for ``put_content``.
            checkpoint: as for ``put_content``; only a source can be resumed.
        """
        self.key(path)  # checked before the offset
        offset = check_write_offset(self.store, path, offset)
        data = reader if isinstance(reader, Source) else ReaderStream.of(reader, path)
        try:
            with self._checkpoint(checkpoint) as used:
                target = self._storage.target(path, used, stop, overwrite=overwrite, options=options)
                write_at(self._storage, target, path, offset, data)
        except Exception as error:
            error.total_read = data.total_read if isinstance(data, ReaderStream) else 0  # type: ignore[attr-defined]
            raise
        return data.total_read if isinstance(data, ReaderStream) else data.size

    # --- moving and deleting -----------------------------------------------------------------------------------------

    def move(self, source_path: str, dest_path: str, *, dest: "Driver | None" = None, overwrite: bool = True) -> None:
        """Make the blob visible at ``dest_path`` (of the storage ``dest`` if given), then delete it at its source.

        The source is deleted only after the destination was seen, and only if it is still the version that was copied.
        Blobs below the source's path stay. A move onto itself keeps the blob. Raises SourceChangedError, with a blob at
        both places, if the source changed meanwhile. Any other failure leaves the source, and the move may be repeated.
        """
        move_blob(self._storage, source_path, (dest or self)._storage, dest_path, overwrite=overwrite)

    def copy(
        self,
        source_path: str,
        dest_path: str,
        *,
        dest: "Driver | None" = None,
        overwrite: bool = True,
        checkpoint: Checkpoint,
        stop: Stop = never,
    ) -> BlobHead | None:
        """The first half of a move: copy the blob. Returns the version copied, None if both paths are one place.

        Args:
            source_path: of the blob.
            dest_path: of the copy.
            dest: storage of the copy; None: this one, and the store copies the bytes and all options by itself.
            overwrite, stop: as for ``put_content``.
            checkpoint: as for ``put_content``; the caller aborts what is left.
        """
        storage = (dest or self)._storage
        self.key(source_path)  # checked before the destination's
        target = storage.target(dest_path, checkpoint, stop, overwrite=overwrite)
        return copy_blob(self._storage, source_path, storage, target)

    def delete_moved(self, path: str, version: Mapping[str, Any], *, mark: str = "", stop: Stop = never) -> None:
        """The second half of a move: delete the source, as :func:`~worker.driver.delete_moved.delete_unchanged`."""
        delete_unchanged(self.store, self.key(path), version, path, mark=mark, stop=stop)

    def delete(self, path: str, *, deletion: Deletion | None = None, stop: Stop = never) -> None:
        """Delete the blob and everything under ``path/``, never a sibling. Safe to repeat.

        Raises DeleteIncompleteError, naming what is left, after everything else is gone.
        """
        key = self.key(path)
        with self._storage.not_found(path):
            delete_tree(self.store, key, path, deletion=deletion or MemoryDeletion(), stop=stop)

    def _checkpoint(self, checkpoint: Checkpoint | None) -> AbstractContextManager[Checkpoint]:
        return call_checkpoint(self.store) if checkpoint is None else nullcontext(checkpoint)
