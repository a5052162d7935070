"""Uploads a source, whose bytes can be read again at any offset, from the state that its checkpoint has."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from blobferry.contract import UploadState
from worker.errors import KeyNotFoundError, PermissionDeniedError, PreconditionFailedError, UploadNotFoundError
from worker.stores.blob_values import Condition, PartReceipt, PutReceipt
from worker.stores.capabilities import Capability
from worker.stores.checksums import checksum_of, md5_etag_of
from worker.transfer.body import PartBody
from worker.transfer.checkpoint import SavedUpload, SentPart, VisibleVersion
from worker.transfer.parts import MAX_BUFFER, PartThreads
from worker.transfer.plan import PartPlan, PartRange, plan_parts
from worker.transfer.sources.source import MemorySource, Source
from worker.transfer.upload.commit import COPY, PUT, expected_blob, refuse_other_key, resolve_commit
from worker.transfer.upload.pace import Pace
from worker.transfer.upload.reconcile import reconcile
from worker.transfer.upload.sent_parts import MAX_COMPARISONS, pin, touched_again
from worker.transfer.upload.server_copy import CopiedPrefix, Copying, copy_parts
from worker.transfer.upload.target import Target

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SourceUpload:
    """One call of :meth:`Engine.write <worker.transfer.upload.engine.Engine.write>`."""

    target: Target
    source: Source
    prefix: CopiedPrefix | None
    threads: PartThreads
    copying: Copying
    part_size: int
    pace: Pace
    opened: set[str] = field(default_factory=set)  #: ids of uploads that this call has opened, without parts
    doubts: list[Mapping[str, Any]] = field(default_factory=list)  #: fingerprints after which bytes were compared

    def advance(self) -> bool:
        """Take the next step from the state that the checkpoint has; True if the upload is completed."""
        target = self.target
        upload = target.checkpoint.load()
        if upload is None:
            self._open()
            return False
        if upload.state == UploadState.COMPLETED:
            return True
        refuse_other_key(upload, target.key)
        is_completing = upload.state == UploadState.COMPLETING
        if is_completing and resolve_commit(target.store, target.key, upload, target.checkpoint):
            return True
        if upload.part_size is None:
            return self._copy(upload, self.prefix) if upload.prefix and self.prefix else self._put(upload)
        if upload.upload_id is None:
            target.abort_lost_uploads(upload)
            target.checkpoint.abandon(gone=True)
            return False
        return self._upload(upload, upload.upload_id)

    def _open(self) -> None:
        target, size, limits = self.target, self.source.size, self.target.store.limits
        prefix = self.prefix.size if self.prefix and self._is_copied(self.prefix) else 0
        plan = plan_parts(
            size, part_size=self.part_size, limits=limits, prefix=prefix, copy_size=self.copying.part_size
        )
        is_one_copy = self.prefix is not None and self.copying.is_one_call(self.prefix, target)
        if is_one_copy or (not plan.prefix_parts and plan.count <= 1 and size <= MAX_BUFFER):
            # What is visible counts from the commit call on, right before which it is looked at.
            unseen = VisibleVersion()
            target.checkpoint.opening(
                target.key, size=size, part_size=None, base=unseen, prefix=size if is_one_copy else 0
            )
        else:
            self.opened.add(target.open_upload(plan, target.base()))

    def _is_copied(self, prefix: CopiedPrefix) -> bool:
        return prefix.size > 0 and (prefix.is_whole or prefix.size >= self.target.store.limits.min_part_size)

    def _is_doubtful(self) -> bool:
        """Whether the bytes that were read may be others than the source's now. Raises SourceChangedError."""
        before = self.source.fingerprint
        self.source.check()
        if self.source.fingerprint == before:
            return False
        self.doubts.append(before)
        if len(self.doubts) > MAX_COMPARISONS:
            raise touched_again(self.source)
        return True

    # --- one call --------------------------------------------------------------------------------------------------

    def _put(self, upload: SavedUpload) -> bool:
        target, store = self.target, self.target.store

        def send(part: PartRange, buffer: memoryview, filled: int = 0) -> SentPart:
            while True:
                body = PartBody(self.source, part, buffer, filled=filled)
                checksum, etag = checksum_of(body, store.checksum), md5_etag_of(body)
                if not self._is_doubtful():
                    break  # otherwise nothing was sent yet: read the bytes once more
            expected = expected_blob(upload, target.checkpoint.mark, etag)
            receipt = target.commit(
                PUT,
                lambda condition: store.put(
                    target.key, body, checksum=checksum, condition=condition, options=target.marked_options
                ),
                upload,
                target.base(),
                replace(expected, checksum=checksum),
            )
            target.checkpoint.completed(
                receipt.etag, receipt.version_id, bytes_sent=part.size, is_recognised=target.is_recognised()
            )
            return SentPart(part.number, part.offset, part.size, receipt.etag or "", checksum)

        whole = PartRange(1, 0, upload.size)
        if isinstance(self.source, MemorySource):  # needs no buffer, so it does not wait for one
            send(whole, self.source.data, filled=upload.size)
        else:
            self.threads.run(send, whole)
        return True

    def _copy(self, upload: SavedUpload, prefix: CopiedPrefix) -> bool:
        target = self.target
        options = target.marked_options if target.checkpoint.mark else None  # without one, the store copies them

        def call(condition: Condition | None) -> PutReceipt:
            return target.store.copy(
                prefix.key, target.key, source_if_match=prefix.etag, condition=condition, options=options
            )

        expected = expected_blob(upload, target.checkpoint.mark, prefix.etag)
        expected = replace(expected, checksum=prefix.checksum, kept_by=Capability.COPY_OPTIONS)
        try:
            receipt = target.commit(COPY, call, upload, target.base(), expected)
        except (KeyNotFoundError, PreconditionFailedError):
            self.source.check()
            raise
        is_recognised = target.is_recognised(Capability.COPY_OPTIONS)
        target.checkpoint.completed(receipt.etag, receipt.version_id, is_recognised=is_recognised)
        return True

    # --- multipart uploads -----------------------------------------------------------------------------------------

    def _upload(self, upload: SavedUpload, upload_id: str) -> bool:
        target = self.target
        try:
            parts = self._send_missing(upload, upload_id)
        except UploadNotFoundError as error:
            return target.resolve_vanished(upload, error)
        if self._is_doubtful():
            pin(target, self.source, self.threads)
            self.opened.discard(upload_id)  # it has parts now
            return False
        base = target.base()
        if base != upload.base and not target.replaces_anything:
            # A versioned bucket dates a blob by the opening of its upload, so the newer blob would hide ours.
            logger.info("destination changed since the upload was opened", extra={"key": target.key})
            target.checkpoint.abandon(gone=False)
            return False
        return target.complete(replace(upload, parts=parts), upload_id, base)

    def _held_parts(self, upload: SavedUpload, upload_id: str) -> Iterable[PartReceipt]:
        """Return the parts that the store holds; those of the rows if it may not be asked."""
        if upload_id in self.opened:
            return []
        try:
            return list(self.target.store.list_parts(self.target.key, upload_id))
        except PermissionDeniedError as error:
            logger.warning("parts cannot be listed", extra={"key": self.target.key, "reason": str(error)})
            parts = upload.parts.values()
            return [PartReceipt(part.part_number, part.size, part.etag, part.checksum) for part in parts]

    def _send_missing(self, upload: SavedUpload, upload_id: str) -> dict[int, SentPart]:
        target, store = self.target, self.target.store
        assert upload.part_size is not None, "a put has no parts"
        plan = PartPlan(upload.size, upload.part_size, upload.prefix_parts)
        parts = reconcile(
            upload,
            plan,
            self._held_parts(upload, upload_id),
            source=self.source,
            algorithm=store.checksum,
            threads=self.threads,
            checkpoint=target.checkpoint,
        )

        def send(part: PartRange, buffer: memoryview) -> SentPart:
            body = PartBody(self.source, part, buffer)
            checksum = checksum_of(body, store.checksum)
            receipt = self.pace.call(
                lambda: store.upload_part(target.key, upload_id, part.number, body, checksum=checksum),
                self.threads.count,
                target.stop,
            )
            return SentPart(part.number, part.offset, part.size, receipt.etag, checksum)

        sent: list[SentPart] = []
        if self.prefix is not None:
            missing = (part for part in plan.copied() if part.number not in parts)
            sent += copy_parts(target, upload_id, self.prefix, missing, self.copying.threads, self.pace)
        missing = (part for part in plan.sent() if part.number not in parts)
        sent += self.threads.send_all(missing, send, target.checkpoint, target.stop)
        return parts | {part.part_number: part for part in sent}
