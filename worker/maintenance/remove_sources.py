"""Removes the sources of jobs that have succeeded. Safe to repeat, and at any time: the rows say what is left to do."""

import logging
import threading
from collections.abc import Collection, Sequence
from typing import Final

from models import queries
from models.queries import RemovableSource
from worker.errors import BlobferryError
from worker.runtime import Runtime
from worker.transfer.sources.source_removal import Removal, remove_source

logger = logging.getLogger(__name__)

PATIENCE: Final = 2.0  #: seconds that the files of one call may take; a mount may hang
#: What leaves the file to another worker, or to a later sweep.
_LATER: Final = (Removal.NOT_ALLOWED, Removal.NOT_SEEN)


def remove_sources(runtime: Runtime, job_ids: Collection[str]) -> None:
    """Remove the sources of these jobs, which have just succeeded. Never raises: a sweep does what is left."""
    if not job_ids:
        return
    try:
        with runtime.database.read() as session:
            found = queries.sources_to_remove(session, limit=len(job_ids), job_ids=list(job_ids))
        remove_found(runtime, found)
    except BlobferryError as error:
        logger.info("sources not removed yet, a sweep will", extra={"jobs": len(job_ids), "reason": str(error)})


def remove_found(runtime: Runtime, found: Sequence[RemovableSource]) -> int:
    """Remove these files, unless another job needs the same one; return how many jobs are done with theirs.

    Two jobs that end at the same moment may each see the other: then the file stays for the sweep of spooled uploads.
    Raises UnreachableError.
    """
    names = [source.spooled for source in found if source.spooled]
    needed = set[str]()
    if names:
        with runtime.database.read() as session:
            needed = queries.needed_spools(session, names, but=[source.job_id for source in found])
    done = [source.job_id for source in found if source.spooled in needed]  # it is the other job's now
    removable = [source for source in found if source.spooled not in needed]
    removed, ended = list[str](), threading.Event()

    def remove_all() -> None:
        for source in removable:
            if _remove(runtime, source):
                removed.append(source.job_id)
        ended.set()

    threading.Thread(target=remove_all, name="removal", daemon=True).start()
    ended.wait(PATIENCE)
    done += list(removed)
    if done:
        with runtime.database.begin() as session:
            queries.sources_removed(session, done)
    return len(done)


def _remove(runtime: Runtime, source: RemovableSource) -> bool:
    """Whether nothing is left to be done."""
    settings = runtime.settings
    extra = {"job_id": source.job_id, "source": source.url}
    try:
        roots = settings.sources.delete_roots
        removal = remove_source(source.url, source.fingerprint, spool=settings.spool_dir, roots=roots)
    except OSError as error:
        logger.warning("source not removed, will be tried again: %s", error.strerror, extra=extra)
        return False
    if removal is Removal.CHANGED:
        logger.warning("source not removed: it %s", removal.value, extra=extra)
    return removal not in _LATER
