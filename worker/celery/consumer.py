"""Celery's consumer in the parent, which must outlive every connection to the broker."""

import logging
from typing import Any

from celery.worker import consumer

logger = logging.getLogger(__name__)


class Consumer(consumer.Consumer):  # type: ignore[misc]
    """A consumer that reconnects even if closing the lost connection fails."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # kombu 5.7.0 raises AttributeError for an ack on a closed channel, which would end the worker. No upstream
        # report found; https://github.com/celery/celery/issues/9250 is another AttributeError after a lost connection.
        self.connection_errors: Any = (*self.connection_errors, AttributeError)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Close what is left of the connection that was lost."""
        try:
            super().on_connection_error_after_connected(exc)
        # kombu 5.7.0 raises AttributeError there now and then, which would end the worker. No upstream report found.
        except Exception as error:
            logger.warning("what is left of a lost connection was not closed", extra={"reason": repr(error)})
