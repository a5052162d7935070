"""The end of a drain: what holds the worker up after ``drain_seconds`` is killed, since whoever sent SIGTERM kills too.

Kubernetes waits for 30 s from the signal on, while the parent may hang in the look-up of a name: in C, where no handler
of Python's runs. So its caretaker learns of the signal as well, through a pipe. A job that is cut off here goes on
elsewhere once its lease has run out.
"""

import logging
import os
import signal
import threading
import time
from contextlib import suppress

from worker.processes import children_of

logger = logging.getLogger(__name__)

AFTER_PARENT = 1.0  #: seconds that a parent which could run its handler has to end by itself
LOG_SECONDS = 0.5  #: for the last line: whoever reads the log may be away as well


def bound_drain(seconds: float) -> None:
    """Kill the children of this process, and end it, in so many seconds.

    A thread, although the parent has no other: the main thread may hang in a call that no signal interrupts, such as
    the look-up of a name. A draining worker forks no more.
    """
    timer = threading.Timer(seconds, _end, (seconds,))
    timer.daemon = True
    timer.start()


def tell_of_signals() -> int:
    """The end of a pipe from which another process can read the signals of this one as bytes, as they arrive."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)  # written to by the handler in C
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # a child's signals are its own
    return reader


def bound_drain_of(parent: int, signals: int, seconds: float) -> None:
    """Wait for SIGTERM or SIGINT in the pipe, then kill the parent with its other children unless it ends in time."""
    while arrived := os.read(signals, 64):
        if signal.SIGTERM in arrived or signal.SIGINT in arrived:
            break
    else:
        return  # the parent is gone
    time.sleep(seconds + AFTER_PARENT)
    if os.getppid() == parent:
        for pid in (*(children_of(parent) - {os.getpid()}), parent):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _say(seconds, 0)


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
