"""The engine: brings a source into a store, part by part, so that any other process can go on where it stopped.

It knows bytes and no jobs. What it must not forget, it tells the checkpoint; what it is not sure of, it looks up in
the store. The order of steps, and what a crash after each one means, is in docs/architecture.md.
"""

import logging
from dataclasses import dataclass, replace

from blobferry.checks import MARK_NAME
from blobferry.contract import UploadState
from worker.errors import (
    BlobExistsError,
    LeaseLostError,
    OutcomeUnknownError,
    SupersededError,
    UploadNotFoundError,
)
from worker.stores.store import Store
from worker.stores.values import BlobOptions, Condition, PartReceipt, PutReceipt
from worker.transfer.aborting import abort_upload, lost_uploads
from worker.transfer.body import PartBody
from worker.transfer.checkpoint import Base, Checkpoint, SavedUpload, SentPart
from worker.transfer.checksums import checksum_of, join_checksums, md5_etag_of
from worker.transfer.control import Stop, never
from worker.transfer.plan import PartPlan, PartRange, plan_parts
from worker.transfer.publishing import Call, publish
from worker.transfer.reconciling import reconcile
from worker.transfer.sending import MAX_BUFFER, PartThreads
from worker.transfer.settling import expected_blob, refuse_other_key, settle
from worker.transfer.sources import Source
from worker.transfer.visible import Expected, look

logger = logging.getLogger(__name__)


class Engine:
    """Moves bytes with the threads and buffers of one process. One transfer at a time; made once per worker child."""

    def __init__(self, *, part_size: int, part_threads: int) -> None:
        self.part_size = part_size
        self.threads = PartThreads(part_threads, part_size)

    def close(self) -> None:
        """End the threads."""
        self.threads.close()

    def settle(self, store: Store, key: str, checkpoint: Checkpoint) -> bool:
        """Look whether an earlier run's publishing call has worked: True, and the checkpoint says ``completed``.

        Needs no source: that may be gone once readers see the blob. Raises SupersededError, StoreError.
        """
        upload = checkpoint.load()
        if upload is None or upload.state not in (UploadState.COMPLETING, UploadState.COMPLETED):
            return False
        refuse_other_key(upload, key)
        return upload.state == UploadState.COMPLETED or settle(store, key, upload, checkpoint)

    def write(
        self,
        store: Store,
        key: str,
        source: Source,
        *,
        checkpoint: Checkpoint,
        stop: Stop = never,
        options: BlobOptions | None = None,
        overwrite: bool = True,
    ) -> None:
        """Make the source's bytes the blob under the key; the checkpoint then says ``completed``.

        Goes on from the checkpoint. Readers see the old blob or the new one, nothing else, at any moment. Raises
        Interrupted, SourceError, StoreError, TransferError; the upload then stays as it is, to go on with later.
        """
        checkpoint.pin_source(source.size, source.fingerprint)
        options = options or BlobOptions()
        marked = replace(options, metadata={**options.metadata, MARK_NAME: checkpoint.mark})
        transfer = _Write(self, store, key, source, checkpoint, stop, marked, overwrite)
        while not transfer.advance():
            pass


