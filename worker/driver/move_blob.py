"""Moves a blob: copies it, looks at the copy, then deletes the source."""

from dataclasses import replace
from uuid import uuid4

from blobferry.checks.arguments import MARK_NAME
from worker.driver.delete_moved import delete_unchanged
from worker.driver.storage import Storage
from worker.errors import (
    DeleteIncompleteError,
    PermissionDeniedError,
    SourceChangedError,
    StoreError,
    VerificationError,
)
from worker.stores.blob_values import BlobHead
from worker.transfer.checkpoint import MemoryCheckpoint
from worker.transfer.sources.blob_source import BlobSource, version_of
from worker.transfer.sources.patience import Patience
from worker.transfer.stop import never
from worker.transfer.upload.abort import call_checkpoint
from worker.transfer.upload.commit import expected_blob
from worker.transfer.upload.server_copy import CopiedPrefix
from worker.transfer.upload.target import Target


def move_blob(source: Storage, source_path: str, dest: Storage, dest_path: str, *, overwrite: bool) -> None:
    """The whole move within one call.

    Args:
        source: storage of the blob.
        source_path: of the blob.
        dest: storage that the blob is moved to; may be ``source``.
        dest_path: where the blob is moved to.
        overwrite: False: raise BlobExistsError if a blob is there.
    """
    source.key(source_path)  # checked before the destination's
    # Two storages may be one bucket under two names. Then the blob at the source is the copy itself: its mark shows it.
    mark = uuid4().hex if dest.store is not source.store and source.key(source_path) == dest.key(dest_path) else ""
    with call_checkpoint(dest.store, mark) as checkpoint:
        moved = copy_blob(source, source_path, dest, dest.target(dest_path, checkpoint, never, overwrite=overwrite))
        if moved is None:
            return
        try:
            _verify(dest, dest_path, checkpoint)
            delete_unchanged(source.store, source.key(source_path), version_of(moved), source_path, mark=mark)
        except (StoreError, SourceChangedError) as error:
            if isinstance(error, DeleteIncompleteError):
                raise
            raise type(error)(f"{error} (copied to {dest_path}, not deleted at {source_path})") from error


def copy_blob(source: Storage, path: str, dest: Storage, target: Target) -> BlobHead | None:
    """Copy the blob at ``path`` of ``source`` to a target in ``dest``. Returns the version copied.

    None, and nothing is copied, if both are one key of one bucket. Within a store, the store copies the bytes and all
    options; to another one the bytes are streamed. Raises PathNotFoundError, SourceChangedError, and
    PermissionDeniedError for a blob that is locked.
    """
    head = source.head(path)
    if (source.store.identity, head.key) == (dest.store.identity, target.key):
        return None
    _refuse_locked(source, path, head)
    is_server_side = dest.store is source.store
    prefix = CopiedPrefix.of(head) if is_server_side else None
    with source.not_found(path):
        # A copy in one call keeps the tags without our reading them.
        in_one_call = prefix is not None and source.copying.is_one_call(prefix, target)
        if not in_one_call or target.checkpoint.mark:
            options = source.store.options_of(head.key, with_tags=not in_one_call).without(MARK_NAME)
            is_one_bucket = source.store.identity == dest.store.identity
            target = replace(target, options=options if is_one_bucket else options.elsewhere())
    blob = BlobSource(source.store, head.key, path, head=head, patience=Patience.of_run(target.stop))
    dest.engine.write(target, blob, prefix=prefix, copying=source.copying)
    return head


def _refuse_locked(source: Storage, path: str, head: BlobHead) -> None:
    """Refuse to move a blob that must not be deleted: its copy would not be locked, and readers would not miss it."""
    if head.locked:
        raise PermissionDeniedError(
            f"{source.store.name}: {path}: is under {head.locked}, and a moved blob would not be: release it first"
        )


def _verify(dest: Storage, path: str, checkpoint: MemoryCheckpoint) -> None:
    upload = checkpoint.load()
    assert upload is not None, "it has just been completed"
    difference = expected_blob(upload, checkpoint.mark).difference(dest.store, dest.look(path))
    if difference is not None:
        raise VerificationError(f"{dest.store.name}: {path}: the copy is not visible: {difference}")
