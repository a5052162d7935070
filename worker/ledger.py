"""The ledger's other end: what was opened and given up is aborted, until the store shows nothing of it."""

import logging

from models import Upload, queries
from worker.errors import BlobferryError, UnreachableError
from worker.runtime import Runtime
from worker.stores.store import Store
from worker.transfer.aborting import abort_upload, lost_uploads
from worker.transfer.checkpoint import Base, SavedUpload

logger = logging.getLogger(__name__)

BATCH = 50  #: uploads of one sweep


def abort_given_up(runtime: Runtime) -> int:
    """Abort uploads that were given up; return how many. Safe to repeat, also concurrently.

    One that cannot be aborted now stays in the ledger for the next sweep. Never raises for a database that is away.
    """
    try:
        with runtime.database.begin() as session:
            uploads = queries.uploads_to_abort(session, limit=BATCH)
    except UnreachableError as error:
        logger.warning("ledger not read", extra={"reason": str(error)})
        return 0
    done = 0
    for upload in uploads:
        try:
            _abort(runtime, upload)
            done += 1
        except BlobferryError as error:
            logger.warning(
                "upload not aborted", extra={"job_id": upload.job_id, "key": upload.key, "reason": str(error)}
            )
    return done


def _abort(runtime: Runtime, upload: Upload) -> None:
    store = runtime.driver(upload.storage).store
    opened = upload.part_size is not None  # else it was a single put, which leaves nothing
    first_look = upload.recheck_at is None
    if opened:
        for upload_id in [upload.upload_id] if upload.upload_id else _lost(runtime, store, upload):
            abort_upload(store, upload.key, upload_id)
    recheck = runtime.settings.retention.abort_recheck_seconds if opened and first_look else None
    with runtime.database.begin() as session:
        queries.upload_is_gone(session, upload.id, recheck_seconds=recheck)


def _lost(runtime: Runtime, store: Store, upload: Upload) -> list[str]:
    with runtime.database.begin() as session:
        known = queries.known_upload_ids(session, upload.storage, upload.key)
    saved = SavedUpload(upload.key, upload.size or 0, upload.part_size, Base(), upload.opened_at)
    return lost_uploads(store, saved, known)
