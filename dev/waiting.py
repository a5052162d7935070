"""Waiting for something to come true, by asking again and again."""

import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")


def wait_until(probe: Callable[[], Answer], timeout: float, what: str, longest_pause: float = 0.25) -> Answer:
    """Call ``probe`` until its answer is true, and return that answer. A probe that raises is called again.

    Args:
        timeout: seconds.
        what: names the condition in the error.
        longest_pause: seconds between two calls at most; the first pauses are shorter.

    Raises:
        TimeoutError: ``what`` did not come true within ``timeout`` seconds; the probe's last error is the cause.
    """
    deadline = time.monotonic() + timeout
    pause = min(0.01, longest_pause)
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
        pause = min(pause * 1.5, longest_pause)
