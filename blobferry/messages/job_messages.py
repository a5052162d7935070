"""Messages that let a worker act on a row at once. A lost one costs seconds, a repeated one an UPDATE."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from celery import Celery
from kombu.exceptions import EncodeError

from blobferry.contract import READS_QUEUE, ROW_HEADER, SEQ_HEADER, TASK_PREFIX, Request
from blobferry.errors import ConfigurationError, UnreachableError
from blobferry.messages.broker_address import BrokerOptions, broker_address
from blobferry.messages.configured_app import ConfiguredApp
from blobferry.redaction import redacted_arguments

logger = logging.getLogger(__name__)

#: Options of a bare task that are kept on its row and sent again with each publish.
KEPT_OPTIONS: Final = ("link", "link_error", "chain", "chord", "group_id", "group_index")
PUBLISH_RETRY: Final = {"max_retries": 1, "interval_start": 0.1, "interval_step": 0.2, "interval_max": 0.3}
#: Seconds. Without them a publish on a half-open connection blocks for ever.
BROKER_TIMEOUTS: Final = {"socket_timeout": 10, "socket_connect_timeout": 5, "socket_keepalive": True}
#: Seconds, for clients: a web request waits for up to three of them, and the caretaker repeats a failed publish.
CLIENT_TIMEOUTS: Final = {"socket_timeout": 1.2, "socket_connect_timeout": 1.2, "socket_keepalive": True}
#: Seconds added to the expiry of a read, because the clocks of client and worker may differ. S3 refuses a worker whose
#: clock is further off. Source: S3 API reference, error RequestTimeTooSkewed
CLOCK_SKEW: Final = 15 * 60


@dataclass(frozen=True, slots=True)
class Message:
    """Message number ``seq`` of a job."""

    job_id: str
    operation: str
    queue: str
    arguments: Mapping[str, Any]  #: without secrets, for display in Flower; the worker reads the row
    seq: int
    options: Mapping[str, Any]
    parent_id: str | None = None
    root_id: str | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Message":
        """The current message of a row of ``blobferry_jobs``."""
        shown = redacted_arguments(row["request"] or {})
        if "source" in shown:  # possibly sealed; the column holds what may be shown
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


def client_app(broker_url: str, options: BrokerOptions | None = None) -> Celery:
    """A Celery app that only publishes. It opens no connection and does not become the current app.

    It has no result backend. With one, Celery subscribes to the result of each task that it sends, and while the broker
    is away the retries of that subscription delay every submit by twenty seconds.
    Seen with celery 5.7.0; no upstream report found.
    """
    broker = broker_address(broker_url, options)
    app = ConfiguredApp("blobferry-client", broker=broker.url, backend="disabled://", set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        broker_transport_options={**CLIENT_TIMEOUTS, **broker.transport_options},
        broker_use_ssl=broker.tls,
        broker_connection_timeout=2,
        task_publish_retry_policy=PUBLISH_RETRY,
        task_send_sent_event=True,
    )
    try:
        if "://" not in broker_url:  # Celery would read it as the name of a RabbitMQ host
            raise ValueError(broker_url)
        app.connection_for_write().get_transport_cls()
    except (ImportError, KeyError, ValueError):  # its text may show part of the password
        raise ConfigurationError(
            "broker_url", "needs a URL such as redis://:password@host:6379/0, with the password percent-encoded"
        ) from None
    return app


def publish(app: Celery, message: Message) -> bool:
    """Send the message; False if the broker is out of reach. Never raises: the caretaker publishes again."""
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
        # Another try would fail as well, so report it as sent: other jobs must not wait behind this one.
        logger.warning("message cannot be sent", extra={"job_id": message.job_id, "reason": repr(error)})
        return True
    except Exception as error:  # clients of brokers raise many types; the row is safe in any case
        logger.warning("message not published", extra={"job_id": message.job_id, "reason": repr(error)})
        return False
    return True


def send_read(app: Celery, request: Request, task_id: str, timeout: float) -> None:
    """Send a read that its caller awaits for ``timeout`` seconds. Raises UnreachableError."""
    try:
        app.send_task(
            TASK_PREFIX + request.operation,
            kwargs={**request.arguments, "storage": request.storage},
            task_id=task_id,
            queue=READS_QUEUE,
            expires=timeout + CLOCK_SKEW,
            ignore_result=False,
        )
    except Exception as error:  # clients of brokers raise many types
        raise UnreachableError(f"broker: {error}") from error
