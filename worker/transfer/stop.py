"""How a transfer is asked to stop. That is no error: sent parts are kept, and another run continues."""

from collections.abc import Callable

Stop = Callable[[], bool]
"""Called before each part and each commit call. True asks to stop; LeaseLostError stops at once."""


def within_part(stop: Stop) -> Stop:
    """The Stop that is asked between the pieces of a part: only some requests may cut a part off that moves bytes.

    A Stop that does not tell them apart is asked itself.
    """
    found: Stop = getattr(stop, "within_part", stop)
    return found


def while_stalled(stop: Stop) -> Stop:
    """The Stop that is asked while a part waits and nothing comes: it may take longer to answer, and knows more."""
    found: Stop = getattr(stop, "while_stalled", within_part(stop))
    return found


class Interrupted(Exception):
    """The transfer stopped because it was asked to. The parts that it had in hand are checkpointed."""


def never() -> bool:
    """A Stop that never asks to stop."""
    return False
