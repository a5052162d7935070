"""Delivers what the outbox holds: tells the app's own tasks that jobs have ended, each at least once."""

import logging
import time
from typing import Final

from blobferry.messages.callback_messages import CallbackMessage
from blobferry.messages.end_events import event_of
from models import queries
from models.queries import TaskDelivery
from worker.maintenance.sender import SendMessages
from worker.runtime import Runtime

logger = logging.getLogger(__name__)

AT_ONCE: Final = 64  #: deliveries that are sent together, in one round trip to Redis
#: Seconds after which somebody else sends what has been taken: whoever took it must have been killed.
HOLD_SECONDS: Final = 30.0
RETRY_SECONDS: Final = 2.0  #: after a try that the broker did not take


def deliver_ends(runtime: Runtime, publish: SendMessages, *, seconds: float = 0.0) -> int:
    """Send deliveries that are due, ``AT_ONCE`` at a time, for about ``seconds``; return how many were sent.

    Killed between its two transactions it has sent messages that will be sent again: the same event, the same task id.
    Raises UnreachableError.
    """
    ends_at, told = time.monotonic() + seconds, 0
    while True:
        sent = _deliver_some(runtime, publish)
        told += sent
        if sent < AT_ONCE or time.monotonic() > ends_at:
            return told


def _deliver_some(runtime: Runtime, publish: SendMessages) -> int:
    with runtime.database.begin() as session:
        taken = queries.take_deliveries(session, limit=AT_ONCE, hold_seconds=HOLD_SECONDS)
    if not taken:
        return 0
    sent = publish(*map(_message, taken))
    with runtime.database.begin() as session:
        if sent:
            queries.note_delivered(session, [delivery.id for delivery in taken[:sent]])
        if sent < len(taken):
            queries.put_off_deliveries(session, [delivery.id for delivery in taken[sent:]], RETRY_SECONDS)
    if sent < len(taken):
        logger.warning("ends not told, tried again soon", extra={"jobs": [each.job_id for each in taken[sent:]]})
    return sent


def _message(delivery: TaskDelivery) -> CallbackMessage:
    return CallbackMessage(delivery.job_id, delivery.root_id, delivery.receiver, event_of(delivery._asdict()))
