"""When a file's times can be relied on: a change soon after the last one may leave them as they were.

The kernel stamps a file with a clock that ticks every few milliseconds, and some file systems keep whole seconds (ext3,
ext4 with small inodes, older NFS servers) or two (FAT). A file that is rewritten within such a tick, after its status
was read, has the same status afterwards. So the status is read once that tick is over.
"""

import os
import time
from typing import Final

_SECOND: Final = 10**9  #: nanoseconds
_TICK: Final = 0.03  #: seconds; more than a tick of any kernel, and than the 10 ms of exFAT on top of one
_COARSE: Final = 2.0  #: seconds; the coarsest times are those of FAT
_LOOKS: Final = 3  #: at a file that is being written all the time


def settled_status(descriptor: int) -> os.stat_result:
    """The status of the file, read so late that every later change shows in its ctime.

    A file that is written all the time is waited for a few times only: it fails its later checks.
    """
    status = os.fstat(descriptor)
    for _ in range(_LOOKS):
        left = seconds_to_settle(status.st_ctime_ns, time.time_ns())
        if not left:
            break
        time.sleep(left)
        before, status = status, os.fstat(descriptor)
        if status.st_ctime_ns == before.st_ctime_ns:
            break
    return status


def seconds_to_settle(changed_ns: int, now_ns: int) -> float:
    """Seconds from now until a change leaves another ctime than this one; 0 if one does already.

    Whole seconds look like those of a file system that keeps no others. A ctime in the future, by another clock, is
    taken for the present.
    """
    tick = _TICK if changed_ns % _SECOND else _COARSE + _TICK
    return max(tick - max(now_ns - changed_ns, 0) / _SECOND, 0.0)
