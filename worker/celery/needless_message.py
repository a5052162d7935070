"""The strategy of jobs in the parent: a message that a batch has made needless is acknowledged, and nothing more."""

import logging
from collections.abc import Callable
from typing import Any

from blobferry.contract import ROW_HEADER, SEQ_HEADER
from worker.celery import task_guard
from worker.celery.batched_messages import is_needless

logger = logging.getLogger(__name__)


def strategy(task: Any, app: Any, consumer: Any, **how: Any) -> Callable[..., Any]:
    """The strategy of all our tasks, for messages that are needed. Flower gets no event of the others."""
    receive = task_guard.strategy(task, app, consumer, **how)

    def received(message: Any, body: Any, ack: Any, *args: Any, **kwargs: Any) -> Any:
        if _is_needless(message.headers):
            return ack(logger, ())
        return receive(message, body, ack, *args, **kwargs)

    return received


def _is_needless(headers: Any) -> bool:
    """Whether these are the headers of such a message. They may hold anything."""
    if not isinstance(headers, dict) or not headers.get(ROW_HEADER):
        return False
    job_id, seq = headers.get("id"), headers.get(SEQ_HEADER)
    return isinstance(job_id, str) and isinstance(seq, int) and is_needless(job_id, seq)
