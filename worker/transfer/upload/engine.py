"""The engine: writes bytes to a store, part by part, so that another process can continue after a crash.

It knows no jobs. It saves its progress in the checkpoint, and looks at the store after anything uncertain. The order of
steps, and the effect of a crash after each of them, is in docs/architecture.md.
"""

from worker.stores.store import Store
from worker.transfer.parts import MAX_BUFFER, PartThreads
from worker.transfer.plan import plan_prefix
from worker.transfer.sources.reader_stream import ReaderStream
from worker.transfer.sources.source import MemorySource, Source
from worker.transfer.sources.splice import Splice, SplicedStream
from worker.transfer.upload.multipart_upload import MultipartUpload
from worker.transfer.upload.pace import Pace, Paces
from worker.transfer.upload.server_copy import CopiedPrefix, Copying
from worker.transfer.upload.source_upload import SourceUpload
from worker.transfer.upload.stream_upload import write_stream
from worker.transfer.upload.target import Target


class Engine:
    """The threads and buffers of one process. Thread-safe; made once per worker child."""

    def __init__(self, *, part_size: int, part_threads: int, paces: Paces | None = None) -> None:
        """Sizes are bytes; ``paces`` are shared with other processes, None for paces of its own."""
        self.part_size = part_size
        self.threads = PartThreads(part_threads, part_size)
        self._paces = paces or Paces()

    def close(self) -> None:
        """End the threads."""
        self.threads.close()

    def pace_of(self, store: Store) -> Pace:
        """The pace of the store's bucket."""
        return self._paces.of(store)

    def write(
        self, target: Target, source: Source, *, prefix: CopiedPrefix | None = None, copying: Copying | None = None
    ) -> None:
        """Make the source's bytes the blob at the target, and complete the checkpoint.

        The source holds the ``prefix`` too; if possible, the store copies it instead. Continues from the checkpoint.
        Readers see the old blob or the new one at any moment. Raises Interrupted, SourceError, StoreError,
        TransferError; the upload then stays, to be continued later.
        """
        SourceUpload(self._multipart(target, copying or Copying()), source, prefix, self.part_size).run()

    def write_reader(
        self, target: Target, reader: ReaderStream, before: Splice, *, prefix: CopiedPrefix | None, copying: Copying
    ) -> None:
        """Make ``before`` (kept bytes and zeros) and the bytes of the reader the blob at the target.

        Cannot be continued, as a reader can be read only once. Raises as ``write`` does.

        Args:
            target: the key to write.
            reader: its bytes; if they fit into one part, they are written like a source in memory.
            before: the bytes before those of the reader.
            prefix: the first bytes of ``before``, which the store copies.
            copying: how it copies them.
        """
        data = reader.whole(min(max(self.part_size, target.store.limits.min_part_size), MAX_BUFFER))
        if data is not None:
            source = MemorySource(memoryview(data))
            self.write(target, before.followed_by(source) if before.size else source, prefix=prefix, copying=copying)
            return
        kept = prefix.size if prefix else 0
        known = before.size + reader.total_read
        plan = plan_prefix(kept, part_size=self.part_size, limits=target.store.limits, known=known)
        stream = SplicedStream(before, plan.size, reader)
        write_stream(self._multipart(target, copying), stream, plan, prefix)

    def _multipart(self, target: Target, copying: Copying) -> MultipartUpload:
        return MultipartUpload(target, self.threads, copying, self.pace_of(target.store))
