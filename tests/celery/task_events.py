"""The events that Celery's workers send of their tasks, as Flower sees them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery


class TaskEvents:
    """All that was said so far."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def of(self, task_id: str, *kinds: str) -> list[str]:
        """The kinds of a task's events, in order; only these if any are named."""
        said = [event["type"] for event in list(self.seen) if event.get("uuid") == task_id]
        return [kind for kind in said if not kinds or kind in kinds]

    def ends(self, task_id: str) -> list[str]:
        """The states in which runs of a task ended, in order."""
        return self.of(task_id, "task-succeeded", "task-failed", "task-retried")


@contextmanager
def task_events(app: Celery) -> Iterator[TaskEvents]:
    """Collects them until the end of the block."""
    events = TaskEvents()
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": events.seen.append})
        thread = threading.Thread(target=receiver.capture, kwargs={"wakeup": False})
        thread.start()
        try:
            yield events
        finally:
            receiver.should_stop = True
            thread.join()
