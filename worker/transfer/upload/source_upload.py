"""Uploads a source, whose bytes can be read again at any offset, from the state that its checkpoint has."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from worker.errors import KeyNotFoundError, PermissionDeniedError, PreconditionFailedError, UploadNotFoundError
from worker.stores.blob_values import Condition, PartReceipt, PutReceipt
from worker.stores.capabilities import Capability
from worker.stores.checksums import checksum_of, md5_etag_of
from worker.transfer.body import PartBody
from worker.transfer.checkpoint import SavedUpload, SentPart, VisibleVersion
from worker.transfer.parts import MAX_BUFFER
from worker.transfer.plan import PartPlan, PartRange, plan_parts
from worker.transfer.sources.source import MemorySource, Source
from worker.transfer.upload.commit import COPY, PUT, commit, expected_blob, refuse_other_key, resolve_commit
from worker.transfer.upload.multipart_upload import MultipartUpload
from worker.transfer.upload.reconcile import reconcile
from worker.transfer.upload.sent_parts import MAX_COMPARISONS, pin, touched_again
from worker.transfer.upload.server_copy import CopiedPrefix
from worker.transfer.upload.target import Target

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SourceUpload:
    """One call of :meth:`Engine.write <worker.transfer.upload.engine.Engine.write>`."""

    multipart: MultipartUpload
    source: Source
    prefix: CopiedPrefix | None
    part_size: int
    doubts: list[Mapping[str, Any]] = field(default_factory=list)  #: fingerprints after which bytes were compared

    @property
    def target(self) -> Target:
        """The key to write."""
        return self.multipart.target

    def run(self) -> None:
        """Continue from the checkpoint, and begin again from byte 0 where that is needed."""
        checkpoint = self.target.checkpoint
        pin(self.target, self.source, self.multipart.threads)
        upload = checkpoint.load()
        while not self._finish(upload or self._open(), is_new=upload is None):
            upload = checkpoint.load()

    def _finish(self, upload: SavedUpload, *, is_new: bool) -> bool:
        """Do what is left to do; False if that is changed by what was found. ``is_new``: it was opened right before."""
        target = self.target
        if resolve_commit(target.store, target.key, target.checkpoint, upload):
            return True
        refuse_other_key(upload, target.key)
        if upload.part_size is None:
            return self._copy(upload, self.prefix) if upload.prefix and self.prefix else self._put(upload)
        if upload.upload_id is None:
            self.multipart.abort_lost(upload)
            target.checkpoint.abandon(gone=True)
            return False
        return self._upload(upload, upload.upload_id, is_new=is_new)

    def _open(self) -> SavedUpload:
        target, size, limits, copying = self.target, self.source.size, self.target.store.limits, self.multipart.copying
        prefix = self.prefix.size if self.prefix and self._is_copied(self.prefix) else 0
        plan = plan_parts(size, part_size=self.part_size, limits=limits, prefix=prefix, copy_size=copying.part_size)
        is_one_copy = self.prefix is not None and copying.is_one_call(self.prefix, target)
        if not is_one_copy and (plan.prefix_parts or plan.count > 1 or size > MAX_BUFFER):
            return self.multipart.open(plan, target.base())
        # What is visible counts from the commit call on, right before which it is looked at.
        unseen, copied = VisibleVersion(), size if is_one_copy else 0
        return target.checkpoint.opening(target.key, size=size, part_size=None, base=unseen, prefix=copied)

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
            expected = replace(expected_blob(upload, target.checkpoint.mark, etag), checksum=checksum)
            receipt = commit(
                target,
                PUT,
                lambda condition: store.put(
                    target.key, body, checksum=checksum, condition=condition, options=target.marked_options
                ),
                base=target.base(),
                expected=expected,
                is_ambiguous=upload.is_completing,
            )
            target.checkpoint.completed(
                receipt.etag, receipt.version_id, bytes_sent=part.size, is_recognised=target.is_recognised()
            )
            return SentPart(part.number, part.offset, part.size, receipt.etag or "", checksum)

        whole = PartRange(1, 0, upload.size)
        if isinstance(self.source, MemorySource):  # needs no buffer, so it does not wait for one
            send(whole, self.source.data, filled=upload.size)
        else:
            self.multipart.threads.run(send, whole)
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
            receipt = commit(
                target, COPY, call, base=target.base(), expected=expected, is_ambiguous=upload.is_completing
            )
        except (KeyNotFoundError, PreconditionFailedError):
            self.source.check()
            raise
        is_recognised = target.is_recognised(Capability.COPY_OPTIONS)
        target.checkpoint.completed(receipt.etag, receipt.version_id, is_recognised=is_recognised)
        return True

    # --- multipart uploads -----------------------------------------------------------------------------------------

    def _upload(self, upload: SavedUpload, upload_id: str, *, is_new: bool) -> bool:
        target = self.target
        try:
            parts = self._send_missing(upload, upload_id, [] if is_new else self._held_parts(upload, upload_id))
        except UploadNotFoundError as error:
            return self.multipart.recover(upload, error)
        if self._is_doubtful():
            pin(target, self.source, self.multipart.threads)
            return False
        base = target.base()
        if base != upload.base and not target.replaces_anything:
            # A versioned bucket dates a blob by the opening of its upload, so the newer blob would hide ours.
            logger.info("destination changed since the upload was opened", extra={"key": target.key})
            target.checkpoint.abandon(gone=False)
            return False
        return self.multipart.complete(replace(upload, parts=parts), base)

    def _held_parts(self, upload: SavedUpload, upload_id: str) -> Iterable[PartReceipt]:
        """Return the parts that the store holds; those of the rows if it may not be asked."""
        try:
            return list(self.target.store.list_parts(self.target.key, upload_id))
        except PermissionDeniedError as error:
            logger.warning("parts cannot be listed", extra={"key": self.target.key, "reason": str(error)})
            parts = upload.parts.values()
            return [PartReceipt(part.part_number, part.size, part.etag, part.checksum) for part in parts]

    def _send_missing(self, upload: SavedUpload, upload_id: str, listed: Iterable[PartReceipt]) -> dict[int, SentPart]:
        target, threads = self.target, self.multipart.threads
        assert upload.part_size is not None, "a put has no parts"
        plan = PartPlan(upload.size, upload.part_size, upload.prefix_parts)
        parts = reconcile(
            upload,
            plan,
            listed,
            source=self.source,
            algorithm=target.store.checksum,
            threads=threads,
            checkpoint=target.checkpoint,
        )

        def send(part: PartRange, buffer: memoryview) -> SentPart:
            return self.multipart.send(upload_id, PartBody(self.source, part, buffer))

        sent: list[SentPart] = []
        if self.prefix is not None:
            missing = (part for part in plan.copied() if part.number not in parts)
            sent += self.multipart.copy(upload_id, self.prefix, missing)
        missing = (part for part in plan.sent() if part.number not in parts)
        sent += threads.send_all(missing, send, target.checkpoint, target.stop)
        return parts | {part.part_number: part for part in sent}
