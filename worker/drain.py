"""Draining, which a SIGTERM starts: the parent sets a flag, and runs in its children check it between two parts.

The flag is one byte of shared memory, made before the fork. It needs no broker, no database and no thread.
"""

import mmap
from typing import Final

_flag: Final = mmap.mmap(-1, 1)


def start() -> None:
    """Ask all runs of this worker to hand over their jobs."""
    _flag[0] = 1


def is_draining() -> bool:
    """True once the worker is shutting down."""
    return _flag[0] == 1
