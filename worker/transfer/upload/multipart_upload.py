"""The multipart uploads of one target: how they are opened, filled, completed, and what follows once one is gone."""

import logging
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from worker.errors import (
    KeyNotFoundError,
    LeaseLostError,
    OutcomeUnknownError,
    PreconditionFailedError,
    SlowDownError,
    SourceChangedError,
    StoreError,
    StoreUnavailableError,
    SupersededError,
    UploadNotFoundError,
)
from worker.stores.attempts import asked_before_attempts
from worker.stores.blob_values import Condition, PartReceipt, PutReceipt
from worker.stores.capabilities import HasLifecycle
from worker.stores.checksums import checksum_of, join_checksums
from worker.transfer.body import PartBody
from worker.transfer.checkpoint import SavedUpload, SentPart, VisibleVersion
from worker.transfer.parts import PartThreads, run_all
from worker.transfer.plan import PartPlan, PartRange
from worker.transfer.stop import Interrupted
from worker.transfer.upload.abort import abort_upload, lost_upload_of_call, lost_uploads
from worker.transfer.upload.commit import COMPLETE, commit, expected_blob, resolve_commit
from worker.transfer.upload.pace import Pace
from worker.transfer.upload.server_copy import CopiedPrefix, Copying
from worker.transfer.upload.target import Target
from worker.transfer.visible import look

logger = logging.getLogger(__name__)

TRIES: Final = 3  #: tries to open an upload
PAUSE: Final = 0.2  #: seconds before the second try, growing by as much with each


