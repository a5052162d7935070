"""The second half of a move: the source goes once its copy has been seen, if it is still what was copied."""

import time
from collections.abc import Mapping
from typing import Any, Final

from blobferry.checks.arguments import MARK_NAME
from worker.errors import (
    DeleteIncompleteError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionFailedError,
    SourceChangedError,
    StoreError,
)
from worker.stores.store import Store
from worker.transfer.sources.blob_source import version_of
from worker.transfer.stop import Interrupted, Stop, never
from worker.transfer.visible import look

TRIES: Final = 3
PAUSE: Final = 0.5  #: seconds before the second try, doubling


def delete_unchanged(
    store: Store, key: str, version: Mapping[str, Any], path: str, *, mark: str = "", stop: Stop = never
) -> None:
    """Delete exactly this key, if the blob there is the ``version`` that was copied; one that is gone is as good.

    A blob that carries the copy's own ``mark`` is the copy: source and destination are one, and it stays. Safe to
    repeat. Raises SourceChangedError if another blob is there, which stays; Interrupted before a call; StoreError.
    """
    is_conditional, failures = True, 0
    while (head := look(store, key)) is not None:
        if mark and head.metadata.get(MARK_NAME) == mark:
            return
        if (now := version_of(head)) != version:
            raise SourceChangedError(f"{path}: changed since it was copied: {dict(version)} is {now} now")
        if stop():
            raise Interrupted
        try:
            _delete(store, key, head.etag if is_conditional else None, path)
            return
        except PreconditionFailedError:
            if not is_conditional:
                raise
            is_conditional = False  # some stores compare with an ETag that they show to nobody: the next look tells
        except StoreError as error:
            failures += 1
            if not error.transient or failures == TRIES:
                raise
            time.sleep(PAUSE * 2 ** (failures - 1))  # the answer may have been lost: look again


def _delete(store: Store, key: str, etag: str | None, path: str) -> None:
    try:
        failures = store.delete_batch([key], if_match=etag)
    except NotSupportedError:  # the look right before narrows the window
        failures = store.delete_batch([key])
    for failure in failures:
        if failure.code == "AccessDenied":
            raise PermissionDeniedError(f"{store.name}: cannot delete {path}: {failure.code}: {failure.message}")
        raise DeleteIncompleteError(path, [[path, failure.code]], store.name)
