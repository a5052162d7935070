"""Messages of the app's own tasks, which are told that a job has ended."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid5

from celery import Celery
from kombu.exceptions import EncodeError

logger = logging.getLogger(__name__)

CALLBACK_QUEUE: Final = "celery"  #: of a task that names none: the default of Celery, and so of most apps
_ROUTE: Final = frozenset(("queue", "exchange", "routing_key"))
_WHERE: Final = (*_ROUTE, "priority", "headers")  #: options of a message that are not in its body


@dataclass(frozen=True, slots=True)
class CallbackMessage:
    """The message of a task that is told of an end. Sent again, it has the same task id."""

    job_id: str
    root_id: str | None
    signature: Mapping[str, Any]  #: as ``check_callback`` returns it
    event: Mapping[str, Any]

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The event, then the signature's own, as with Celery's ``link``; an immutable signature gets its own alone."""
        own = tuple(self.signature["args"])
        return own if self.signature.get("immutable") else (dict(self.event), *own)


def send_callback(app: Celery, producer: Any, message: CallbackMessage) -> None:
    """Send the message by this producer. Raises what the broker's client raises."""
    name = message.signature["task"]
    try:
        task, where = _task_message(app, message)
    except Exception as error:  # Celery raises whatever its own code meets in an odd option
        _report_unsendable(message, error)
        return
    try:
        app.amqp.send_task_message(producer, name, task, retry=False, **where)
    except (EncodeError, KeyError, TypeError, ValueError) as error:
        _report_unsendable(message, error)


def _task_message(app: Celery, message: CallbackMessage) -> tuple[Any, dict[str, Any]]:
    """The message as Celery's producer takes it, and the options that say where it goes."""
    signature = message.signature
    options = {name: value for name, value in signature.get("options", {}).items() if value is not None}
    where = {name: options.pop(name) for name in _WHERE if name in options}
    if not _ROUTE & where.keys():
        where["queue"] = CALLBACK_QUEUE
    if not all(isinstance(where[name], str) for name in _ROUTE & where.keys()):
        raise TypeError(f"a route is no text: {where}")  # in a row of an earlier version
    task = app.amqp.create_task_message(
        str(uuid5(UUID(message.event["event_id"]), signature["task"])),
        signature["task"],
        message.arguments,
        dict(signature["kwargs"]),
        callbacks=listed(options.pop("link", None)),
        errbacks=listed(options.pop("link_error", None)),
        create_sent_event=app.conf.task_send_sent_event,
        parent_id=message.job_id,
        root_id=message.root_id or message.job_id,
        reply_to=app.thread_oid,
        **options,
    )
    return task, where


def _report_unsendable(message: CallbackMessage, error: Exception) -> None:
    # Another try would fail as well, so it counts as sent: others must not wait behind this one.
    logger.warning("callback cannot be sent", extra={"job_id": message.job_id, "reason": repr(error)})


def listed(links: Any) -> Any:
    """One link or several as the list that a message holds."""
    return links if links is None or isinstance(links, list | tuple) else [links]
