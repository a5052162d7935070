"""A slot: the two files of one blob or part. ``NAME@`` is its record, ``NAME@VERSION`` its bytes.

Renaming a new record into place is what makes it visible. Bytes are never changed under their name, so that whoever
has opened them reads on, whatever becomes of the slot. Who calls :func:`place` or :func:`tidy` holds the slot's lock.
"""

import os
import stat
from collections.abc import Iterable
from typing import Final

from worker.errors import StoreUnavailableError
from worker.stores.local_files import link, open_file, read_file, remove, replace_file
from worker.stores.local_records import Record, dump, load_record

_MARK: Final = "@"
_DRAFT: Final = "@new"


def place(fd: int, name: str, file: int, record: Record) -> None:
    """Make the open file the bytes of the slot; they are on the disk already.

    Raises FileNotFoundError if the directory has been removed meanwhile.
    """
    link(file, f"{name}{_MARK}{record.version}", fd)
    os.fsync(fd)  # or a power failure might keep the record and lose what it names
    replace_file(name + _MARK, name + _DRAFT, dump(record), fd)


def clear(fd: int, name: str) -> None:
    """Make the slot empty for those who look, if not for those who read."""
    remove(name + _MARK, fd)
    os.fsync(fd)


def tidy(fd: int, name: str, versions: Iterable[str]) -> bool:
    """Remove what a finished or a killed call has left of these versions; False if the slot is empty."""
    record = read_record(fd, name)
    for version in versions:
        if record is None or version != record.version:
            remove(f"{name}{_MARK}{version}", fd)
    remove(name + _DRAFT, fd)
    return record is not None


def read_record(fd: int, name: str) -> Record | None:
    """What is in the slot now."""
    text = read_file(name + _MARK, fd)
    return None if text is None else load_record(text)


def open_bytes(fd: int, name: str, record: Record) -> int:
    """The bytes of a record. Raises FileNotFoundError if it is no longer the slot's."""
    file = open_file(f"{name}{_MARK}{record.version}", fd)
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode) or found.st_size != record.size:
        os.close(file)
        raise StoreUnavailableError(f"local: {name!r} has {found.st_size} bytes and its record says {record.size}")
    return file


def slot_of(file_name: str) -> str | None:
    """The slot whose record has this file's name."""
    return file_name[: -len(_MARK)] if file_name.endswith(_MARK) else None
