"""Checks of offsets, before anything is read or asked."""

import operator
from typing import Any

from blobferry.redaction import short_repr
from worker.errors import ArgumentTypeError, InvalidOffsetError, InvalidRequestError
from worker.stores.store import Store


def check_read_offset(store: Store, path: str, offset: Any) -> int:
    """The offset of a read, in bytes. Raises ArgumentTypeError, InvalidOffsetError."""
    found = _whole(store, path, offset)
    if abs(found) >= 10**100:  # Python refuses to print a number of thousands of digits
        raise InvalidRequestError(f"{store.name}: {path}: offset: has too many digits")
    if found < 0:
        raise InvalidOffsetError(path, found, store.name)
    return found


def check_write_offset(store: Store, path: str, offset: Any) -> int:
    """The offset of a write, in bytes, at most the largest blob that the store can hold. Raises as above."""
    found = check_read_offset(store, path, offset)
    if found > store.limits.max_parts * store.limits.max_part_size:
        raise InvalidOffsetError(path, found, store.name)
    return found


def _whole(store: Store, path: str, offset: Any) -> int:
    """Whole numbers of other libraries are taken too; True and 1.0 are more likely a mistake than an offset."""
    if not isinstance(offset, bool):
        try:
            return operator.index(offset)
        except TypeError:
            pass
    says = f"{store.name}: {path}: offset: needs a whole number of bytes, got {short_repr(offset)}"
    raise ArgumentTypeError(says)
