"""Which messages of jobs a batch has made needless: known to the parent and all children of a worker, without SQL.

The claim of a batch outdates the messages of all its jobs. The parent drops those that it fetches later, so that no
child is kept busy with them. A child that dies may not have told Celery how its jobs have ended; then their messages
are delivered, and report what is missing.

The table is memory made before the fork, without a lock, as a child may be killed at any instruction. It forgets: an
entry may be overwritten by another one. A message that it does not know is delivered, and looks at the row.
"""

import mmap
import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

SLOTS: Final = 1 << 15
_ENTRY: Final = struct.Struct("=qq")  # hash of the message; the process that runs its job, or REPORTED
REPORTED: Final = -1
_FREE: Final = 0

_table: Final = mmap.mmap(-1, SLOTS * _ENTRY.size)  # zeros: all free


def note_claimed(messages: Iterable[tuple[str, int]], process: int | None = None) -> None:
    """Note messages, by job id and number, that a claim of this process, or of that one, has outdated."""
    for message in messages:
        _write(_hash(message), process or os.getpid())


def note_reported(messages: Iterable[tuple[str, int]]) -> None:
    """Note that this process has told Celery how the jobs of these messages have ended."""
    for message in messages:
        _write(_hash(message), REPORTED)


def forget(messages: Iterable[tuple[str, int]]) -> None:
    """Have these messages delivered again, since Celery may not know how their jobs have ended."""
    for message in messages:
        _write(_FREE, _FREE, at=_offset(_hash(message)))


def is_needless(job_id: str, seq: int) -> bool:
    """Whether nothing is to be done for the message: a living process runs its job, or has reported its end."""
    number = _hash((job_id, seq))
    found, owner = _ENTRY.unpack_from(_table, _offset(number))
    return found == number and (owner == REPORTED or _lives(owner))


def _lives(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def _write(number: int, owner: int, *, at: int | None = None) -> None:
    # First the owner of a free slot, then the hash: nobody who finds the hash finds the owner of another message.
    offset = _offset(number) if at is None else at
    _ENTRY.pack_into(_table, offset, _FREE, owner)
    _ENTRY.pack_into(_table, offset, number, owner)


def _hash(message: tuple[str, int]) -> int:
    return hash(message) or 1  # forked processes share the seed


def _offset(number: int) -> int:
    return number % SLOTS * _ENTRY.size
