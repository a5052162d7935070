"""Celery's consumer in the parent, which must outlive every connection to the broker."""

import logging
from typing import Any

from celery.worker import consumer

logger = logging.getLogger(__name__)


class Consumer(consumer.Consumer):  # type: ignore[misc]
    """A consumer that connects anew, whatever the connection before says while it is closed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # What kombu 5.7 raises of an ack on a connection that was closed meanwhile; it would end the worker.
        self.connection_errors: Any = (*self.connection_errors, AttributeError)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Close what is left of the connection that was lost."""
        try:
            super().on_connection_error_after_connected(exc)
        except Exception as error:  # kombu 5.7 raises AttributeError there now and then, which would end the worker
            logger.warning("what is left of a lost connection was not closed", extra={"reason": repr(error)})
