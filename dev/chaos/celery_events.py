"""Listens to Celery's events: whether each job ended in SUCCESS or FAILURE."""

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from celery import Celery

from blobferry.messages import job_messages as messages


@dataclass
class Telling:
    """The types of the final events of each job, by job id."""

    ends: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def hear(self, event: dict[str, Any]) -> None:
        """One event."""
        if event["type"] in ("task-succeeded", "task-failed"):
            self.ends[event["uuid"]].add(event["type"])

    def loop(self, app: Celery, ended: threading.Event) -> None:
        """Listen until the event is set; reconnect whenever the broker goes away."""
        while not ended.is_set():
            with suppress(Exception), app.connection_for_read() as connection:
                receiver = app.events.Receiver(connection, handlers={"*": self.hear})
                while not ended.is_set():
                    with suppress(TimeoutError):
                        for _ in receiver.itercapture(limit=None, timeout=1, wakeup=False):
                            if ended.is_set():  # asked at each event: there may be no second without one
                                break
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
