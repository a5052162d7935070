"""Deletes the source of a move, if it is still the version that was copied."""

import time
from collections.abc import Mapping
from typing import Any, Final

from blobferry.checks.arguments import MARK_NAME
from worker.errors import (
    DeleteIncompleteError,
    PermissionDeniedError,
    SourceChangedError,
    StoreError,
)
from worker.stores.capabilities import Capability
from worker.stores.store import Store
from worker.transfer.probe import ABOUT_CONDITION, holds
from worker.transfer.sources.blob_source import version_of
from worker.transfer.stop import Interrupted, Stop, never
from worker.transfer.visible import look

TRIES: Final = 3
PAUSE: Final = 0.5  #: seconds before the second try, doubling


def delete_unchanged(
    store: Store, key: str, version: Mapping[str, Any], path: str, *, mark: str = "", stop: Stop = never
) -> None:
    """Delete exactly this key, if its blob is the ``version`` that was copied. A missing blob counts as deleted.

    It is deleted once a look shows that: an answer of success may come although the blob is there, such as that of
    Swift to the DELETE of a blob in parts whose own object it could not delete.

    Safe to repeat. Call it only once the copy has been seen.

    Args:
        store: of the source.
        key: of the source.
        version: what :func:`~worker.transfer.sources.blob_source.version_of` said of the blob that was copied.
        path: of the source, for messages.
        mark: of the copy. A blob that carries it is the copy itself, because source and destination are one place
            under two names; it stays.
        stop: asked before each delete.

    Raises:
        SourceChangedError: another blob is there; it stays.
        Interrupted: ``stop`` was true; nothing was deleted.
        StoreError: the blob may or may not be deleted.
    """
    failures = 0
    while (head := look(store, key)) is not None:
        if mark and head.metadata.get(MARK_NAME) == mark:
            return
        if (now := version_of(head)) != version:
            raise SourceChangedError(f"{path}: changed since it was copied: it was {dict(version)} and is {now} now")
        if stop():
            raise Interrupted
        is_conditional = store.capabilities.has(Capability.DELETE_IF_MATCH)
        try:
            _delete(store, key, head.etag if is_conditional else None, path)
            left = look(store, key)
            if left is None or version_of(left) != version:  # another blob that has come since is not ours to delete
                return
            raise DeleteIncompleteError(path, [[path, "ServiceUnavailable"]], store.name)
        except ABOUT_CONDITION:
            if not is_conditional or holds(store, Capability.DELETE_IF_MATCH):
                failures += 1
                if failures == TRIES:
                    raise
            # Otherwise the look right before the next try keeps the unguarded moment short.
        except StoreError as error:
            failures += 1
            if not error.transient or failures == TRIES:
                raise
            # The delete may have worked and only its answer was lost: look again.
            time.sleep(PAUSE * 2 ** (failures - 1))


def _delete(store: Store, key: str, etag: str | None, path: str) -> None:
    for failure in store.delete_batch([key], if_match=etag):
        if failure.code == "AccessDenied":
            raise PermissionDeniedError(f"{store.name}: cannot delete {path}: {failure.code}: {failure.message}")
        raise DeleteIncompleteError(path, [[path, failure.code]], store.name)
