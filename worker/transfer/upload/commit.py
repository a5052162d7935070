"""Commit calls: the only calls that change what readers see, and how a lost answer is resolved.

Before each call the checkpoint saves that it is about to happen and which version is visible; the call carries that
version as its condition. After any error we look at the key, because an error may hide a success.
"""

import logging
import time
from collections.abc import Callable
from typing import Final

from worker.errors import (
    ConfigurationError,
    KeyNotFoundError,
    NotSupportedError,
    PreconditionFailedError,
    StoreError,
    SupersededError,
    WriteConflictError,
)
from worker.stores.blob_values import Condition, PutReceipt
from worker.stores.checksums import join_checksums, multipart_etag
from worker.stores.store import Store
from worker.transfer.checkpoint import Checkpoint, SavedUpload, VisibleVersion
from worker.transfer.stop import Interrupted, Stop
from worker.transfer.visible import Expected, look

logger = logging.getLogger(__name__)

MAX_TRIES: Final = 3  #: tries of one commit call within a run; after them, the job's retries
#: After this many 412s although the condition holds, assume that the store mishandles conditions and drop it.
MAX_REFUSED: Final = 2
#: Errors after which the call certainly had no effect, so that it may be made again over the blob that is there now.
#: S3 answers "no such key" to a conditional copy whose destination is gone.
NO_EFFECT: Final = (PreconditionFailedError, WriteConflictError, KeyNotFoundError)
MAX_REPLACED: Final = 100  #: replacements by other writers after which a last writer gives up
PAUSE: Final = 0.5  #: seconds before the second try, doubling

CommitCall = Callable[[Condition | None], PutReceipt]


def commit(
    store: Store,
    key: str,
    call: CommitCall,
    *,
    base: VisibleVersion,
    expected: Expected,
    checkpoint: Checkpoint,
    stop: Stop,
    is_last_writer: bool = False,
    may_drop_condition: bool = True,
    sleep: Callable[[float], None] = time.sleep,
) -> PutReceipt:
    """Make the call on the condition that readers still see ``base``; after an error, look at the key.

    Raises SupersededError if another blob has appeared, Interrupted before the call, and the store's own error if the
    call had no effect.

    Args:
        key: the key that the call changes.
        call: makes the call with a condition; None for no condition.
        base: the version that readers see right before.
        expected: identifies our blob.
        checkpoint: saves the point of no return before each call.
        stop: called before each call.
        is_last_writer: replace a blob that appears in between, instead of raising SupersededError.
        may_drop_condition: drop the condition if the store refuses it although it holds.
        sleep: waits between two tries, in seconds.
    """
    failures = replaced = refused = 0
    while True:
        if stop():
            raise Interrupted
        checkpoint.completing(base)
        try:
            receipt = _conditionally(call, base) if refused < MAX_REFUSED else call(None)
            return receipt if receipt.etag else _completed(store, key, receipt, expected)
        except StoreError as error:
            is_refused = isinstance(error, PreconditionFailedError)
            try:
                committed = was_committed(store, key, base=base, expected=expected)
            except SupersededError:
                replaced += 1
                if not (is_last_writer and isinstance(error, NO_EFFECT)) or replaced == MAX_REPLACED:
                    raise
                base = VisibleVersion.of(look(store, key))
                continue
            if committed:
                logger.info("commit call failed but had taken effect", extra={"key": key, "error": error.code})
                return committed
            if is_refused and may_drop_condition and refused < MAX_REFUSED:
                refused += 1
                continue
            failures += 1
            if failures == MAX_TRIES or not error.transient:
                raise
            sleep(PAUSE * 2 ** (failures - 1))


def _completed(store: Store, key: str, receipt: PutReceipt, expected: Expected) -> PutReceipt:
    """Return the receipt; if it lacks an ETag and the visible blob is ours, with that blob's."""
    head = look(store, key)
    is_ours = head is not None and expected.difference(head) is None
    return PutReceipt(head.etag, receipt.version_id or head.version_id) if head and is_ours else receipt


def _conditionally(call: CommitCall, base: VisibleVersion) -> PutReceipt:
    condition = Condition(if_none_match=True) if base.is_absent else Condition(if_match=base.etag)
    try:
        return call(condition)
    except NotSupportedError:
        # The store lacks this condition and did nothing. The look right before keeps the unguarded moment short.
        return call(None)


def was_committed(store: Store, key: str, *, base: VisibleVersion, expected: Expected) -> PutReceipt | None:
    """Look whether a commit call took effect: its receipt, or None if readers still see ``base`` (repeat the call).

    ``base`` is compared first, because a blob with the same bytes that was there before is not ours. Raises
    SupersededError if readers see neither.
    """
    head = look(store, key)
    if VisibleVersion.of(head) == base:
        return None
    if head is None or expected.difference(head) is not None:
        raise SupersededError(
            f"{key}: changed during the transfer, so nothing was sent again: {expected.difference(head)}"
        )
    return PutReceipt(head.etag, head.version_id)


def resolve_commit(store: Store, key: str, upload: SavedUpload, checkpoint: Checkpoint) -> bool:
    """Look whether an earlier run's commit call took effect; if so, complete the checkpoint. Needs no source.

    Raises SupersededError if readers see neither our blob nor its base.
    """
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
    return Expected(upload.size, mark, checksum, frozenset(etag.strip('"') for etag in known if etag))
