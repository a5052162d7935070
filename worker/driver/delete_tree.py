"""Deletes a key and everything under it, in batches and bounded memory, and no key that is newer than the delete."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

from blobferry.errors import PASSING_CODES
from worker.errors import DeleteIncompleteError, KeyNotFoundError, NotSupportedError, StoreError
from worker.stores.blob_values import BlobHead, DeleteFailure, KeyEntry, Page
from worker.stores.capabilities import Capability
from worker.stores.store import Store
from worker.transfer.stop import Interrupted, Stop
from worker.transfer.visible import look

TRIES: Final = 3  #: passes over the tree while keys fail that another try may delete
PAUSE: Final = 0.5  #: seconds before the second pass, doubling
MAX_FAILURES: Final = 100  #: keys that an error names
NO_CUTOFF: Final = datetime.max.replace(tzinfo=UTC)  #: every key is older


class Deletion(Protocol):
    """The state of a delete that survives a crash."""

    cutoff: datetime | None  #: by the store's clock: newer keys are kept; None until it is set
    deleted_any: bool  #: True: finding nothing is no error, an earlier run has deleted it

    def begin(self, cutoff: datetime) -> None:
        """Save the cutoff."""
        ...

    def deleting(self) -> None:
        """Save ``deleted_any`` before each batch is deleted. Raises LeaseLostError to stop the delete."""
        ...

    def deleted(self, count: int) -> None:
        """Add to the number of deleted keys."""
        ...


class MemoryDeletion:
    """A delete within one call: without a cutoff, it deletes every key it finds."""

    def __init__(self) -> None:
        self.cutoff: datetime | None = NO_CUTOFF
        self.deleted_any = False
        self.count = 0

    def begin(self, cutoff: datetime) -> None:
        """Never called: the cutoff is set from the start."""

    def deleting(self) -> None:
        """Set ``deleted_any``."""
        self.deleted_any = True

    def deleted(self, count: int) -> None:
        """Add to ``count``."""
        self.count += count


def delete_tree(store: Store, key: str, path: str, *, deletion: Deletion, stop: Stop) -> None:
    """Delete exactly the key and all keys under ``key/``. Safe to repeat, also elsewhere with an equal ``deletion``.

    A batch that failed is not sent again: another pass lists what is there by then.

    Args:
        store: of the keys.
        key: without a trailing slash.
        path: of the key, for messages.
        deletion: the saved state; its cutoff is set by the first run.
        stop: asked before each batch.

    Raises:
        KeyNotFoundError: nothing is there, and no run has deleted anything.
        Interrupted: ``stop`` was true between two batches.
        DeleteIncompleteError: some keys could not be deleted; everything else is gone.
    """
    for number in range(TRIES):
        if number:
            time.sleep(PAUSE * 2 ** (number - 1))
        tree = _Pass(store, key, path, deletion, stop)
        try:
            tree.run()
        except StoreError as error:
            if not error.transient or number == TRIES - 1:
                raise
            continue
        if not tree.is_worth_repeating:
            break
    tree.end()


@dataclass(slots=True)
class _Pass:
    """One listing of the tree, which is deleted batch by batch."""

    store: Store
    key: str
    path: str
    deletion: Deletion
    stop: Stop
    batch: dict[str, str] = field(default_factory=dict)  #: keys with their ETags as listed
    failures: list[list[str]] = field(default_factory=list)
    failed: int = 0
    saw_any: bool = False
    is_worth_repeating: bool = False  #: another pass may delete what failed

    def run(self) -> None:
        head = look(self.store, self.key)
        first = self.store.list_page(self.key + "/")
        if self.deletion.cutoff is None:
            entries: list[KeyEntry | BlobHead] = [*first.entries, *([head] if head else [])]
            # Some stores round modification times up, beyond their own clock.
            self.deletion.begin(max([first.served_at, *(entry.mod_time for entry in entries if entry.mod_time)]))
        if head is not None:
            self._add(head)
        for entry in _entries(self.store, self.key + "/", first):
            self._add(entry)
        self._flush()

    def end(self) -> None:
        """Raise if nothing was there, or if something is left."""
        if not self.saw_any and not self.deletion.deleted_any:
            raise KeyNotFoundError(f"{self.store.name}: nothing is stored at {self.key!r} or under it")
        if self.failures:
            raise DeleteIncompleteError(self.path, self.failures, self.store.name, self.failed)

    def _add(self, entry: KeyEntry | BlobHead) -> None:
        self.saw_any = True
        if self._is_old(entry):
            self.batch[entry.key] = entry.etag
        if len(self.batch) == self.store.limits.max_delete:
            self._flush()

    def _is_old(self, entry: KeyEntry | BlobHead) -> bool:
        cutoff = self.deletion.cutoff
        return cutoff is None or cutoff == NO_CUTOFF or time_of(self.store, entry) <= cutoff

    def _flush(self) -> None:
        batch, self.batch = self.batch, {}
        if not batch:
            return
        if self.stop():
            raise Interrupted
        self.deletion.deleting()
        failures = self.store.delete_batch(list(batch), etags=batch)
        self.deletion.deleted(len(batch) - len(failures))
        for failure in failures:
            self._fail(failure, batch.get(failure.key, ""))

    def _fail(self, failure: DeleteFailure, etag: str) -> None:
        if failure.code == "PreconditionFailed" and not self._is_refused_in_vain(failure.key, etag):
            return
        self.is_worth_repeating = self.is_worth_repeating or failure.code in (*PASSING_CODES, "PreconditionFailed")
        self.failed += 1
        if len(self.failures) < MAX_FAILURES:
            self.failures.append([self.path + failure.key[len(self.key) :], failure.code])

    def _is_refused_in_vain(self, key: str, etag: str) -> bool:
        """Whether a key that was refused for its ETag is still to be deleted.

        A newer blob stays. If the listed version is there after all, the store compares in a way of its own.
        """
        head = look(self.store, key)
        if head is None or not self._is_old(head):
            return False
        if head.etag == etag:
            reason = f"{key!r} has the ETag {etag} and was refused for it"
            self.store.capabilities.miss(Capability.BATCH_DELETE_IF_MATCH, reason=reason)
        return True


def time_of(store: Store, entry: KeyEntry | BlobHead) -> datetime:
    """When a blob was written, by the store's clock; asks for the blob's head if the entry does not tell.

    Raises NotSupportedError if the head does not tell either: a blob that is newer than the delete would go as well.
    """
    if entry.mod_time is not None:
        return entry.mod_time
    head = look(store, entry.key) if isinstance(entry, KeyEntry) else None
    if head is not None and head.mod_time is not None:
        return head.mod_time
    raise NotSupportedError(f"{store.name}: {entry.key!r} has no Last-Modified: whether it is newer cannot be told")


def _entries(store: Store, prefix: str, page: Page) -> Iterator[KeyEntry]:
    while True:
        yield from page.entries
        if page.next_token is None:
            return
        page = store.list_page(prefix, token=page.next_token)
