"""The target: the key that a transfer makes visible, and the conditions for that."""

import logging
import time
from dataclasses import dataclass, replace
from typing import Final

from blobferry.checks.arguments import MARK_NAME
from blobferry.contract import UploadState
from worker.errors import (
    BlobExistsError,
    LeaseLostError,
    OutcomeUnknownError,
    PreconditionFailedError,
    SlowDownError,
    StoreError,
    StoreUnavailableError,
    SupersededError,
    UploadNotFoundError,
)
from worker.stores.attempts import asked_before_attempts
from worker.stores.blob_values import BlobOptions, Condition, PartReceipt, PutReceipt
from worker.stores.capabilities import Capability, HasLifecycle
from worker.stores.checksums import join_checksums
from worker.stores.store import Store
from worker.transfer.checkpoint import Checkpoint, SavedUpload, VisibleVersion
from worker.transfer.plan import PartPlan
from worker.transfer.stop import Interrupted, Stop, never
from worker.transfer.upload.abort import abort_upload, lost_upload_of_call, lost_uploads
from worker.transfer.upload.commit import COMPLETE, CommitCall, CommitVerb, commit, expected_blob, resolve_commit
from worker.transfer.visible import Expected, has_room_for_mark, look

logger = logging.getLogger(__name__)

TRIES: Final = 3  #: tries to open an upload
PAUSE: Final = 0.2  #: seconds before the second try, growing by as much with each


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One key of a store, with the checkpoint and the options of the transfer that writes it."""

    store: Store
    key: str
    checkpoint: Checkpoint
    stop: Stop = never
    options: BlobOptions | None = None
    overwrite: bool = True
    #: The version that the new blob builds on; if another one is visible, nothing is committed.
    onto: VisibleVersion | None = None
    #: Replace a blob that appears during the transfer. For plain calls: the last writer wins.
    is_last_writer: bool = False

    @property
    def marked_options(self) -> BlobOptions | None:
        """The options with the job's mark, if the metadata has room for it."""
        options = self.options or BlobOptions()
        mark = self.checkpoint.mark
        if not mark or not has_room_for_mark(options.metadata, mark):
            return self.options  # a moved blob may have that much metadata
        return replace(options, metadata={**options.metadata, MARK_NAME: mark})

    @property
    def replaces_anything(self) -> bool:
        """True if a blob that appears during the transfer is replaced; otherwise it is an error."""
        return self.is_last_writer and self.overwrite and self.onto is None

    def is_recognised(self, kept_by: Capability = Capability.METADATA) -> bool:
        """Whether any later run knows the blob as ours, by the mark that ``kept_by`` was seen to keep with it."""
        options, capabilities = self.marked_options, self.store.capabilities
        is_marked = options is not None and MARK_NAME in options.metadata
        return is_marked and capabilities.is_known(kept_by) and capabilities.has(kept_by)

    def base(self) -> VisibleVersion:
        """Look at the key. Raises BlobExistsError or SupersededError if the visible blob must not be replaced."""
        base = VisibleVersion.of(look(self.store, self.key))
        if self.onto not in (None, base):
            raise SupersededError(f"{self.key}: was replaced during a write onto it; it was left alone")
        if not self.overwrite and not base.is_absent:
            raise BlobExistsError(f"{self.key}: a blob is there already, and overwrite is off")
        return base

    def open_upload(self, plan: PartPlan, base: VisibleVersion) -> str:
        """Open an upload, save its id in the checkpoint, and return it."""
        self.checkpoint.opening(
            self.key,
            size=plan.size,
            part_size=plan.part_size,
            base=base,
            prefix=plan.prefix,
            prefix_parts=plan.prefix_parts,
        )
        upload_id = self._create_upload()
        try:
            self.checkpoint.opened(upload_id)
        except LeaseLostError:  # no checkpoint has the id, so no other run would find the upload
            with asked_before_attempts(None):
                abort_upload(self.store, self.key, upload_id)
            raise
        return upload_id

    def _create_upload(self) -> str:
        """Create the upload. After a lost answer, find that upload and abort it before the next try."""
        number = 0
        while True:
            try:
                return self.store.create_upload(self.key, options=self.marked_options)
            except StoreError as error:
                number += 1
                may_be_open = isinstance(error, StoreUnavailableError) and not isinstance(error, SlowDownError)
                if number == TRIES or not isinstance(error, StoreUnavailableError):
                    if self.is_last_writer and not may_be_open:
                        self.checkpoint.abandon(gone=True)  # nothing was opened
                    raise
                logger.info("upload not opened, trying again", extra={"key": self.key, "error": error.code})
            if self.stop():
                raise Interrupted
            upload = self.checkpoint.load()
            assert upload is not None, "open_upload() has saved it"
            if may_be_open:
                self.abort_lost_uploads(upload)
            time.sleep(PAUSE * number)

    def complete(self, upload: SavedUpload, upload_id: str, base: VisibleVersion) -> bool:
        """Complete the upload, all of whose parts are in the store; False if it is gone and has to begin again.

        Raises SupersededError if a blob written since the upload was opened hides ours: a versioned bucket dates a
        blob by the opening of its upload.
        """
        receipts = [
            PartReceipt(part.part_number, part.size, part.etag, part.checksum)
            for _, part in sorted(upload.parts.items())
        ]
        checksum = join_checksums((part.checksum, part.size) for part in receipts)
        refusals = list[PreconditionFailedError]()

        def call(condition: Condition | None) -> PutReceipt:
            try:
                return self.store.complete_upload(
                    self.key, upload_id, receipts, checksum=checksum, size=upload.size, condition=condition
                )
            except PreconditionFailedError as error:
                refusals.append(error)
                raise

        try:
            expected = expected_blob(upload, self.checkpoint.mark)
            receipt = self.commit(COMPLETE, call, upload, base, expected)
            written = replace(expected, answered=receipt.etag)
            if base != upload.base and (hidden := written.difference(self.store, look(self.store, self.key))):
                raise SupersededError(f"{self.key}: a later blob hides the one that was written: {hidden}")
        except UploadNotFoundError as error:
            saved = self.checkpoint.load()
            assert saved is not None, "it was completing"
            return self.resolve_vanished(replace(upload, state=saved.state, base=base), error)
        if refusals:  # the look may have found a blob that an earlier call made; an upload that is still open must go
            abort_upload(self.store, self.key, upload_id)
        self.checkpoint.completed(receipt.etag, receipt.version_id, is_recognised=self.is_recognised())
        return True

    def commit(
        self, verb: CommitVerb, call: CommitCall, upload: SavedUpload, base: VisibleVersion, expected: Expected
    ) -> PutReceipt:
        """Make a commit call under the target's conditions. Raises BlobExistsError, and as ``commit`` does.

        Args:
            verb: what kind of call it is.
            call: makes it.
            upload: as it was saved before this run's first call.
            base: the version that readers see now.
            expected: the blob that readers are to see.
        """
        try:
            return commit(
                self.store,
                self.key,
                verb,
                call,
                base=base,
                expected=expected,
                checkpoint=self.checkpoint,
                stop=self.stop,
                is_ambiguous=upload.state == UploadState.COMPLETING,
                is_last_writer=self.replaces_anything,
            )
        except SupersededError as error:
            if self.overwrite:
                raise
            raise BlobExistsError(f"{self.key}: a blob appeared there, and overwrite is off") from error

    def resolve_vanished(self, upload: SavedUpload, error: UploadNotFoundError) -> bool:
        """Handle a missing upload: True if its blob is visible; otherwise abandon it and return False (begin again).

        Raises OutcomeUnknownError if the blob may have been visible and then deleted.
        """
        if upload.state == UploadState.COMPLETING and resolve_commit(self.store, self.key, upload, self.checkpoint):
            return True  # an earlier call took effect between the last look and now
        if upload.state == UploadState.COMPLETING and upload.base.is_absent and not self._has_expired(upload):
            raise OutcomeUnknownError(
                f"{self.key}: the upload is gone and no blob is there; it may have been completed and then deleted, "
                "so it was not sent again"
            ) from error
        logger.warning("upload is gone, beginning again from byte 0", extra={"key": self.key})
        self.checkpoint.abandon(gone=True)
        return False

    def _has_expired(self, upload: SavedUpload) -> bool:
        """True if a lifecycle rule of the bucket explains that the upload is gone."""
        if not isinstance(self.store, HasLifecycle):
            return False
        try:
            lifetime = self.store.upload_lifetime(self.key)
        except StoreError:  # the rules cannot be read
            return False
        return lifetime is not None and self.checkpoint.now() - upload.opened_at >= lifetime

    def abort_lost_uploads(self, upload: SavedUpload) -> None:
        """Abort uploads that a run opened and whose id it did not live to save; they have no parts and no row."""
        if self.is_last_writer:  # a plain call, whose ids no row has
            lost = lost_upload_of_call(self.store, upload)
        else:
            lost = lost_uploads(self.store, upload, lambda: self.checkpoint.known_upload_ids(self.key))
        for upload_id in lost:
            abort_upload(self.store, self.key, upload_id)
