"""The end of a drain: what holds the worker up after ``drain_seconds`` is killed, since whoever sent SIGTERM kills too.

Kubernetes waits for 30 s. A job that is cut off here goes on elsewhere once its lease has run out.
"""

import logging
import os
import signal
import threading
from contextlib import suppress

from worker.processes import children_of

logger = logging.getLogger(__name__)

LOG_SECONDS = 0.5  #: for the last line: whoever reads the log may be away as well


def bound_drain(seconds: float) -> None:
    """Kill the children of this process, and end it, in so many seconds.

    A thread, although the parent has no other: the main thread may hang in a call that no signal interrupts, such as
    the look-up of a name. A draining worker forks no more.
    """
    timer = threading.Timer(seconds, _end, (seconds,))
    timer.daemon = True
    timer.start()


def _end(seconds: float) -> None:
    children = children_of(os.getpid())
    for pid in children:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    last_word = threading.Thread(target=_say, args=(seconds, len(children)), daemon=True)
    last_word.start()
    last_word.join(LOG_SECONDS)
    os._exit(0)


def _say(seconds: float, children: int) -> None:
    logger.warning(
        "drain took too long, ended by force; jobs cut off go on elsewhere when their leases run out",
        extra={"drain_seconds": seconds, "children": children},
    )
