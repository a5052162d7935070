"""Celery's consumer in the parent, which must survive the loss of any connection to the broker, and any answer."""

import logging
import time
import zlib
from typing import Any, Final

from celery.worker import consumer
from celery.worker.state import maybe_shutdown
from kombu.common import ignore_errors

logger = logging.getLogger(__name__)

FIRST_PAUSE: Final = 0.5  #: seconds after a refusal; doubles up to LONGEST_PAUSE
LONGEST_PAUSE: Final = 5.0  #: seconds; meanwhile nothing else happens in the parent
#: Seconds without a refusal after which the broker counts as working again.
OVER_AFTER: Final = 10.0
#: What kombu and Celery raise for a message that is none: no JSON, no envelope, no such compression. It has left the
#: queue by then, so that connecting anew suffices. Seen with kombu 5.7.0; no upstream report found.
MALFORMED: Final = (LookupError, TypeError, ValueError, RecursionError, zlib.error)


class ReconnectingConsumer(consumer.Consumer):  # type: ignore[misc]
    """A consumer that reconnects even if an ack or the closing of a lost connection fails, or the broker refuses.

    Or if something lies in a queue that no Celery has put there.

    A refusal is an error answer: READONLY after a failover, MISCONF, OOM, NOPERM and the like. To Celery it is an error
    of the channel, and such errors end the worker.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # kombu 5.7.0 raises AttributeError for an ack on a closed channel, which would end the worker. No upstream
        # report found; https://github.com/celery/celery/issues/9250 is another AttributeError after a lost connection.
        self.connection_errors: Any = (*self.connection_errors, *self.channel_errors, AttributeError, *MALFORMED)
        self._refusals = 0  #: in a row
        self._until_over: Any = None  #: the timer that ends the row

    def on_ready(self) -> None:
        """Called when the consumer has connected."""
        super().on_ready()
        if self._refusals:  # it may have connected only to be refused the next command
            self._until_over = self.timer.call_after(OVER_AFTER, self._refusals_are_over)

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Wait before the next try to connect."""
        if self._is_refusal(exc):
            self._back_off(exc)
        else:
            super().on_connection_error_before_connected(exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Close the lost connection."""
        if self._is_refusal(exc):
            connection = self.connection
            self.connection: Any = None
            ignore_errors(self, connection.close)  # type: ignore[no-untyped-call]
            self._back_off(exc)
            return
        if isinstance(exc, MALFORMED):
            logger.warning("message that is none of Celery's dropped, connecting anew", extra={"reason": repr(exc)})
        try:
            super().on_connection_error_after_connected(exc)
        # kombu 5.7.0 raises AttributeError there now and then, which would end the worker. No upstream report found.
        except Exception as error:
            logger.warning("lost connection to the broker not closed, connecting anew", extra={"reason": repr(error)})

    def _is_refusal(self, error: Exception) -> bool:
        # To kombu, LOADING and NOAUTH are errors of the connection: it waits between two tries of its own.
        return isinstance(error, self.channel_errors)

    def _back_off(self, error: Exception) -> None:
        """Say the first refusal of a row, then wait, longer each time. Raises WorkerShutdown if a SIGTERM arrives."""
        if self._until_over is not None:
            self._until_over.cancel()
        if not self._refusals:
            extra = {"broker": self.conninfo.as_uri(), "reason": str(error)}
            logger.warning("broker refuses commands, trying again until it takes them", extra=extra)
        ends_at = time.monotonic() + min(FIRST_PAUSE * 2**self._refusals, LONGEST_PAUSE)
        self._refusals = min(self._refusals + 1, 10)
        while time.monotonic() < ends_at:
            maybe_shutdown()
            time.sleep(0.1)

    def _refusals_are_over(self) -> None:
        self._refusals = 0
        logger.info("broker takes commands again")
