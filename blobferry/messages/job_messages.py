"""Messages that let a worker act on a row at once. A lost one costs seconds, a repeated one an UPDATE."""

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

from celery import Celery
from kombu.exceptions import EncodeError

from blobferry.contract import READS_QUEUE, ROW_HEADER, SEQ_HEADER, TASK_PREFIX, Request
from blobferry.errors import ConfigurationError, UnreachableError
from blobferry.messages.broker_address import BrokerOptions, broker_address
from blobferry.messages.callback_messages import CallbackMessage, listed, send_callback
from blobferry.messages.configured_app import ConfiguredApp
from blobferry.redaction import redacted_arguments, short_repr

logger = logging.getLogger(__name__)

#: Options of a bare task that are kept on its row and sent again with each publish.
KEPT_OPTIONS: Final = ("link", "link_error", "chain", "chord", "group_id", "group_index")
_LINKS: Final = {"link": "callbacks", "link_error": "errbacks"}  #: as a message's body names these options
OPERATIONS: Final = 1000  #: commands that go to Redis in one round trip at most; a message with its event is two
MAX_SHOWN: Final = 1024  #: characters of the arguments in a message's header, which Flower shows; Celery's own limit
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


def publish(app: Celery, *messages: Message | CallbackMessage) -> int:
    """Send the messages, over Redis in one round trip; return how many of them, from the first on, were sent.

    Fewer than all if the broker is out of reach; some of the others may have been sent all the same. Never raises: the
    caretaker publishes again. A stale connection is replaced once.
    """
    sent = 0
    for tries_left in (1, 0):
        try:
            with app.producer_or_acquire() as producer:
                producer.connection.transport_options.update(_connecting(producer.connection))
                in_one = getattr(producer, "supports_batch_publish", False)  # kombu has it from 5.7 on
                with producer.batch(max_size=OPERATIONS) if in_one else nullcontext():
                    for position, message in enumerate(messages[sent:], start=sent):
                        _send(app, producer, message)
                        sent = sent if in_one else position + 1
            return len(messages)
        except Exception as error:  # clients of brokers raise many types; the rows are safe in any case
            if not tries_left:
                shown = {"job_id": messages[sent].job_id, "messages": len(messages) - sent, "reason": repr(error)}
                # In the text too: an app's own format need not show what is in ``extra``.
                text = "message not published, the caretaker does it: job %(job_id)s, %(messages)d in all: %(reason)s"
                logger.warning(text, shown, extra=shown)
    return sent


def _connecting(connection: Any) -> Mapping[str, int]:
    """Kombu's options for one try to connect: with several hosts another one is tried next. It waits for none."""
    return {"max_retries": int(len(connection.alt) > 1), "interval_start": 0, "interval_step": 0, "interval_max": 0}


def _send(app: Celery, producer: Any, message: Message | CallbackMessage) -> None:
    """Send the message, with Celery's signals and events; in a batch of the producer it leaves with the others.

    Not by ``send_task``, which takes a connection and two round trips for each message, and makes the task that runs
    here the parent of whatever it publishes.
    """
    if isinstance(message, CallbackMessage):
        send_callback(app, producer, message)
        return
    name, options = TASK_PREFIX + message.operation, dict(message.options)
    links = {kind: listed(options.pop(option, None)) for option, kind in _LINKS.items()}
    try:
        task = app.amqp.create_task_message(
            message.job_id,
            name,
            (),
            dict(message.arguments),
            create_sent_event=app.conf.task_send_sent_event,
            argsrepr="()",
            kwargsrepr=short_repr(message.arguments, MAX_SHOWN),
            parent_id=message.parent_id,
            root_id=message.root_id or message.job_id,
            reply_to=app.thread_oid,
            ignore_result=False,
            **links,
            **options,
        )
        headers = {ROW_HEADER: True, SEQ_HEADER: message.seq}
        app.amqp.send_task_message(producer, name, task, queue=message.queue, headers=headers, retry=False)
    except (EncodeError, KeyError, TypeError, ValueError) as error:
        # Another try would fail as well, so report it as sent: other jobs must not wait behind this one.
        shown = {"job_id": message.job_id, "reason": repr(error)}
        logger.warning("message of job %(job_id)s cannot be sent: %(reason)s", shown, extra=shown)


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
