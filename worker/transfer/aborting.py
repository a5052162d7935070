"""Aborting an upload for good: a part that was in flight may land after the abort, and is billed until the next one."""

from typing import Final

from worker.errors import StoreUnavailableError, UploadNotFoundError
from worker.stores.store import Store

ROUNDS: Final = 10  #: of abort and look


def abort_upload(store: Store, key: str, upload_id: str) -> None:
    """Abort until the store shows no parts. Safe to repeat. Raises StoreError; UploadNotFoundError counts as done.

    Source: S3 API reference, "AbortMultipartUpload".
    """
    for _ in range(ROUNDS):
        try:
            store.abort_upload(key, upload_id)
            if not any(True for _ in store.list_parts(key, upload_id)):
                return
        except UploadNotFoundError:
            return
    raise StoreUnavailableError(f"{key}: upload still has parts after {ROUNDS} aborts")