@dataclass(frozen=True, slots=True)
class MultipartUpload:
    """How one call of the engine uploads a blob in parts. It holds no state: uploads are passed as they were saved."""

    target: Target
    threads: PartThreads
    copying: Copying
    pace: Pace  #: of the target's bucket

    # --- opening -----------------------------------------------------------------------------------------------------

    def open(self, plan: PartPlan, base: VisibleVersion) -> SavedUpload:
        """Open an upload and save its id."""
        target = self.target
        upload = target.checkpoint.opening(
            target.key,
            size=plan.size,
            part_size=plan.part_size,
            base=base,
            prefix=plan.prefix,
            prefix_parts=plan.prefix_parts,
        )
        upload_id = self._create(upload)
        try:
            return target.checkpoint.opened(upload_id)
        except LeaseLostError:  # no checkpoint has the id, so no other run would find the upload
            with asked_before_attempts(None):
                abort_upload(target.store, target.key, upload_id)
            raise

    def _create(self, upload: SavedUpload) -> str:
        """Create the upload. After a lost answer, find that upload and abort it before the next try."""
        target, number = self.target, 0
        while True:
            try:
                return target.store.create_upload(target.key, options=target.marked_options)
            except StoreError as error:
                number += 1
                may_be_open = isinstance(error, StoreUnavailableError) and not isinstance(error, SlowDownError)
                if number == TRIES or not isinstance(error, StoreUnavailableError):
                    if target.is_last_writer and not may_be_open:
                        target.checkpoint.abandon(gone=True)  # nothing was opened
                    raise
                logger.info("upload not opened, trying again", extra={"key": target.key, "error": error.code})
            if target.stop():
                raise Interrupted
            if may_be_open:
                self.abort_lost(upload)
            time.sleep(PAUSE * number)

    def abort_lost(self, upload: SavedUpload) -> None:
        """Abort uploads that a run opened and whose id it did not live to save; they have no parts and no row."""
        target = self.target
        if target.is_last_writer:  # a plain call, whose ids no row has
            lost = lost_upload_of_call(target.store, upload)
        else:
            lost = lost_uploads(target.store, upload, lambda: target.checkpoint.known_upload_ids(target.key))
        for upload_id in lost:
            abort_upload(target.store, target.key, upload_id)

    # --- parts -------------------------------------------------------------------------------------------------------

    def send(self, upload_id: str, body: PartBody) -> SentPart:
        """Send one part, at the pace of the bucket."""
        target, part = self.target, body.part
        checksum = checksum_of(body, target.store.checksum)
        send = partial(target.store.upload_part, target.key, upload_id, part.number, body, checksum=checksum)
        receipt = self.pace.call(send, self.threads.count, target.stop)
        return SentPart(part.number, part.offset, part.size, receipt.etag, checksum)

    def copy(self, upload_id: str, prefix: CopiedPrefix, parts: Iterable[PartRange]) -> list[SentPart]:
        """Have the store copy ranges of the prefix; record and return the parts, in no order.

        Raises SourceChangedError if the blob was replaced, otherwise as :func:`~worker.transfer.parts.run_all` does.
        """
        target, threads = self.target, self.copying.threads
        record = partial(target.checkpoint.record, bytes_sent=0)
        with ThreadPoolExecutor(threads, thread_name_prefix="copy") as executor:
            try:
                return run_all(
                    executor,
                    threads,
                    parts,
                    lambda part: partial(self._copy, upload_id, prefix, part),
                    record,
                    target.stop,
                )
            except (KeyNotFoundError, PreconditionFailedError) as error:
                raise SourceChangedError(f"{prefix.key}: changed while it was copied: {error}") from error

    def _copy(self, upload_id: str, prefix: CopiedPrefix, part: PartRange) -> SentPart:
        target, of_prefix = self.target, (prefix.key, part.offset, part.size)
        copy = partial(
            target.store.copy_part, target.key, upload_id, part.number, *of_prefix, source_if_match=prefix.etag
        )
        receipt = self.pace.call(copy, self.copying.threads, target.stop)
        return SentPart(part.number, part.offset, part.size, receipt.etag, receipt.checksum)

    # --- the end -----------------------------------------------------------------------------------------------------

    def complete(self, upload: SavedUpload, base: VisibleVersion) -> bool:
        """Complete the upload, all of whose parts are in the store; False if it is gone and has to begin again.

        Raises SupersededError if a blob written since the upload was opened hides ours: a versioned bucket dates a
        blob by the opening of its upload.
        """
        target, upload_id = self.target, upload.upload_id
        assert upload_id is not None, "it is open"
        receipts = [
            PartReceipt(part.part_number, part.size, part.etag, part.checksum)
            for _, part in sorted(upload.parts.items())
        ]
        checksum = join_checksums((part.checksum, part.size) for part in receipts)
        refusals = list[PreconditionFailedError]()

        def call(condition: Condition | None) -> PutReceipt:
            try:
                return target.store.complete_upload(
                    target.key, upload_id, receipts, checksum=checksum, size=upload.size, condition=condition
                )
            except PreconditionFailedError as error:
                refusals.append(error)
                raise

        expected = expected_blob(upload, target.checkpoint.mark)
        try:
            receipt = commit(target, COMPLETE, call, base=base, expected=expected, is_ambiguous=upload.is_completing)
            written = replace(expected, answered=receipt.etag)
            if base != upload.base and (hidden := written.difference(target.store, look(target.store, target.key))):
                raise SupersededError(f"{target.key}: a later blob hides the one that was written: {hidden}")
        except UploadNotFoundError as error:
            saved = target.checkpoint.load()
            assert saved is not None, "it was completing"
            return self.recover(replace(upload, state=saved.state, base=base), error)
        if refusals:  # the look may have found a blob that an earlier call made; an upload that is still open must go
            abort_upload(target.store, target.key, upload_id)
        target.checkpoint.completed(receipt.etag, receipt.version_id, is_recognised=target.is_recognised())
        return True

    def recover(self, upload: SavedUpload, error: UploadNotFoundError) -> bool:
        """Handle a missing upload: True if its blob is visible; otherwise abandon it and return False (begin again).

        Raises OutcomeUnknownError if the blob may have been visible and then deleted.
        """
        target = self.target
        if resolve_commit(target.store, target.key, target.checkpoint, upload):
            return True  # an earlier call took effect between the last look and now
        if upload.is_completing and upload.base.is_absent and not self._has_expired(upload):
            raise OutcomeUnknownError(
                f"{target.key}: the upload is gone and no blob is there; it may have been completed and then deleted, "
                "so it was not sent again"
            ) from error
        logger.warning("upload is gone, beginning again from byte 0", extra={"key": target.key})
        target.checkpoint.abandon(gone=True)
        return False

    def _has_expired(self, upload: SavedUpload) -> bool:
        """True if a lifecycle rule of the bucket explains that the upload is gone."""
        store = self.target.store
        if not isinstance(store, HasLifecycle):
            return False
        try:
            lifetime = store.upload_lifetime(upload.key)
        except StoreError:  # the rules cannot be read
            return False
        return lifetime is not None and self.target.checkpoint.now() - upload.opened_at >= lifetime
