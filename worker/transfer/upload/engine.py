"""The engine: brings bytes into a store, part by part, so that any other process can go on where it stopped.

It knows bytes and no jobs. What it must not forget, it tells the checkpoint; what it is not sure of, it looks up in
the store. The order of steps, and what a crash after each one means, is in docs/architecture.md.
"""

from blobferry.contract import UploadState
from worker.stores.store import Store
from worker.transfer.checkpoint import Checkpoint
from worker.transfer.parts import MAX_BUFFER, PartThreads
from worker.transfer.sources.reader_stream import ReaderStream
from worker.transfer.sources.source import MemorySource, Source
from worker.transfer.sources.splice import Splice, SplicedStream
from worker.transfer.upload.commit import refuse_other_key, resolve_commit
from worker.transfer.upload.pace import Paces
from worker.transfer.upload.server_copy import CopiedPrefix, Copying
from worker.transfer.upload.source_upload import Write
from worker.transfer.upload.stream_upload import write_stream
from worker.transfer.upload.target import Target


class Engine:
    """Moves bytes with the threads and buffers of one process. Thread-safe; made once per worker child."""

    def __init__(self, *, part_size: int, part_threads: int, paces: Paces | None = None) -> None:
        """``paces``: those that other processes share; its own by default."""
        self.part_size = part_size
        self.threads = PartThreads(part_threads, part_size)
        self._paces = paces or Paces()

    def close(self) -> None:
        """End the threads."""
        self.threads.close()

    def resolve_commit(self, store: Store, key: str, checkpoint: Checkpoint) -> bool:
        """Look whether an earlier run's commit call has worked: True, and the checkpoint says ``completed``.

        Needs no source: that may be gone once readers see the blob. Raises SupersededError, StoreError.
        """
        upload = checkpoint.load()
        if upload is None or upload.state not in (UploadState.COMPLETING, UploadState.COMPLETED):
            return False
        refuse_other_key(upload, key)
        return upload.state == UploadState.COMPLETED or resolve_commit(store, key, upload, checkpoint)

    def write(
        self, target: Target, source: Source, *, prefix: CopiedPrefix | None = None, copying: Copying | None = None
    ) -> None:
        """Make the source's bytes the blob at the target; the checkpoint then says ``completed``.

        The store copies the ``prefix``, which the source holds as well, by itself where that can be. Goes on from the
        checkpoint. Readers see the old blob or the new one, nothing else, at any moment. Raises Interrupted,
        SourceError, StoreError, TransferError; the upload then stays as it is, to go on with later.
        """
        target.checkpoint.pin_source(source.size, source.fingerprint)
        pace = self._paces.of(target.store)
        write = Write(target, source, prefix, self.threads, copying or Copying(), self.part_size, pace)
        while not write.advance():
            pass

    def write_reader(
        self, target: Target, reader: ReaderStream, before: Splice, *, prefix: CopiedPrefix | None, copying: Copying
    ) -> None:
        """The same for what comes ``before``, kept bytes and zeros, and a reader that can be read once, in order.

        Cannot be gone on with. Raises as ``write`` does.
        """
        most = min(max(self.part_size, target.store.limits.min_part_size), MAX_BUFFER)
        data = reader.whole(most)
        if data is not None:
            source = MemorySource(memoryview(data))
            self.write(target, before.followed_by(source) if before.size else source, prefix=prefix, copying=copying)
            return
        if prefix and prefix.size < target.store.limits.min_part_size:
            prefix = None
        stream = SplicedStream(before, prefix.size if prefix else 0, reader)
        pace = self._paces.of(target.store)
        write_stream(target, stream, prefix, threads=self.threads, copying=copying, part_size=self.part_size, pace=pace)