@dataclass(frozen=True, slots=True)
class _Write:
    """One call of :meth:`Engine.write`."""

    engine: Engine
    store: Store
    key: str
    source: Source
    checkpoint: Checkpoint
    stop: Stop
    options: BlobOptions
    overwrite: bool

    def advance(self) -> bool:
        """Go on from what the checkpoint says; False if it has to be read again."""
        upload = self.checkpoint.load()
        if upload is None:
            self._open()
            return False
        if upload.state == UploadState.COMPLETED:
            return True
        refuse_other_key(upload, self.key)
        if upload.state == UploadState.COMPLETING and settle(self.store, self.key, upload, self.checkpoint):
            return True
        if upload.part_size is None:
            return self._put(upload)
        if upload.upload_id is None:
            self._abort_lost_uploads(upload)
            self.checkpoint.abandon(gone=True)
            return False
        return self._upload(upload, upload.upload_id)

    def _open(self) -> None:
        base = self._base()
        plan = plan_parts(self.source.size, part_size=self.engine.part_size, limits=self.store.limits)
        if plan.count <= 1 and self.source.size <= MAX_BUFFER:
            self.checkpoint.opening(self.key, size=self.source.size, part_size=None, base=base)
            return
        self.checkpoint.opening(self.key, size=self.source.size, part_size=plan.part_size, base=base)
        upload_id = self.store.create_upload(self.key, options=self.options)
        try:
            self.checkpoint.opened(upload_id)
        except LeaseLostError:  # nobody else will ever know this id
            abort_upload(self.store, self.key, upload_id)
            raise

    def _base(self) -> Base:
        base = Base.of(look(self.store, self.key))
        if not self.overwrite and not base.is_absent:
            raise BlobExistsError(f"{self.key}: a blob is there already, and overwrite is off")
        return base

    # --- small blobs -----------------------------------------------------------------------------------------------

    def _put(self, upload: SavedUpload) -> bool:
        def send(part: PartRange, buffer: memoryview) -> SentPart:
            body = PartBody(self.source, part, buffer)
            checksum = checksum_of(body, self.store.checksum)
            self.source.check()
            expected = replace(expected_blob(upload, self.checkpoint.mark, md5_etag_of(body)), checksum=checksum)
            receipt = self._publish(
                lambda condition: self.store.put(
                    self.key, body, checksum=checksum, condition=condition, options=self.options
                ),
                self._base(),
                expected,
            )
            self.checkpoint.completed(receipt.etag, receipt.version_id, bytes_sent=part.size)
            return SentPart(part.number, part.offset, part.size, receipt.etag or "", checksum)

        self.engine.threads.run(send, PartRange(1, 0, upload.size))
        return True

    # --- multipart uploads -----------------------------------------------------------------------------------------

    def _upload(self, upload: SavedUpload, upload_id: str) -> bool:
        assert upload.part_size is not None, "a put has no parts"
        plan = PartPlan(upload.size, upload.part_size)
        try:
            parts = self._send_missing(upload, upload_id, plan)
        except UploadNotFoundError as error:
            return self._begin_again(upload, error)
        self.source.check()
        base = self._base()
        if base != upload.base:
            # A versioned bucket dates a blob by the opening of its upload: completing ours would hide it.
            logger.info("destination changed since the upload was opened", extra={"key": self.key})
            self.checkpoint.abandon(gone=False)
            return False
        upload = replace(upload, parts=parts)
        try:
            receipt = self._publish(
                self._complete_call(upload, upload_id), base, expected_blob(upload, self.checkpoint.mark)
            )
        except UploadNotFoundError as error:
            return self._begin_again(replace(upload, state=UploadState.COMPLETING, base=base), error)
        self.checkpoint.completed(receipt.etag, receipt.version_id)
        return True

    def _send_missing(self, upload: SavedUpload, upload_id: str, plan: PartPlan) -> dict[int, SentPart]:
        parts = reconcile(
            upload,
            plan,
            self.store.list_parts(self.key, upload_id),
            source=self.source,
            algorithm=self.store.checksum,
            threads=self.engine.threads,
            checkpoint=self.checkpoint,
        )

        def send(part: PartRange, buffer: memoryview) -> SentPart:
            body = PartBody(self.source, part, buffer)
            checksum = checksum_of(body, self.store.checksum)
            receipt = self.store.upload_part(self.key, upload_id, part.number, body, checksum=checksum)
            return SentPart(part.number, part.offset, part.size, receipt.etag, checksum)

        missing = (part for part in plan if part.number not in parts)
        sent = self.engine.threads.send_all(missing, send, self.checkpoint, self.stop)
        return parts | {part.part_number: part for part in sent}

    def _complete_call(self, upload: SavedUpload, upload_id: str) -> Call:
        receipts = [
            PartReceipt(part.part_number, part.size, part.etag, part.checksum)
            for _, part in sorted(upload.parts.items())
        ]
        checksum = join_checksums((part.checksum, part.size) for part in receipts)

        def complete(condition: Condition | None) -> PutReceipt:
            return self.store.complete_upload(
                self.key, upload_id, receipts, checksum=checksum, size=upload.size, condition=condition
            )

        return complete

    def _publish(self, call: Call, base: Base, expected: Expected) -> PutReceipt:
        try:
            return publish(
                self.store, self.key, call, base=base, expected=expected, checkpoint=self.checkpoint, stop=self.stop
            )
        except SupersededError as error:
            if self.overwrite:
                raise
            raise BlobExistsError(f"{self.key}: a blob appeared there, and overwrite is off") from error

    def _begin_again(self, upload: SavedUpload, error: UploadNotFoundError) -> bool:
        """The upload id is gone. Raises OutcomeUnknownError if the blob may have been published, then deleted."""
        if upload.state == UploadState.COMPLETING and settle(self.store, self.key, upload, self.checkpoint):
            return True  # an earlier call took effect between the last look and now
        if upload.state == UploadState.COMPLETING and upload.base.is_absent:
            raise OutcomeUnknownError(
                f"{self.key}: the upload is gone and no blob is there; it may have been completed and then deleted, "
                "so it was not sent again"
            ) from error
        logger.warning("upload is gone, beginning again from byte 0", extra={"key": self.key})
        self.checkpoint.abandon(gone=True)
        return False

    def _abort_lost_uploads(self, upload: SavedUpload) -> None:
        """Abort what a run opened without living to write its id down: no parts, and nobody else's row."""
        for upload_id in lost_uploads(self.store, upload, lambda: self.checkpoint.known_upload_ids(self.key)):
            abort_upload(self.store, self.key, upload_id)
