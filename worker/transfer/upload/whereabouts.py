"""Asks a store for an upload that was opened under another name of it, or in another store."""

from blobferry.contract import UploadState
from worker.errors import NotSupportedError, PermissionDeniedError, SupersededError, UploadNotFoundError
from worker.stores.store import Store
from worker.transfer.checkpoint import SavedUpload, VisibleVersion
from worker.transfer.upload.commit import expected_blob
from worker.transfer.visible import look


def has_upload(store: Store, key: str, upload_id: str) -> bool:
    """Whether the store holds the upload. If it may not be asked, True: whoever goes on with it finds out."""
    try:
        any(True for _ in store.list_parts(key, upload_id))
    except UploadNotFoundError:
        return False
    except (NotSupportedError, PermissionDeniedError):
        return True
    return True


def is_found(store: Store, upload: SavedUpload, mark: str) -> bool:
    """Whether the store holds the upload, or shows the blob that it has become. Raises StoreError.

    Raises SupersededError if the upload may have become a blob and another one is there: the job must not replace it.
    """
    if upload.state in (UploadState.COMPLETING, UploadState.COMPLETED):
        head = look(store, upload.key)
        difference = expected_blob(upload, mark).difference(store, head)
        if difference is None:
            return True
        if head is not None and VisibleVersion.of(head) != upload.base:
            raise SupersededError(f"{upload.key}: changed during the transfer, so nothing was sent again: {difference}")
    may_be_open = upload.upload_id is not None and upload.state != UploadState.COMPLETED
    return may_be_open and has_upload(store, upload.key, upload.upload_id or "")
