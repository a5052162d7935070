"""Listening to what Celery is told: how often each job ended in SUCCESS or FAILURE."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from celery import Celery

from blobferry import messages


@dataclass
class Telling:
    """When it was told of the end of a job, by job id; in seconds since the epoch."""

    ends: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    _heard: set[tuple[str, float]] = field(default_factory=set)

    def hear(self, event: dict[str, Any]) -> None:
        """One event."""
        told = (
            event.get("uuid", ""),
            event.get("timestamp", 0.0),
        )  # one whose sending timed out may have been sent, and is sent again
        if event["type"] in ("task-succeeded", "task-failed") and told not in self._heard:
            self._heard.add(told)
            self.ends[event["uuid"]].append(time.time())

    def loop(self, app: Celery, ended: threading.Event) -> None:
        """Listen until the event, whatever happens to the broker."""
        while not ended.is_set():
            with suppress(Exception), app.connection_for_read() as connection:
                receiver = app.events.Receiver(connection, handlers={"*": self.hear})
                while not ended.is_set():
                    with suppress(TimeoutError):
                        receiver.capture(limit=None, timeout=1, wakeup=False)
            ended.wait(0.2)


@contextmanager
def listening(broker_url: str) -> Iterator[Telling]:
    """Listens until the end of the block."""
    telling, ended, app = Telling(), threading.Event(), messages.client_app(broker_url)
    thread = threading.Thread(target=telling.loop, args=(app, ended), name="listening")
    thread.start()
    try:
        yield telling
    finally:
        ended.set()
        thread.join()
        app.close()
