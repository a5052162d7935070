"""Pages of the local store's keys, in byte order, without ever sorting more than a page of one directory."""

import base64
import binascii
import heapq
import os
from collections.abc import Iterator
from typing import Final, NamedTuple

from worker.errors import InvalidStoreRequestError
from worker.stores.blob_values import KeyEntry, Page
from worker.stores.local_files import directory
from worker.stores.local_names import above, decode, decode_directory, locate
from worker.stores.local_slots import read_record, slot_of

_AFTER_ALL: Final = b"\xff"  # no key holds it: it is never in UTF-8


class _Item(NamedTuple):
    """A key, or what all keys begin with that lie below a directory. Such keys are neighbours in byte order."""

    key: bytes
    name: str  #: of the directory, or of the slot
    is_directory: bool


class Listing:
    """One page: what begins with ``prefix`` and comes after ``bound``."""

    def __init__(self, blobs: int, prefix: bytes, delimiter: bytes, token: str | None, limit: int) -> None:
        self._blobs = blobs
        self._prefix = prefix
        self._delimiter = delimiter
        self._bound = _decoded(token)
        self._limit = limit

    def page(self) -> Page:
        """Walk until the page is full and one more is found."""
        entries: list[KeyEntry] = []
        prefixes: list[str] = []
        for found in self._walk():
            if len(entries) + len(prefixes) >= self._limit:
                return Page(entries, prefixes, _encoded(self._bound))
            if isinstance(found, KeyEntry):
                entries.append(found)
                self._bound = found.key.encode()
            else:
                prefixes.append(found.decode())
                self._bound = found + _AFTER_ALL
        return Page(entries, prefixes, None)

    def _walk(self) -> Iterator[KeyEntry | bytes]:
        """Entries and common prefixes, in order. The bound may be raised on the way."""
        top, _ = locate(self._prefix)
        stack = [(top, self._items(top, above(self._prefix)))]
        while stack:
            names, items = stack[-1]
            item = next(items, None)
            if item is None:
                stack.pop()
            elif not self._is_wanted(item):
                continue
            elif (common := self._common(item.key)) is not None:
                if self._is_there(names, item):
                    yield common
            elif item.is_directory:
                below = [*names, item.name]
                stack.append((below, self._items(below, item.key)))
            elif (entry := self._entry(names, item)) is not None:
                yield entry

    def _items(self, names: list[str], start: bytes) -> Iterator[_Item]:
        """What is in a directory, in order; read again for each batch, for it may be larger than memory."""
        last = _Item(b"", "", False)
        while True:
            wanted = (item for item in self._scan(names, start) if item > last and self._is_wanted(item))
            batch = heapq.nsmallest(self._limit + 1, wanted)
            yield from batch
            if len(batch) <= self._limit:
                return
            last = batch[-1]

    def _scan(self, names: list[str], start: bytes) -> Iterator[_Item]:
        try:
            with directory(self._blobs, names) as fd, os.scandir(fd) as found:
                for file in found:
                    item = _item(file, start)
                    if item is not None:
                        yield item
        except FileNotFoundError:
            return

    def _is_wanted(self, item: _Item) -> bool:
        if not item.is_directory:
            return item.key > self._bound and item.key.startswith(self._prefix)
        return item.key + _AFTER_ALL > self._bound and (
            item.key.startswith(self._prefix) or self._prefix.startswith(item.key)
        )

    def _common(self, key: bytes) -> bytes | None:
        """The key up to the first delimiter behind the prefix."""
        end = key.find(self._delimiter, len(self._prefix)) if self._delimiter else -1
        return None if end < 0 else key[: end + len(self._delimiter)]

    def _entry(self, names: list[str], item: _Item) -> KeyEntry | None:
        try:
            with directory(self._blobs, names) as fd:
                record = read_record(fd, item.name)
        except FileNotFoundError:
            return None
        return None if record is None else record.entry(item.key.decode())

    def _is_there(self, names: list[str], item: _Item) -> bool:
        """Whether there is any key: a directory may have been left empty by a killed process."""
        if not item.is_directory:
            return True
        waiting = [[*names, item.name]]
        while waiting:
            names = waiting.pop()
            for below in self._scan(names, b""):
                if not below.is_directory:
                    return True
                waiting.append([*names, below.name])
        return False


def _item(file: os.DirEntry[str], start: bytes) -> _Item | None:
    slot = slot_of(file.name)
    if slot is not None:
        key = decode(slot)
        return None if key is None or not file.is_file(follow_symlinks=False) else _Item(start + key, slot, False)
    key = None if "@" in file.name else decode_directory(file.name)
    return None if key is None or not file.is_dir(follow_symlinks=False) else _Item(start + key, file.name, True)


def _encoded(bound: bytes) -> str:
    return base64.urlsafe_b64encode(bound).decode()


def _decoded(token: str | None) -> bytes:
    try:
        return base64.b64decode(token or "", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidStoreRequestError(f"local: {token!r} is no token of a listing") from error
