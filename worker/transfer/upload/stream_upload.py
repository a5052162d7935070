"""Uploads a stream: bytes that come once, in order, their number unknown. Its parts grow with a Ladder."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Final

from worker.errors import PlanError, SourceUnavailableError, SupersededError, UploadNotFoundError
from worker.transfer.body import PartBody
from worker.transfer.checkpoint import SentPart
from worker.transfer.parts import Buffers, Task, recorder, run_all
from worker.transfer.plan import Ladder, PartPlan, PartRange
from worker.transfer.sources.source import MemorySource
from worker.transfer.sources.splice import Stream
from worker.transfer.sources.spool import Spool
from worker.transfer.upload.multipart_upload import MultipartUpload
from worker.transfer.upload.server_copy import CopiedPrefix

SPOOL_DIRECTORY: Final = Path("/var/tmp")  #: for parts larger than a buffer; /tmp is often memory


def write_stream(multipart: MultipartUpload, stream: Stream, plan: PartPlan, prefix: CopiedPrefix | None) -> None:
    """Make the prefix and the stream's bytes the blob. A stream cannot be read again, so any error is final.

    Raises SourceError, StoreError, TransferError; PlanError if there are more bytes than a blob can hold.

    Args:
        multipart: uploads to the target.
        stream: its bytes follow those of the plan.
        plan: the parts that the store copies itself, perhaps none; the stream's first parts are as large.
        prefix: what it copies them from; None for none.
    """
    target = multipart.target
    upload = multipart.open(plan, target.base())
    upload_id = str(upload.upload_id)
    parts = multipart.copy(upload_id, prefix, plan.copied()) if prefix else []
    ladder = Ladder(plan.part_size, target.store.limits, plan.prefix_parts)
    parts += _send(multipart, upload_id, stream, ladder.parts(plan.size))
    now = target.base()
    if now != upload.base and not target.replaces_anything:
        raise SupersededError(f"{target.key}: was replaced during the upload; the new blob was left alone")
    size = sum(part.size for part in parts)
    if not multipart.complete(replace(upload, size=size, parts={part.part_number: part for part in parts}), now):
        raise UploadNotFoundError(f"{target.key}: the upload has vanished, and its bytes cannot be read again")


def _send(multipart: MultipartUpload, upload_id: str, stream: Stream, parts: Iterator[PartRange]) -> list[SentPart]:
    target, threads = multipart.target, multipart.threads
    # A slow reader must not block buffers of other transfers.
    buffers = Buffers(threads.count, threads.buffer_size)

    def prepare(part: PartRange) -> Task | None:
        buffer = buffers.take()
        try:
            taken = _take(part, stream, buffer, target.key)
        except BaseException:
            buffers.give(buffer)
            raise
        if taken is None:
            buffers.give(buffer)
            return None

        def send(part: PartRange, buffer: memoryview) -> SentPart:
            with taken as body:
                return multipart.send(upload_id, body)

        return buffers.task(send, part, buffer)

    sent = run_all(threads.executor, threads.count, parts, prepare, recorder(target.checkpoint), target.stop)
    if stream.readinto(memoryview(bytearray(1))):
        raise PlanError(f"{target.key}: the reader has more bytes than fit into {target.store.limits.max_parts} parts")
    return sent


def _take(part: PartRange, stream: Stream, buffer: memoryview, key: str) -> AbstractContextManager[PartBody] | None:
    """Read the next part of the stream, into the buffer or, if larger, a file; None at the end."""
    count = stream.readinto(buffer[: part.size])
    if not count:
        return None
    if part.size <= len(buffer) or count < len(buffer):
        return nullcontext(PartBody(MemorySource(b""), replace(part, size=count), buffer, filled=count))
    spooled = _SpooledPart(part.offset, key)
    try:
        while count:
            spooled.append(buffer[:count])
            count = stream.readinto(buffer[: part.size - spooled.size])
    except BaseException:
        spooled.close()
        raise
    return spooled.body(replace(part, size=spooled.size), buffer)


class _SpooledPart:
    """A part larger than a buffer, kept in a file, because it is read twice: for its checksum and to be sent."""

    def __init__(self, offset: int, key: str) -> None:
        self.size = 0
        self._offset = offset
        self._key = key
        with self._disk_errors():
            self._spool = Spool(SPOOL_DIRECTORY)

    def append(self, piece: memoryview) -> None:
        with self._disk_errors():
            self._spool.append(piece)
        self.size += len(piece)

    def readinto(self, offset: int, buffer: memoryview) -> None:
        with self._disk_errors():
            self._spool.readinto(offset - self._offset, buffer)

    @contextmanager
    def body(self, part: PartRange, buffer: memoryview) -> Iterator[PartBody]:
        try:
            yield PartBody(self, part, buffer)
        finally:
            self.close()

    def close(self) -> None:
        self._spool.close()

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SourceUnavailableError(
                f"{self._key}: a part too large for memory cannot be kept in {SPOOL_DIRECTORY}: {error.strerror}"
            ) from error
