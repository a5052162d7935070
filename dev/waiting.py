"""Waiting for something to come true, by asking again and again."""

import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")


def wait_until(probe: Callable[[], Answer], timeout: float, what: str) -> Answer:
    """Call ``probe`` until its answer is true, and return that answer. A probe that raises is asked again.

    Raises:
        TimeoutError: ``what`` did not come true within ``timeout`` seconds; the probe's last error is the cause.
    """
    deadline = time.monotonic() + timeout
    pause = 0.01
    while True:
        error = None
        try:
            if answer := probe():
                return answer
        except Exception as caught:
            error = caught
        if time.monotonic() >= deadline:
            reason = f": {type(error).__name__}: {error}" if error else ""
            raise TimeoutError(f"{what}: not within {timeout:g} seconds{reason}") from error
        time.sleep(pause)
        pause = min(pause * 1.5, 0.25)
