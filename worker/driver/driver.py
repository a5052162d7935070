"""Driver: the nine storage operations with exact semantics, on top of a store. It knows paths; the store knows keys."""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Final, Self
from uuid import uuid4

from blobferry.checks.arguments import MARK_NAME
from worker.driver.delete_moved import delete_unchanged
from worker.driver.delete_tree import Deletion, MemoryDeletion, delete_tree
from worker.driver.read_operations import Reads
from worker.errors import (
    DeleteIncompleteError,
    InvalidOffsetError,
    SourceChangedError,
    StoreError,
    VerificationError,
)
from worker.parameters import DriverParameters
from worker.stores.blob_values import BlobHead, BlobOptions
from worker.stores.local import LocalStore
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.open_store import open_store
from worker.stores.s3.s3_store import S3Store
from worker.stores.store import Store
from worker.transfer.checkpoint import Checkpoint, MemoryCheckpoint, VisibleVersion
from worker.transfer.sources.blob_source import BlobSource, version_of
from worker.transfer.sources.reader_stream import ReadableFile, ReaderStream
from worker.transfer.sources.source import MemorySource, Source, as_bytes
from worker.transfer.sources.splice import Splice
from worker.transfer.stop import Stop, never
from worker.transfer.upload.abort import aborting_what_is_left
from worker.transfer.upload.engine import Engine
from worker.transfer.upload.server_copy import CopiedPrefix, Copying
from worker.transfer.upload.settle import expected_blob
from worker.transfer.upload.target import Target
from worker.transfer.visible import look
from worker.units import MIB

DEFAULT_CHUNK_SIZE: Final = 16 * MIB  #: bytes; the part size of a driver that is given no engine
DEFAULT_THREADS: Final = 4  #: of the same


