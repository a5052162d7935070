"""The second half of a move: the source goes once its copy has been seen, if it is still what was copied."""

import time
from typing import Final

from worker.errors import (
    DeleteIncompleteError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionFailedError,
    SourceChangedError,
    StoreError,
)
from worker.stores.store import Store
from worker.transfer.visible import look

TRIES: Final = 3
PAUSE: Final = 0.5  #: seconds before the second try, doubling


def delete_unchanged(store: Store, key: str, etag: str, path: str) -> None:
    """Delete exactly this key, if the blob there has the ETag; one that is gone is as good.

    Safe to repeat. Raises SourceChangedError if another blob is there, which stays; StoreError.
    """
    is_conditional, failures = True, 0
    while (head := look(store, key)) is not None:
        if head.etag != etag:
            raise SourceChangedError(f"{path}: changed since it was copied: it had the ETag {etag}, it has {head.etag}")
        try:
            return _delete(store, key, etag if is_conditional else None, path)
        except PreconditionFailedError:
            if not is_conditional:
                raise
            is_conditional = False  # some stores compare with an ETag that they show to nobody: the next look tells
        except StoreError as error:
            failures += 1
            if not error.transient or failures == TRIES:
                raise
            time.sleep(PAUSE * 2 ** (failures - 1))  # the answer may have been lost: look again
    return None


def _delete(store: Store, key: str, etag: str | None, path: str) -> None:
    try:
        failures = store.delete_batch([key], if_match=etag)
    except NotSupportedError:  # the look right before narrows the window
        failures = store.delete_batch([key])
    for failure in failures:
        if failure.code == "AccessDenied":
            raise PermissionDeniedError(f"{store.name}: cannot delete {path}: {failure.code}: {failure.message}")
        raise DeleteIncompleteError(path, [[path, failure.code]], store.name)
