"""Commit calls: the only calls that change what readers see, and how a lost answer is resolved.

Before each call the checkpoint saves that it is about to happen and which version is visible; the call carries that
version as its condition. After any error we look at the key, because an error may hide a success. No layer below
repeats a commit call.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from blobferry.contract import UploadState
from worker.errors import (
    BlobExistsError,
    ConfigurationError,
    KeyNotFoundError,
    PreconditionFailedError,
    StoreError,
    StoreUnavailableError,
    SupersededError,
    UploadNotFoundError,
    WriteConflictError,
)
from worker.stores.blob_values import Condition, PutReceipt
from worker.stores.capabilities import Capability
from worker.stores.checksums import join_checksums, multipart_etag
from worker.stores.store import Store
from worker.transfer.checkpoint import Checkpoint, SavedUpload, VisibleVersion
from worker.transfer.probe import ABOUT_CONDITION, holds
from worker.transfer.stop import Interrupted
from worker.transfer.upload.target import Target
from worker.transfer.visible import Expected, look

logger = logging.getLogger(__name__)

MAX_TRIES: Final = 3  #: tries of one commit call within a run; after them, the job's retries
#: Errors after which the call certainly had no effect, so that it may be made again over the blob that is there now.
#: S3 answers "no such key" to a conditional copy whose destination is gone.
NO_EFFECT: Final = (PreconditionFailedError, WriteConflictError, KeyNotFoundError)
MAX_REPLACED: Final = 100  #: replacements by other writers after which a last writer gives up
PAUSE: Final = 0.5  #: seconds before the second try, doubling

CommitCall = Callable[[Condition | None], PutReceipt]


@dataclass(frozen=True, slots=True)
class CommitVerb:
    """A verb of the store that makes a blob visible, by the capabilities that its conditions need."""

    if_match: Capability
    if_none_match: Capability


PUT: Final = CommitVerb(Capability.PUT_IF_MATCH, Capability.PUT_IF_NONE_MATCH)
COPY: Final = CommitVerb(Capability.COPY_IF_MATCH, Capability.COPY_IF_NONE_MATCH)
COMPLETE: Final = CommitVerb(Capability.COMPLETE_IF_MATCH, Capability.COMPLETE_IF_NONE_MATCH)


def commit(
    target: Target,
    verb: CommitVerb,
    call: CommitCall,
    *,
    base: VisibleVersion,
    expected: Expected,
    is_ambiguous: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> PutReceipt:
    """Make the call on the condition that readers still see ``base``; after an error, look at the key.

    A condition is left out only if a probe shows that the store does not have it, never because a race was lost.
    Raises SupersededError or BlobExistsError if another blob has appeared, Interrupted before the call, and the store's
    own error if the call had no effect. If the store has refused every call for certain, the point of no return is not
    passed.

    Args:
        target: the key that the call changes; its checkpoint saves the point of no return before each call.
        verb: what kind of call it is.
        call: makes the call with a condition; None for no condition.
        base: the version that readers see right before.
        expected: identifies our blob.
        is_ambiguous: whether a call of an earlier run may have had an effect.
        sleep: waits between two tries, in seconds.
    """
    commitment = _Commitment(target, verb, call, expected, is_ambiguous, sleep)
    try:
        return commitment.run(base)
    except (StoreError, SupersededError) as error:
        if not commitment.is_ambiguous:
            target.checkpoint.refused()
        if isinstance(error, StoreError) or target.overwrite:
            raise
        raise BlobExistsError(f"{target.key}: a blob appeared there, and overwrite is off") from error


@dataclass(slots=True)
class _Commitment:
    """The tries of one commit call."""

    target: Target
    verb: CommitVerb
    call: CommitCall
    expected: Expected
    is_ambiguous: bool  #: whether a call may have had an effect
    sleep: Callable[[float], None]
    failures: int = field(default=0, init=False)
    replaced: int = field(default=0, init=False)
    was_refused: bool = field(default=False, init=False)  #: whether a call certainly had no effect

    def run(self, base: VisibleVersion) -> PutReceipt:
        target = self.target
        while True:
            if target.stop():
                raise Interrupted
            target.checkpoint.completing(base)
            try:
                return self._try(base)
            except StoreError as error:
                self._judge(error)
                lacks_condition = self._lacks_condition(base, error)  # before the look: a probe takes seconds
                try:
                    committed = was_committed(
                        target.store, target.key, base=base, expected=self.expected, by_bytes=self.is_ambiguous
                    )
                except SupersededError:
                    if not self._may_replace(error):
                        raise
                    base = VisibleVersion.of(look(target.store, target.key))
                    continue
                if committed:
                    logger.info(
                        "commit call failed but had taken effect", extra={"key": target.key, "error": error.code}
                    )
                    return committed
                if not lacks_condition:
                    self._prepare_next(error)

    def _try(self, base: VisibleVersion) -> PutReceipt:
        capability = self._capability(base)
        condition = Condition(if_none_match=True) if base.is_absent else Condition(if_match=base.etag)
        # Without the condition, the look right before keeps the unguarded moment short.
        store, key = self.target.store, self.target.key
        receipt = self.call(condition if store.capabilities.has(capability) else None)
        if not receipt.etag:  # an empty answer, or the page of a proxy
            raise StoreUnavailableError(f"{store.name}: the answer to the commit of {key!r} has no ETag")
        return receipt

    def _capability(self, base: VisibleVersion) -> Capability:
        return self.verb.if_none_match if base.is_absent else self.verb.if_match

    def _judge(self, error: StoreError) -> None:
        """Note whether the answer leaves open what the call has done.

        A missing upload does, unless a refusal explains it: S3 may drop an upload whose completion met a conflict.
        """
        is_refusal = isinstance(error, WriteConflictError) or not error.transient
        if isinstance(error, UploadNotFoundError):
            is_refusal = self.was_refused
        self.was_refused = self.was_refused or is_refusal
        self.is_ambiguous = self.is_ambiguous or not is_refusal

    def _may_replace(self, error: StoreError) -> bool:
        """Whether a blob that has appeared in between is to be replaced next."""
        self.replaced += 1
        return self.target.replaces_anything and isinstance(error, NO_EFFECT) and self.replaced < MAX_REPLACED

    def _lacks_condition(self, base: VisibleVersion, error: StoreError) -> bool:
        """Whether the store turns out not to have the condition that it has refused."""
        capability, store = self._capability(base), self.target.store
        may_lack = isinstance(error, ABOUT_CONDITION) and store.capabilities.has(capability)
        return may_lack and not holds(store, capability)

    def _prepare_next(self, error: StoreError) -> None:
        """Return if the call is to be made again, since readers still see the base. Raises the error otherwise."""
        if isinstance(error, PreconditionFailedError):  # another writer was here, and is gone again
            error = WriteConflictError(f"{error}: although nothing has changed there")
        self.failures += 1
        pause = PAUSE * 2 ** (self.failures - 1)
        asks_to_wait = error.retry_after is not None and error.retry_after > pause  # longer than a slot should be held
        if self.failures == MAX_TRIES or not error.transient or asks_to_wait:
            raise error
        self.sleep(pause)


def was_committed(
    store: Store, key: str, *, base: VisibleVersion, expected: Expected, by_bytes: bool = True
) -> PutReceipt | None:
    """Look whether a commit call took effect: its receipt, or None if readers still see ``base`` (repeat the call).

    ``base`` is compared first, because a blob with the same bytes that was there before is not ours. ``by_bytes``: as
    for :meth:`~worker.transfer.visible.Expected.difference`. Raises SupersededError if readers see neither.
    """
    head = look(store, key)
    if VisibleVersion.of(head) == base:
        return None
    difference = expected.difference(store, head, by_bytes=by_bytes)
    if head is None or difference is not None:
        raise SupersededError(f"{key}: changed during the transfer, so nothing was sent again: {difference}")
    return PutReceipt(head.etag, head.version_id)


def resolve_commit(store: Store, key: str, checkpoint: Checkpoint, upload: SavedUpload | None = None) -> bool:
    """Whether readers see the blob that an earlier run began to commit; if so, the checkpoint is completed.

    Needs no source, which may be gone by now. Raises SupersededError if readers see neither our blob nor its base;
    ConfigurationError, StoreError.

    Args:
        store: of the key.
        key: that of the blob.
        checkpoint: of the transfer.
        upload: as it was saved; None: as it is saved now.
    """
    upload = upload or checkpoint.load()
    if upload is None or upload.state not in (UploadState.COMPLETING, UploadState.COMPLETED):
        return False
    refuse_other_key(upload, key)
    if upload.state == UploadState.COMPLETED:
        return True
    receipt = was_committed(store, key, base=upload.base, expected=expected_blob(upload, checkpoint.mark))
    if receipt:
        checkpoint.completed(receipt.etag, receipt.version_id)
    return receipt is not None


def refuse_other_key(upload: SavedUpload, key: str) -> None:
    """Raise ConfigurationError if the path leads to another key now: a look there proves nothing about the upload."""
    if upload.key != key:
        problem = f"this job's upload is at key {upload.key!r}, but its path now leads to {key!r}"
        raise ConfigurationError("rootdirectory", problem)


def expected_blob(upload: SavedUpload, mark: str, *etags: str | None) -> Expected:
    """Return what identifies the upload's blob once visible; ``etags`` are ETags that it may get."""
    parts = [part for _, part in sorted(upload.parts.items())]
    checksum = join_checksums((part.checksum, part.size) for part in parts)
    known = (*etags, multipart_etag(part.etag for part in parts))
    own = frozenset(etag.strip('"') for etag in known if etag)
    return Expected(upload.size, mark, checksum, own, upload.etag)
