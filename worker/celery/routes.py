"""Where tasks go that a worker sends for Celery: links, the next task of a chain, the body of a chord."""

from typing import Any, Final

from blobferry.contract import READS, READS_QUEUE, TASK_PREFIX
from blobferry.messages.callback_messages import CALLBACK_QUEUE

#: Waits for the tasks of a group where the result backend cannot count them; the worker whose tasks they are runs it.
_OF_WORKERS: Final = ("celery.chord_unlock",)
_READ_TASKS: Final = frozenset(read.task_name for read in READS.values())


def route(name: str, args: Any, kwargs: Any, options: dict[str, Any], task: Any = None, **others: Any) -> Any:
    """Celery's route of a task whose signature names no queue: the app's for the app's tasks; None: our jobs' queue."""
    if options.get("queue") or options.get("exchange") or options.get("routing_key"):
        return None
    if name in _READ_TASKS:
        return {"queue": READS_QUEUE}
    return None if name.startswith(TASK_PREFIX) or name in _OF_WORKERS else {"queue": CALLBACK_QUEUE}
