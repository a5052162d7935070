"""What only this worker may lack: a storage, a mount, a key, credentials. Another worker may run the job.

An error names what is missing (``lacks``). Where it certainly is this worker's fault, such as a storage that is not
configured, the error becomes transient: the job goes on elsewhere. Where it may be the job's own, such as one refused
key, it stays permanent, and the job is only tried once on each of the other living workers.
"""

import logging
import secrets
from typing import Final

from sqlalchemy.orm import Session

from blobferry.jobs.needs import SOURCES, STOP_AFTER, source_need, storage_need
from models import ClaimedJob, queries
from worker.driver import Driver
from worker.errors import (
    BlobferryError,
    BucketNotFoundError,
    ConfigurationError,
    CredentialsError,
    DeleteIncompleteError,
    InvalidStoreRequestError,
    KeyNotFoundError,
    NotSupportedError,
    PermissionDeniedError,
    StoreError,
)
from worker.jobs.lease import Lease
from worker.runtime import Runtime
from worker.stores.store import Store

logger = logging.getLogger(__name__)

#: Refusals that wrong settings of a worker, such as a key, a region or the name of a bucket, cause at every key.
REFUSALS: Final = (PermissionDeniedError, BucketNotFoundError, InvalidStoreRequestError, CredentialsError)
#: Codes with which a batch delete refuses single keys, as it does at every key with credentials that may only read.
DENIALS: Final = frozenset({"AccessDenied", "AllAccessDisabled", "UnauthorizedAccess", "403"})


def blame(error: BlobferryError, job: ClaimedJob, runtime: Runtime) -> None:
    """Set what this worker may lack as the error shows it, and make the error transient if that is certain.

    If a store has refused something, it is asked whether it refuses this worker everything.
    """
    needs = job.needs
    names = [name for name in sorted(runtime.drivers) if storage_need(name) in needs]
    if error.lacks.partition(".")[0] == SOURCES:
        error.lacks = source_need(job.source or "")
    if isinstance(error, ConfigurationError):
        error.certainly_lacks = True
        if error.lacks not in needs:  # a parameter of a storage, such as its root directory
            error.lacks = _written_storage(job)
    elif isinstance(error, REFUSALS):
        refusing = next((name for name in names if _refuses_everything(runtime.driver(name))), None)
        if refusing is not None:
            error.lacks, error.certainly_lacks = storage_need(refusing), True
    if not error.lacks and _is_denial(error):
        error.lacks = _written_storage(job)
    if error.certainly_lacks:
        error.transient = True


def note_lack(error: BlobferryError, lease: Lease, runtime: Runtime) -> int:
    """Note what this worker lacks; return how many living workers may have it. Raises LeaseLostError."""
    # A repeated write may count twice: the worker then stops a little earlier.
    times, others = lease.write(_note, error, runtime)
    if times >= STOP_AFTER:
        follows = (
            "it takes no more of them while others can" if others else "no other worker is known that can run them"
        )
        logger.error(
            f"this worker lacks what jobs need; {follows}: check its settings, mounts and credentials",
            extra={"lacks": error.lacks, "times_in_a_row": times, "others": others, "reason": str(error)},
        )
    return others


def _note(session: Session, error: BlobferryError, runtime: Runtime) -> tuple[int, int]:
    times = queries.note_lack(session, runtime.worker_id, runtime.worker_name, error.lacks, str(error))
    return times, queries.count_others(session, runtime.worker_id, error.lacks)


def _written_storage(job: ClaimedJob) -> str:
    return storage_need((job.request or {}).get("dest_storage") or job.storage)


def _is_denial(error: BlobferryError) -> bool:
    if isinstance(error, DeleteIncompleteError):
        return bool(error.failures) and all(code in DENIALS for _, code in error.failures)
    return isinstance(error, PermissionDeniedError)


def _refuses_everything(driver: Driver) -> bool:
    """Whether the store refuses a listing and a HEAD at a key of nobody. A narrow role may lack the right to list."""
    store, key = driver.store, driver.key(f"/.blobferry-access-{secrets.token_hex(8)}")
    try:
        store.list_page(key, limit=1)
    except BucketNotFoundError:
        return True
    except StoreError:
        return _refuses_head(store, key)
    return False


def _refuses_head(store: Store, key: str) -> bool:
    try:
        store.head(key)
    except (KeyNotFoundError, NotSupportedError):
        return False
    except StoreError:  # a store that cannot be asked just now may have refused for the same reason
        return True
    return False
