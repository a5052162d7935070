"""Draining: what a SIGTERM does. The parent sets a flag; its children's runs see it between two parts and hand over.

The flag is one shared byte, made before the fork. It needs no broker, no database and no thread in the parent.
"""

import mmap
from typing import Final

_flag: Final = mmap.mmap(-1, 1)


def start() -> None:
    """Ask all runs of this worker to hand over their jobs."""
    _flag[0] = 1


def is_draining() -> bool:
    """True once the worker has been told to stop."""
    return _flag[0] == 1
