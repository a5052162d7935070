"""Publisher: publishes messages, and keeps away for a while from a broker that is away, so that no job waits for it."""

import time
from collections.abc import Callable
from typing import Final

from celery import Celery

from blobferry.messages.callback_messages import CallbackMessage
from blobferry.messages.job_messages import Message, publish

FIRST_PAUSE: Final = 1.0  #: seconds without another try after the first failed one; doubled by each that follows
LONGEST_PAUSE: Final = 30.0  #: seconds


class Publisher:
    """Publishes through a Celery app. Thread-safe; may be made before a fork; opens no connection by itself.

    Each failed try to reach the broker costs its timeouts. So the tries that follow are spread: after a failure none is
    made for a second, then for twice as long, at most ``longest_pause`` seconds; and one thread tries while the others
    go on. What is not published meanwhile is left to the caretaker.
    """

    def __init__(
        self, app: Celery, *, longest_pause: float = LONGEST_PAUSE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._clock = clock
        self._longest_pause = longest_pause
        self._pause = 0.0  #: seconds; 0: the last try succeeded
        self._paused_until = 0.0

    @property
    def is_paused(self) -> bool:
        """Whether nothing would be published now."""
        return self._pause > 0 and self._clock() < self._paused_until

    def publish(self, *messages: Message | CallbackMessage) -> int:
        """Send the messages; return how many of them, from the first on, were sent. Never raises."""
        if not messages or not self._may_try():
            return 0
        sent = publish(self._app, *messages)
        self._note(is_away=sent < len(messages))
        return sent

    def _may_try(self) -> bool:
        # No lock: one that another thread holds at a fork would stay locked in the child. Two threads that come here at
        # the same moment both try, which costs no more than their time.
        if self.is_paused:
            return False
        if self._pause:  # this thread finds out, and the others need not wait with it
            self._paused_until = self._clock() + self._pause
        return True

    def _note(self, *, is_away: bool) -> None:
        if is_away:
            self._pause = min(max(FIRST_PAUSE, 2 * self._pause), self._longest_pause)
            self._paused_until = self._clock() + self._pause
        elif self._pause:
            self._pause = 0.0
