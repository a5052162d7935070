"""Aborts uploads that no job needs any more, repeatedly until the store lists no part of them."""

import logging
from contextlib import suppress
from typing import Final

from blobferry.contract import UploadState
from models import UploadRow, queries
from models.queries import FILES
from worker.errors import BlobferryError, ConfigurationError, UnreachableError, WriteConflictError
from worker.runtime import Runtime
from worker.transfer.checkpoint import SavedUpload, VisibleVersion
from worker.transfer.download.destination import host_endpoint
from worker.transfer.download.partial_file import remove_partial
from worker.transfer.upload.abort import abort_upload, lost_uploads
from worker.transfer.upload.whereabouts import has_upload

logger = logging.getLogger(__name__)

BATCH: Final = 50  #: uploads handled by one sweep
FOREIGN_BATCH: Final = 10  #: partial files of other hosts that one sweep looks for
PUT_OFF: Final = 60.0  #: seconds after which a failed abort is tried again


def abort_given_up(runtime: Runtime, *, also_elsewhere: bool = True) -> int:
    """Abort the uploads that are due; return how many were aborted. Safe to repeat, also concurrently.

    ``also_elsewhere``: look for partial files that were begun under another host's name, too.

    An upload that cannot be aborted now keeps its row for a later sweep. If the database is away, nothing is done.
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
        except Exception as error:  # also a bug, ours or a library's: it must not hold up the others for ever
            _put_off(runtime, upload)
            extra = {"job_id": upload.job_id, "key": upload.key, "reason": str(error)}
            known = isinstance(error, BlobferryError)
            logger.warning("upload not aborted, will be tried again", exc_info=not known, extra=extra)
    return done + _remove_foreign_partials(runtime) if also_elsewhere else done


def _remove_foreign_partials(runtime: Runtime) -> int:
    """Remove partial files that were begun under another host's name and are seen here; return how many."""
    try:
        with runtime.database.begin() as session:
            uploads = queries.partial_files_elsewhere(session, limit=FOREIGN_BATCH, files_of=host_endpoint())
    except UnreachableError:
        return 0
    done = 0
    for upload in uploads:
        with suppress(BlobferryError):  # not seen here after all, or not ours to remove: its own host may
            if upload.upload_id and remove_partial(upload.key, upload.upload_id):
                _record_gone(runtime, upload)
                done += 1
    return done


def _abort(runtime: Runtime, upload: UploadRow) -> None:
    if upload.endpoint.startswith(FILES):
        _remove_partial(runtime, upload)
        return
    is_multipart = upload.part_size is not None  # a single put leaves nothing behind
    if is_multipart:
        _refuse_other_place(runtime, upload)
        store = runtime.driver(upload.storage).store
        for upload_id in [upload.upload_id] if upload.upload_id else _lost(runtime, upload):
            abort_upload(store, upload.key, upload_id)
    is_first_abort = upload.state == UploadState.ABORTING
    recheck = runtime.settings.retention.abort_recheck_seconds if is_multipart and is_first_abort else None
    with runtime.database.begin() as session:
        queries.upload_is_gone(session, upload.id, recheck_seconds=recheck)


def _refuse_other_place(runtime: Runtime, upload: UploadRow) -> None:
    """Raise ConfigurationError unless the storage holds the upload, perhaps by another name than the row has."""
    store = runtime.driver(upload.storage).store
    if not upload.is_at(store):
        is_there = upload.upload_id is not None and has_upload(store, upload.key, upload.upload_id)
        if upload.bucket != store.bucket or not is_there:
            problem = (
                f"does not lead to bucket {upload.bucket!r} at {upload.endpoint or 'AWS'} any more, where an upload"
            )
            raise ConfigurationError(f"storages.{upload.storage}", f"{problem} has to be aborted")


def _remove_partial(runtime: Runtime, upload: UploadRow) -> None:
    """Remove a partial file of this host; drop only the row of one whose host has been silent for ``HOST_GONE``."""
    was_seen = bool(upload.upload_id) and remove_partial(upload.key, str(upload.upload_id))
    if upload.endpoint != host_endpoint() and not was_seen:
        extra = {"job_id": upload.job_id, "host": upload.endpoint, "key": upload.key}
        logger.warning("partial file perhaps left behind, its host is gone; remove it by hand", extra=extra)
    _record_gone(runtime, upload)


def _record_gone(runtime: Runtime, upload: UploadRow) -> None:
    with runtime.database.begin() as session:
        queries.upload_is_gone(session, upload.id, recheck_seconds=None)


def _lost(runtime: Runtime, upload: UploadRow) -> list[str]:
    with runtime.database.begin() as session:
        if queries.is_being_opened(session, upload):  # a listing cannot tell it from the lost one
            raise WriteConflictError(f"{upload.key}: another upload at this key is being opened")

    def known_ids() -> set[str]:
        with runtime.database.begin() as session:
            return queries.known_upload_ids(session, upload.key)

    saved = SavedUpload(upload.key, upload.size or 0, upload.part_size, VisibleVersion(), upload.opened_at)
    return lost_uploads(runtime.driver(upload.storage).store, saved, known_ids)


def _put_off(runtime: Runtime, upload: UploadRow) -> None:
    with suppress(UnreachableError), runtime.database.begin() as session:
        queries.put_off_abort(session, upload.id, PUT_OFF)
