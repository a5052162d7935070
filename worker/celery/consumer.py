"""Celery's consumer in the parent, which must survive the loss of any connection to the broker."""

import logging
from typing import Any

from celery.worker import consumer

logger = logging.getLogger(__name__)


class ReconnectingConsumer(consumer.Consumer):  # type: ignore[misc]
    """A consumer that reconnects even if an ack or the closing of a lost connection fails."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # kombu 5.7.0 raises AttributeError for an ack on a closed channel, which would end the worker. No upstream
        # report found; https://github.com/celery/celery/issues/9250 is another AttributeError after a lost connection.
        self.connection_errors: Any = (*self.connection_errors, AttributeError)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Close the lost connection."""
        try:
            super().on_connection_error_after_connected(exc)
        # kombu 5.7.0 raises AttributeError there now and then, which would end the worker. No upstream report found.
        except Exception as error:
            logger.warning("lost connection to the broker not closed, connecting anew", extra={"reason": repr(error)})