class Driver(Reads):
    """One storage. Constructing it sends no request. Thread-safe.

    Every operation checks its paths first, and raises InvalidPathError without a request; then PathNotFoundError where
    there is nothing, or a StoreError: permissions, buckets and networks have their own. A call that has failed has
    changed nothing, unless it says so, and may be repeated.
    """

    def __init__(
        self, store: Store, *, root: str = "", engine: Engine | None = None, copying: Copying | None = None
    ) -> None:
        super().__init__(store, root=root)
        self._engine = engine or Engine(part_size=DEFAULT_CHUNK_SIZE, part_threads=DEFAULT_THREADS)
        self._copying = copying or Copying()

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any] | DriverParameters, *, engine: Engine | None = None) -> Self:
        """A driver from the registry's parameter names. Raises ConfigurationError naming a wrong or missing one."""
        if not isinstance(parameters, DriverParameters):
            parameters = DriverParameters.parse(parameters)
        engine = engine or Engine(part_size=parameters.chunksize or DEFAULT_CHUNK_SIZE, part_threads=DEFAULT_THREADS)
        copies = parameters.multipartcopymaxconcurrency
        if parameters.driver == "local":  # which copies with this machine's own memory and cores
            copies = min(copies, engine.threads.count)
        copying = Copying(parameters.multipartcopythresholdsize, parameters.multipartcopychunksize, copies)
        # Beside the parts, the engine's own thread looks and lists.
        store = open_store(parameters, connections=max(engine.threads.count, copying.threads) + 2)
        root = "" if parameters.driver == "local" else parameters.rootdirectory
        return cls(store, root=root, engine=engine, copying=copying)

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
        """Make the bytes-like contents the blob, all of it. Raises TypeError for anything else."""
        key, source = self.key(path), MemorySource(as_bytes(contents))
        with self._checkpoint(checkpoint) as used:
            self._engine.write(self._target(key, used, stop, overwrite, options), source)

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
        """Make ``old[:offset] + zeros(up to offset) + data`` the blob; return how many bytes of data there were.

        Atomic: on any failure the blob is what it was. With a ``checkpoint`` of the caller's, an upload that failed
        stays open, to go on with; without, it is aborted. Data is a source, or a reader that is read once, in order.
        What the old blob carries is kept at an offset, except for what ``options`` say anew. The exception carries
        ``total_read``. Raises SupersededError or SourceChangedError if the blob is replaced meanwhile by somebody else.
        """
        key = self.key(path)
        limits = self.store.limits
        if not 0 <= offset <= limits.max_parts * limits.max_part_size:
            raise InvalidOffsetError(path, offset, self.store.name)
        data = reader if isinstance(reader, Source) else ReaderStream.of(reader, path)
        try:
            with self._checkpoint(checkpoint) as used:
                self._write(self._target(key, used, stop, overwrite, options), path, offset, data)
        except Exception as error:
            error.total_read = data.total_read if isinstance(data, ReaderStream) else 0  # type: ignore[attr-defined]
            raise
        return data.total_read if isinstance(data, ReaderStream) else data.size

    def _write(self, target: Target, path: str, offset: int, data: Source | ReaderStream) -> None:
        old = prefix = None
        if offset:
            seen = look(self.store, target.key)
            target = replace(target, onto=VisibleVersion.of(seen))
            if seen is not None:
                old, prefix = BlobSource(self.store, target.key, path, head=seen), CopiedPrefix.of(seen, offset)
                kept = self.store.options_of(target.key).without(MARK_NAME)
                target = replace(target, options=kept.updated(target.options))
        if isinstance(data, ReaderStream):
            before = Splice(old, offset, MemorySource(b""))
            self._engine.write_reader(target, data, before, prefix=prefix, copying=self._copying)
        else:
            source = Splice(old, offset, data) if offset else data
            self._engine.write(target, source, prefix=prefix, copying=self._copying)

    def settle(self, path: str, checkpoint: Checkpoint) -> bool:
        """Whether a write that an earlier run had begun to publish is there; needs no source. See Engine.settle."""
        return self._engine.settle(self.store, self.key(path), checkpoint)

    def move(self, source_path: str, dest_path: str, *, dest: "Driver | None" = None, overwrite: bool = True) -> None:
        """Make the blob visible at ``dest_path``, of the storage ``dest`` if given, then delete it at its source.

        Only once the destination has been seen, and if the source is still what was copied; children of the source's
        path stay. Onto itself: the blob is kept. Raises SourceChangedError, with the blob at both places, if the source
        changed meanwhile; else a call that failed has left the source as it was, and may be repeated.
        """
        dest = dest or self
        # Two storages may be one bucket under two names: the blob at the source is then the copy, as its mark tells.
        mark = uuid4().hex if dest.store is not self.store and self.key(source_path) == dest.key(dest_path) else ""
        with aborting_what_is_left(dest.store, mark) as used:
            moved = self.copy(source_path, dest_path, dest=dest, overwrite=overwrite, checkpoint=used)
            if moved is None:
                return
            try:
                dest._verify(dest_path, used)
                self.delete_moved(source_path, version_of(moved), mark=mark)
            except (StoreError, SourceChangedError) as error:
                if isinstance(error, DeleteIncompleteError):
                    raise
                raise type(error)(f"{error} (copied to {dest_path}, not deleted at {source_path})") from error

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
        """The first half of a move: the blob, as it is at the source, at its destination. None if that is the source.

        Within a storage the store copies, with all that the blob carries; to another one, its bytes are streamed.
        """
        dest = dest or self
        source_key, dest_key = self.key(source_path), dest.key(dest_path)
        head = self.head(source_path)
        if (*self._place(), source_key) == (*dest._place(), dest_key):
            return None
        target = dest._target(dest_key, checkpoint, stop, overwrite, None)
        near = CopiedPrefix.of(head) if dest.store is self.store else None
        with self._not_found(source_path):
            # What the store copies in one call keeps its tags without our reading them.
            in_one = near is not None and self._copying.is_one_call(near, target)
            if not in_one or checkpoint.mark:
                options = self.store.options_of(source_key, with_tags=not in_one).without(MARK_NAME)
                target = replace(target, options=options if near else options.elsewhere())
        source = BlobSource(self.store, source_key, source_path, head=head)
        dest._engine.write(target, source, prefix=near, copying=self._copying)
        return head

    def delete_moved(self, path: str, version: Mapping[str, Any], *, mark: str = "", stop: Stop = never) -> None:
        """The second half: delete the source, if it is still what was copied. See delete_unchanged."""
        delete_unchanged(self.store, self.key(path), version, path, mark=mark, stop=stop)

    def delete(self, path: str, *, deletion: Deletion | None = None, stop: Stop = never) -> None:
        """Delete the blob and everything under ``path/``, never a sibling.

        Raises DeleteIncompleteError, which names what is left, after everything else is gone. Safe to repeat.
        """
        key = self.key(path)
        with self._not_found(path):
            delete_tree(self.store, key, path, deletion=deletion or MemoryDeletion(), stop=stop)

    def warm_up(self) -> None:
        """Make the store's client now. Sends no request."""
        if isinstance(self.store, S3Store):
            self.store.warm_up()

    # --- shared parts ------------------------------------------------------------------------------------------------

    def _place(self) -> tuple[object, ...]:
        """What two drivers of one bucket have in common."""
        store = self.store
        if isinstance(store, MemoryStore):
            return (store,)
        bucket = os.path.realpath(store.bucket) if isinstance(store, LocalStore) else store.bucket
        return (store.name, store.endpoint.rstrip("/"), bucket)

    def _target(
        self, key: str, checkpoint: Checkpoint, stop: Stop, overwrite: bool, options: BlobOptions | None
    ) -> Target:
        return Target(
            store=self.store,
            key=key,
            checkpoint=checkpoint,
            stop=stop,
            options=options,
            overwrite=overwrite,
            is_last_writer=isinstance(checkpoint, MemoryCheckpoint),
        )

    def _checkpoint(self, checkpoint: Checkpoint | None) -> AbstractContextManager[Checkpoint]:
        return aborting_what_is_left(self.store) if checkpoint is None else nullcontext(checkpoint)

    def _verify(self, path: str, checkpoint: MemoryCheckpoint) -> None:
        upload = checkpoint.load()
        assert upload is not None, "it has just been completed"
        difference = expected_blob(upload, checkpoint.mark, upload.etag).difference(self.look(path))
        if difference is not None:
            raise VerificationError(f"{self.store.name}: {path}: the copy cannot be seen: {difference}")
