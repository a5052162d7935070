"""Aborts uploads that no job needs any more, again and again until the store lists no part of them."""

import logging
from contextlib import suppress
from typing import Final

from blobferry.contract import UploadState
from models import UploadRow, queries
from models.queries import FILES
from worker.errors import BlobferryError, ConfigurationError, UnreachableError, WriteConflictError
from worker.runtime import Runtime
from worker.stores.store import Store
from worker.transfer.checkpoint import SavedUpload, VisibleVersion
from worker.transfer.download.destination import host_endpoint
from worker.transfer.download.partial_file import remove_partial
from worker.transfer.upload.abort import abort_upload, lost_uploads

logger = logging.getLogger(__name__)

BATCH: Final = 50  #: uploads handled by one sweep
PUT_OFF: Final = 60.0  #: seconds before a failed abort is tried again


def abort_given_up(runtime: Runtime) -> int:
    """Abort the uploads that are due; return how many. Safe to repeat, also concurrently.

    An upload that cannot be aborted now keeps its row for a later sweep. Does not raise if the database is away.
    """
    try:
        with runtime.database.begin() as session:
            uploads = queries.uploads_to_abort(session, limit=BATCH, files_of=host_endpoint())
    except UnreachableError as error:
        logger.warning("uploads to abort not read", extra={"reason": str(error)})
        return 0
    done = 0
    for upload in uploads:
        try:
            _abort(runtime, upload)
            done += 1
        except BlobferryError as error:
            _put_off(runtime, upload)
            logger.warning(
                "upload not aborted", extra={"job_id": upload.job_id, "key": upload.key, "reason": str(error)}
            )
    return done


def _abort(runtime: Runtime, upload: UploadRow) -> None:
    if upload.endpoint.startswith(FILES):
        _remove_partial(runtime, upload)
        return
    store = runtime.driver(upload.storage).store
    if (store.bucket, store.endpoint) != (upload.bucket, upload.endpoint):
        raise ConfigurationError(f"storages.{upload.storage}", f"no longer names bucket {upload.bucket!r}")
    opened = upload.part_size is not None  # otherwise a single put, which leaves nothing behind
    first_look = upload.state == UploadState.ABORTING
    if opened:
        for upload_id in [upload.upload_id] if upload.upload_id else _lost(runtime, store, upload):
            abort_upload(store, upload.key, upload_id)
    recheck = runtime.settings.retention.abort_recheck_seconds if opened and first_look else None
    with runtime.database.begin() as session:
        queries.upload_is_gone(session, upload.id, recheck_seconds=recheck)


def _remove_partial(runtime: Runtime, upload: UploadRow) -> None:
    """Remove a partial file of this host; only forget one whose host has not answered for days."""
    if upload.endpoint != host_endpoint():
        extra = {"job_id": upload.job_id, "host": upload.endpoint, "key": upload.key}
        logger.warning("partial file left behind: its host has gone", extra=extra)
    elif upload.upload_id:
        remove_partial(upload.key, upload.upload_id)
    with runtime.database.begin() as session:
        queries.upload_is_gone(session, upload.id, recheck_seconds=None)


def _lost(runtime: Runtime, store: Store, upload: UploadRow) -> list[str]:
    with runtime.database.begin() as session:
        if queries.is_being_opened(session, upload):
            raise WriteConflictError(f"{upload.key}: another upload to this key is being opened")

    def known_ids() -> set[str]:
        with runtime.database.begin() as session:
            return queries.known_upload_ids(session, upload.bucket, upload.endpoint, upload.key)

    saved = SavedUpload(upload.key, upload.size or 0, upload.part_size, VisibleVersion(), upload.opened_at)
    return lost_uploads(store, saved, known_ids)


def _put_off(runtime: Runtime, upload: UploadRow) -> None:
    with suppress(UnreachableError), runtime.database.begin() as session:
        queries.put_off_abort(session, upload.id, PUT_OFF)
