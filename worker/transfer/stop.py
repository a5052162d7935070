"""How a transfer is told to stop. Stopping is not an error: what is done stays done, and another run goes on."""

from collections.abc import Callable

Stop = Callable[[], bool]
"""Asked before each part and each commit call: True asks to stop. It raises LeaseLostError to stop at once."""


class Interrupted(Exception):
    """The transfer stopped because it was asked to; everything that it had in hand is checkpointed."""


def never() -> bool:
    """A Stop for transfers that nobody interrupts."""
    return False
