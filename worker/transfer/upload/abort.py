"""Aborting uploads for good: a part that was in flight may land after the abort, and is billed until the next one."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from worker.errors import (
    NotSupportedError,
    PermissionDeniedError,
    StoreError,
    StoreUnavailableError,
    UploadNotFoundError,
)
from worker.stores.store import Store
from worker.transfer.checkpoint import MemoryCheckpoint, SavedUpload

logger = logging.getLogger(__name__)

CLOCK_TOLERANCE: Final = timedelta(minutes=15)  #: between the store's clock and the checkpoint's

NOW: Final = timedelta(seconds=30)  #: the same within one call
ROUNDS: Final = 10  #: of abort and look


def abort_upload(store: Store, key: str, upload_id: str) -> None:
    """Abort until the store shows no parts. Safe to repeat. Raises StoreError; UploadNotFoundError counts as done.

    Source: S3 API reference, "AbortMultipartUpload".
    """
    for _ in range(ROUNDS):
        try:
            store.abort_upload(key, upload_id)
            if not _has_parts(store, key, upload_id):
                return
        except UploadNotFoundError:
            return
    raise StoreUnavailableError(f"{key}: upload still has parts after {ROUNDS} aborts")


def _has_parts(store: Store, key: str, upload_id: str) -> bool:
    try:
        return any(True for _ in store.list_parts(key, upload_id))
    except PermissionDeniedError as error:
        logger.warning("an aborted upload cannot be looked at", extra={"key": key, "reason": str(error)})
        return False


def lost_uploads(
    store: Store, upload: SavedUpload, known_ids: Callable[[], set[str]], *, tolerance: timedelta = CLOCK_TOLERANCE
) -> list[str]:
    """Ids of uploads that this one, whose id was never written down, may have been given.

    Only those at its very key, opened about then, without a row and without a part: no part is ever sent before
    the id is written down, so anything else is another program's. Where the store cannot or may not list uploads, the
    bucket's lifecycle rule is what is left.
    """
    try:
        near = [
            entry.upload_id
            for entry in store.list_uploads(upload.key)
            if entry.key == upload.key and abs(entry.opened_at - upload.opened_at) <= tolerance
        ]
    except (NotSupportedError, PermissionDeniedError) as error:
        logger.warning("uploads cannot be listed", extra={"key": upload.key, "reason": str(error)})
        return []
    known = known_ids()  # asked after the store, so that no row is younger than the listing
    return [upload_id for upload_id in near if upload_id not in known and _is_empty(store, upload.key, upload_id)]


def lost_upload(store: Store, upload: SavedUpload) -> list[str]:
    """The same where nobody writes ids down: only one that can be no other, opened since ours was about to be."""
    found = lost_uploads(store, upload, set, tolerance=NOW)
    return found if len(found) == 1 else []


def _is_empty(store: Store, key: str, upload_id: str) -> bool:
    try:
        return not any(True for _ in store.list_parts(key, upload_id))
    except UploadNotFoundError:
        return False


@contextmanager
def aborting_leftovers(store: Store, mark: str = "") -> Iterator[MemoryCheckpoint]:
    """A checkpoint for one call, whose uploads are aborted at its end unless they were completed."""
    checkpoint = MemoryCheckpoint(mark)
    try:
        yield checkpoint
    finally:
        for upload in checkpoint.unfinished():
            try:
                for upload_id in [upload.upload_id] if upload.upload_id else lost_upload(store, upload):
                    abort_upload(store, upload.key, upload_id)
            except StoreError as error:  # must not hide the error that brought us here
                logger.warning("upload not aborted", extra={"key": upload.key, "reason": str(error)})
