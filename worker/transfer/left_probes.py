"""Removes what probes have left behind whose process was killed: blobs, and unfinished uploads."""

from datetime import datetime, timedelta
from typing import Final

from worker.errors import DeleteIncompleteError, NotSupportedError
from worker.stores.blob_values import DeleteFailure
from worker.stores.store import Store
from worker.transfer.probe_keys import probe_prefix, probed_at
from worker.transfer.upload.abort import abort_upload

#: No probe takes so long, and no clock is off by so much: S3 refuses requests that are signed 15 minutes off.
KEPT: Final = timedelta(hours=1)


def remove_left_probes(store: Store) -> int:
    """Remove all that is older than ``KEPT``; return how many blobs and uploads. Safe to repeat, also concurrently.

    What is younger may belong to a probe that goes on. A store that does not list uploads keeps those for its
    lifecycle rule. Raises StoreError; what was not removed is left for the next call.
    """
    keys, now = _left_blobs(store)
    failures: list[DeleteFailure] = []
    for start in range(0, len(keys), store.limits.max_delete):
        failures += store.delete_batch(keys[start : start + store.limits.max_delete])
    removed = len(keys) - len(failures) + _abort_left_uploads(store, now)
    if failures:
        named = [[failure.key, failure.code] for failure in failures]
        raise DeleteIncompleteError(probe_prefix(store), named, store.name)
    return removed


def _left_blobs(store: Store) -> tuple[list[str], datetime]:
    """The keys of old blobs, and the time by the store's clock."""
    keys: list[str] = []
    token = None
    while True:
        page = store.list_page(probe_prefix(store), token=token)
        keys += [entry.key for entry in page.entries if _is_left(store, entry.key, page.served_at)]
        token = page.next_token
        if token is None:
            return keys, page.served_at


def _abort_left_uploads(store: Store, now: datetime) -> int:
    try:
        uploads = [entry for entry in store.list_uploads(probe_prefix(store)) if _is_left(store, entry.key, now)]
    except NotSupportedError:
        return 0
    for upload in uploads:
        abort_upload(store, upload.key, upload.upload_id)
    return len(uploads)


def _is_left(store: Store, key: str, now: datetime) -> bool:
    began = probed_at(store, key)
    return began is not None and now - began >= KEPT
