"""Aborts uploads for good: a part in flight may land after an abort, and is billed until the next abort."""

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
CALL_TOLERANCE: Final = timedelta(seconds=30)  #: between the two clocks within one call
ROUNDS: Final = 10  #: aborts, each followed by a look at the parts


def abort_upload(store: Store, key: str, upload_id: str) -> None:
    """Abort until the store lists no parts. Safe to repeat: a missing upload is no error. Raises StoreError.

    Source: S3 API reference, "AbortMultipartUpload".
    """
    for _ in range(ROUNDS):
        try:
            store.abort_upload(key, upload_id)
            if not _has_parts(store, key, upload_id):
                return
        except UploadNotFoundError:
            return
    raise StoreUnavailableError(f"{key}: the upload still has parts after {ROUNDS} aborts")


def _has_parts(store: Store, key: str, upload_id: str) -> bool:
    try:
        return any(True for _ in store.list_parts(key, upload_id))
    except PermissionDeniedError as error:
        logger.warning("the parts of an aborted upload cannot be listed", extra={"key": key, "reason": str(error)})
        return False


def lost_uploads(
    store: Store, upload: SavedUpload, known_ids: Callable[[], set[str]], *, tolerance: timedelta = CLOCK_TOLERANCE
) -> list[str]:
    """Return the ids that an upload may have whose own id was never saved.

    Candidates are at its very key, were opened at about its time, and have neither a row nor a part: parts are sent
    only after the id is saved, so any other upload belongs to another program. If the store cannot or may not list
    uploads, only the bucket's lifecycle rule removes them.

    Args:
        known_ids: returns the ids that rows have.
        tolerance: difference between the clocks of store and checkpoint.
    """
    try:
        near = [
            entry.upload_id
            for entry in store.list_uploads(upload.key)
            if entry.key == upload.key
            and entry.opened_at is not None  # otherwise it may be anybody's
            and abs(entry.opened_at - upload.opened_at) <= tolerance
        ]
    except (NotSupportedError, PermissionDeniedError) as error:
        logger.warning("uploads cannot be listed", extra={"key": upload.key, "reason": str(error)})
        return []
    known = known_ids()  # after the listing, so that each listed upload of another run has its row by now
    return [upload_id for upload_id in near if upload_id not in known and _is_empty(store, upload.key, upload_id)]


def lost_upload_of_call(store: Store, upload: SavedUpload) -> list[str]:
    """For plain calls, whose ids no row has: the only upload at the key opened since ours began; none if several."""
    found = lost_uploads(store, upload, set, tolerance=CALL_TOLERANCE)
    return found if len(found) == 1 else []


def _is_empty(store: Store, key: str, upload_id: str) -> bool:
    try:
        return not any(True for _ in store.list_parts(key, upload_id))
    except UploadNotFoundError:
        return False


@contextmanager
def call_checkpoint(store: Store, mark: str = "") -> Iterator[MemoryCheckpoint]:
    """Yield a checkpoint for one call, and abort its uploads in the end unless they were completed."""
    checkpoint = MemoryCheckpoint(mark)
    try:
        yield checkpoint
    finally:
        for upload in checkpoint.unfinished():
            try:
                for upload_id in [upload.upload_id] if upload.upload_id else lost_upload_of_call(store, upload):
                    abort_upload(store, upload.key, upload_id)
            except StoreError as error:  # must not hide the call's own error
                logger.warning("upload not aborted", extra={"key": upload.key, "reason": str(error)})
