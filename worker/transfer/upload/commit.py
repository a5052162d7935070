"""Commit calls: what readers see changes here and nowhere else.

Before each call the checkpoint says that it is about to happen and what is visible now; the call carries that as a
condition. After any odd answer the store is looked at, because an error may hide a success.
"""

import logging
import time
from collections.abc import Callable
from typing import Final

from worker.errors import (
    KeyNotFoundError,
    NotSupportedError,
    PreconditionFailedError,
    StoreError,
    SupersededError,
    WriteConflictError,
)
from worker.stores.blob_values import Condition, PutReceipt
from worker.stores.store import Store
from worker.transfer.checkpoint import Checkpoint, VisibleVersion
from worker.transfer.stop import Interrupted, Stop
from worker.transfer.visible import Expected, look

logger = logging.getLogger(__name__)

TRIES: Final = 3  #: of one commit call within a run; then the job's own retries take over
#: Refusals of a condition that holds, as a look shows, before the store is taken for one that does not understand it.
MAX_REFUSED: Final = 2
#: Certain answers: the call had no effect, and may be made on top of what is there. S3 says "no such key" of a copy
#: whose destination is gone.
NO_EFFECT: Final = (PreconditionFailedError, WriteConflictError, KeyNotFoundError)
MAX_REPLACED: Final = 100  #: replacements by others that a last writer puts up with
PAUSE: Final = 0.5  #: seconds before the second try, doubling

Call = Callable[[Condition | None], PutReceipt]


def commit(
    store: Store,
    key: str,
    call: Call,
    *,
    base: VisibleVersion,
    expected: Expected,
    checkpoint: Checkpoint,
    stop: Stop,
    is_last_writer: bool = False,
    may_drop_condition: bool = True,
    sleep: Callable[[float], None] = time.sleep,
) -> PutReceipt:
    """Make the call under the condition that readers still see ``base``, and settle whatever it answers by looking.

    Safe to repeat: if our blob is visible already, nothing is sent. Raises SupersededError if another blob has
    appeared, unless ``is_last_writer``: that is then replaced; Interrupted before the call; the store's own error if
    it had no effect. A store that refuses a condition which holds is called without it if ``may_drop_condition``.
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
                logger.info("commit call had worked after all", extra={"key": key, "error": error.code})
                return committed
            if is_refused and may_drop_condition and refused < MAX_REFUSED:
                refused += 1
                continue
            failures += 1
            if failures == TRIES or not error.transient:
                raise
            sleep(PAUSE * 2 ** (failures - 1))


def _completed(store: Store, key: str, receipt: PutReceipt, expected: Expected) -> PutReceipt:
    """The receipt with the ETag that the store left out, if readers see our blob."""
    head = look(store, key)
    is_ours = head is not None and expected.difference(head) is None
    return PutReceipt(head.etag, receipt.version_id or head.version_id) if head and is_ours else receipt


def _conditionally(call: Call, base: VisibleVersion) -> PutReceipt:
    condition = Condition(if_none_match=True) if base.is_absent else Condition(if_match=base.etag)
    try:
        return call(condition)
    except NotSupportedError:
        # The store knows no such condition and has done nothing; `look` right before narrows the window.
        return call(None)


def was_committed(store: Store, key: str, *, base: VisibleVersion, expected: Expected) -> PutReceipt | None:
    """Look whether a commit call has worked; None if readers still see ``base``, so that it may be repeated.

    ``base`` is compared first: a blob with our very bytes that was there before is not yet ours. Raises
    SupersededError if readers see something else.
    """
    head = look(store, key)
    if VisibleVersion.of(head) == base:
        return None
    if head is None or expected.difference(head) is not None:
        raise SupersededError(
            f"{key}: the path changed meanwhile, so nothing was sent again: {expected.difference(head)}"
        )
    return PutReceipt(head.etag, head.version_id)
