"""Deletes a key and everything under it, in batches and bounded memory, and no key that is newer than the delete."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

from blobferry.errors import PASSING_CODES
from worker.errors import DeleteIncompleteError, KeyNotFoundError
from worker.stores.blob_values import KeyEntry, Page
from worker.stores.store import Store
from worker.transfer.stop import Interrupted, Stop
from worker.transfer.visible import look

PAUSE: Final = 0.5  #: seconds before failed keys are tried once more
MAX_FAILURES: Final = 100  #: keys that an error names


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
        self.cutoff: datetime | None = datetime.max.replace(tzinfo=UTC)
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
    head = look(store, key)
    first = store.list_page(key + "/")
    if deletion.cutoff is None:
        shown = [entry.mod_time for entry in first.entries] + ([head.mod_time] if head else [])
        deletion.begin(
            max([first.served_at, *shown])
        )  # some stores round modification times up, beyond their own clock
    tree = _Tree(store, key, path, deletion, stop)
    if head is not None:
        tree.add(key, head.mod_time)
    for entry in _entries(store, key + "/", first):
        tree.add(entry.key, entry.mod_time)
    tree.finish()


@dataclass(slots=True)
class _Tree:
    """Collects keys and deletes them batch by batch."""

    store: Store
    key: str
    path: str
    deletion: Deletion
    stop: Stop
    batch: list[str] = field(default_factory=list)
    failures: list[list[str]] = field(default_factory=list)
    failed: int = 0
    saw_any: bool = False

    def add(self, key: str, mod_time: datetime) -> None:
        self.saw_any = True
        if self.deletion.cutoff is None or mod_time <= self.deletion.cutoff:
            self.batch.append(key)
        if len(self.batch) == self.store.limits.max_delete:
            self._flush()

    def finish(self) -> None:
        if self.batch:
            self._flush()
        if not self.saw_any and not self.deletion.deleted_any:
            raise KeyNotFoundError(f"{self.store.name}: nothing is stored at {self.key!r} or under it")
        if self.failures:
            raise DeleteIncompleteError(self.path, self.failures, self.store.name, self.failed)

    def _flush(self) -> None:
        if self.stop():
            raise Interrupted
        self.deletion.deleting()
        failures = self.store.delete_batch(self.batch)
        self.deletion.deleted(len(self.batch) - len(failures))
        if again := [failure.key for failure in failures if failure.code in PASSING_CODES]:
            time.sleep(PAUSE)
            failures = [failure for failure in failures if failure.code not in PASSING_CODES]
            failures += (late := self.store.delete_batch(again))
            self.deletion.deleted(len(again) - len(late))
        self.batch = []
        self.failed += len(failures)
        named = ([self.path + failure.key[len(self.key) :], failure.code] for failure in failures)
        self.failures += list(named)[: MAX_FAILURES - len(self.failures)]


def _entries(store: Store, prefix: str, page: Page) -> Iterator[KeyEntry]:
    while True:
        yield from page.entries
        if page.next_token is None:
            return
        page = store.list_page(prefix, token=page.next_token)
