"""What sends messages: the publisher of a process, as the caretaker and the runs that end are given it."""

from typing import Any, Protocol


class SendMessages(Protocol):
    """Sends messages to the broker, together where it can; returns how many, from the first on, were sent."""

    def __call__(self, *messages: Any) -> int:
        """Send them, each a :class:`Message` of a job or a :class:`CallbackMessage`. Never raises."""
        ...
