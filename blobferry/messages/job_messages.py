"""Messages: nudges to look at a row. Losing one costs seconds, getting one twice costs an UPDATE."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from celery import Celery
from kombu.exceptions import EncodeError

from blobferry.contract import READS_QUEUE, ROW_HEADER, SEQ_HEADER, TASK_PREFIX, Request
from blobferry.errors import ConfigurationError, UnreachableError
from blobferry.redaction import redacted_arguments

logger = logging.getLogger(__name__)

#: Options of a bare task that are kept on its row and sent again with each publish.
KEPT_OPTIONS: Final = ("link", "link_error", "chain", "chord", "group_id", "group_index")
PUBLISH_RETRY: Final = {"max_retries": 1, "interval_start": 0.1, "interval_step": 0.2, "interval_max": 0.3}
#: Seconds; without them a publish on a half-open connection waits for ever.
BROKER_TIMEOUTS: Final = {"socket_timeout": 10, "socket_connect_timeout": 5, "socket_keepalive": True}
#: The same for whoever only publishes: a web request waits, up to three times; the caretaker makes good what is lost.
CLIENT_TIMEOUTS: Final = {"socket_timeout": 1.2, "socket_connect_timeout": 1.2, "socket_keepalive": True}
#: Seconds that a read is worth doing after nobody waits for it any more, so that clocks may differ by as much. A worker
#: whose clock is further off is refused by S3 anyway. Source: S3 API reference, error RequestTimeTooSkewed
CLOCK_SKEW: Final = 15 * 60


@dataclass(frozen=True, slots=True)
class Message:
    """One nudge for the job in a row, numbered ``seq``."""

    job_id: str
    operation: str
    queue: str
    arguments: Mapping[str, Any]  #: for people who look at Flower, without secrets; the worker reads the row
    seq: int
    options: Mapping[str, Any]
    parent_id: str | None = None
    root_id: str | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Message":
        """The newest message of a row of ``blobferry_jobs``."""
        shown = redacted_arguments(row["request"] or {})
        if "source" in shown:  # which may be sealed: the column says where it leads
            shown["source"] = row["source"]
        return cls(
            job_id=row["id"],
            operation=row["operation"],
            queue=row["queue"],
            arguments={**shown, "storage": row["storage"]},
            seq=row["publish_seq"],
            options=row["message_options"] or {},
            parent_id=row["parent_id"],
            root_id=row["root_id"],
        )


def client_app(broker_url: str) -> Celery:
    """A Celery app that only publishes. It opens no connection and is nobody's current app.

    It has no result backend: with one, Celery would subscribe to the result of each task that it sends, and a broker
    that is away would hold every submit for the twenty seconds of that subscription's own retries.
    Seen with celery 5.7.0; no upstream report found.
    """
    app = Celery("blobferry-client", broker=broker_url, backend="disabled://", set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        broker_transport_options=CLIENT_TIMEOUTS,
        broker_connection_timeout=2,
        task_publish_retry_policy=PUBLISH_RETRY,
        task_send_sent_event=True,
    )
    try:
        if "://" not in broker_url:  # Celery would take it for a host of RabbitMQ
            raise ValueError(broker_url)
        app.connection_for_write().get_transport_cls()
    except (ImportError, KeyError, ValueError):  # which may show a piece of the password
        raise ConfigurationError(
            "broker_url", "needs a URL such as redis://:password@host:6379/0, the password percent-encoded"
        ) from None
    return app


def publish(app: Celery, message: Message) -> bool:
    """Send the message; False if the broker is out of reach. Never raises: the caretaker publishes what nobody did."""
    try:
        app.send_task(
            TASK_PREFIX + message.operation,
            kwargs=dict(message.arguments),
            task_id=message.job_id,
            queue=message.queue,
            headers={ROW_HEADER: True, SEQ_HEADER: message.seq},
            parent_id=message.parent_id,
            root_id=message.root_id or message.job_id,
            ignore_result=False,
            **message.options,
        )
    except (EncodeError, KeyError, TypeError, ValueError) as error:
        # The broker was never asked. It will not be better next time, and no other job is to wait behind this one.
        logger.warning("message cannot be sent", extra={"job_id": message.job_id, "reason": repr(error)})
        return True
    except Exception as error:  # whatever the broker's client raises, the row is safe
        logger.warning("message not published", extra={"job_id": message.job_id, "reason": repr(error)})
        return False
    return True


def send_read(app: Celery, request: Request, task_id: str, timeout: float) -> None:
    """Send a read that somebody waits for so many seconds. Raises UnreachableError if the broker is."""
    try:
        app.send_task(
            TASK_PREFIX + request.operation,
            kwargs={**request.arguments, "storage": request.storage},
            task_id=task_id,
            queue=READS_QUEUE,
            expires=timeout + CLOCK_SKEW,
            ignore_result=False,
        )
    except Exception as error:  # whatever the broker's client raises
        raise UnreachableError(f"broker: {error}") from error
