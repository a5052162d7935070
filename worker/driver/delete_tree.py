"""Deleting a key and everything under it: in batches, in bounded memory, and never a key that came later."""

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

PAUSE: Final = 0.5  #: seconds before keys are tried once more
MAX_FAILURES: Final = 100  #: that an error names


class Deletion(Protocol):
    """What a delete must not forget."""

    cutoff: datetime | None  #: by the store's clock: nothing newer goes; None until it is set
    deleted_any: bool  #: from then on it is no error that nothing is there

    def begin(self, cutoff: datetime) -> None:
        """Remember the cutoff."""
        ...

    def deleting(self) -> None:
        """Remember that something was there, before each batch goes. Raises LeaseLostError to stop it."""
        ...

    def deleted(self, count: int) -> None:
        """So many keys more are gone."""
        ...


class MemoryDeletion:
    """A delete within one call: all goes that it finds."""

    def __init__(self) -> None:
        self.cutoff: datetime | None = datetime.max.replace(tzinfo=UTC)
        self.deleted_any = False
        self.count = 0

    def begin(self, cutoff: datetime) -> None:
        """Never asked."""

    def deleting(self) -> None:
        """Remember."""
        self.deleted_any = True

    def deleted(self, count: int) -> None:
        """Count."""
        self.count += count


def delete_tree(store: Store, key: str, path: str, *, deletion: Deletion, stop: Stop) -> None:
    """Delete exactly the key and all keys under ``key/``; ``path`` is what messages call it.

    Safe to repeat, by anybody who has the same ``deletion``. Raises KeyNotFoundError if nothing is there and never was;
    Interrupted between two batches; DeleteIncompleteError once everything else is gone.
    """
    head = look(store, key)
    first = store.list_page(key + "/")
    if deletion.cutoff is None:
        shown = [entry.mod_time for entry in first.entries] + ([head.mod_time] if head else [])
        deletion.begin(max([first.served_at, *shown]))  # some stores round their dates up
    tree = _Tree(store, key, path, deletion, stop)
    if head is not None:
        tree.add(key, head.mod_time)
    for entry in _entries(store, key + "/", first):
        tree.add(entry.key, entry.mod_time)
    tree.finish()


@dataclass(slots=True)
class _Tree:
    """The keys on their way out, one batch at a time."""

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
            raise KeyNotFoundError(f"{self.store.name}: nothing is stored at {self.key!r}, nor under it")
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
