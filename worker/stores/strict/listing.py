"""One page of a listing, for the stores that are our own: they only say which keys follow which bytes."""

import base64
import binascii
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Final

from worker.errors import InvalidStoreRequestError
from worker.stores.blob_values import KeyEntry, Page

AFTER_ALL: Final = b"\xff"  #: sorts behind all that begins with what precedes it: it is never in UTF-8


def page_of(
    entries_from: Callable[[bytes], Generator[KeyEntry]], prefix: str, delimiter: str, token: str | None, limit: int
) -> Page:
    """One page. Raises InvalidStoreRequestError for a token of another kind.

    Args:
        entries_from: the keys with the prefix that are not smaller than these bytes, in byte order.
        prefix, delimiter, token, limit: those of :meth:`~worker.stores.store.Store.list_page`.
    """
    start = _decoded(token)
    entries: list[KeyEntry] = []
    prefixes: list[str] = []
    left = limit
    while True:
        with closing(entries_from(start)) as found:
            for entry in found:
                if not left:
                    last = max([start, *(shown.key.encode() + b"\0" for shown in entries[-1:])])
                    return Page(entries, prefixes, base64.urlsafe_b64encode(last).decode())
                left -= 1
                if delimiter and (end := entry.key.find(delimiter, len(prefix))) >= 0:
                    prefixes.append(entry.key[: end + len(delimiter)])
                    start = prefixes[-1].encode() + AFTER_ALL
                    break  # the other keys with this prefix need not be looked at
                entries.append(entry)
            else:
                return Page(entries, prefixes, None)


def _decoded(token: str | None) -> bytes:
    try:
        return base64.b64decode(token or "", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidStoreRequestError(f"{token!r} is no token of a listing") from error
