"""WebhookLanes: the threads that post, so many at most, and a quarter of them to one host.

Each try has ``total_seconds``. A thread that hangs on after that keeps its lane, and its host's, until it has ended,
while its delivery is put off. So an endpoint that hangs costs the others nothing.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import NamedTuple

from models.queries import WebhookDelivery
from worker.maintenance.webhooks.endpoints import PostAnswer

logger = logging.getLogger(__name__)


class Tried(NamedTuple):
    """A delivery, and how its try has ended."""

    delivery: WebhookDelivery
    answer: PostAnswer


@dataclass(slots=True, eq=False)
class _Lane:
    delivery: WebhookDelivery
    ends_at: float
    is_late: bool = False  #: its delivery has been given back as failed


class WebhookLanes:
    """The posts that are on their way. Only its methods' one caller may use it."""

    def __init__(self, post: Callable[[WebhookDelivery], PostAnswer], *, threads: int, total_seconds: float) -> None:
        """``post`` is called in threads of its own."""
        self._post = post
        self._threads = threads
        self._of_host = max(1, threads // 4)
        self._total = total_seconds
        self._lanes: set[_Lane] = set()
        self._ended = SimpleQueue[tuple[_Lane, PostAnswer]]()

    @property
    def free(self) -> int:
        """How many more may begin."""
        return self._threads - len(self._lanes)

    @property
    def awaited(self) -> int:
        """How many are on their way whose answer counts."""
        return sum(not lane.is_late for lane in self._lanes)

    @property
    def busy_hosts(self) -> list[str]:
        """The hosts that get no more now."""
        counted = Counter(lane.delivery.host for lane in self._lanes)
        return [host for host, number in counted.items() if number >= self._of_host]

    def begin(self, delivery: WebhookDelivery) -> None:
        """Post it in a thread of its own."""
        lane = _Lane(delivery, time.monotonic() + self._total)
        self._lanes.add(lane)
        threading.Thread(target=self._run, args=(lane,), name="webhook", daemon=True).start()

    def ended(self, wait: float) -> Iterator[Tried]:
        """Those whose try has ended; waits for the first one for so many seconds at most."""
        pause = min([wait, *(lane.ends_at - time.monotonic() for lane in self._lanes if not lane.is_late)])
        while True:
            try:
                lane, answer = self._ended.get(timeout=max(pause, 0.0)) if pause > 0 else self._ended.get_nowait()
            except Empty:
                break
            pause = 0.0
            self._lanes.remove(lane)
            if not lane.is_late:
                yield Tried(lane.delivery, answer)
        now = time.monotonic()
        for lane in [lane for lane in self._lanes if not lane.is_late and lane.ends_at <= now]:
            lane.is_late = True
            yield Tried(lane.delivery, PostAnswer(problem=f"no answer within {self._total:g} s"))

    def _run(self, lane: _Lane) -> None:
        try:
            answer = self._post(lane.delivery)
        except Exception as error:  # else its lane would stay taken for ever
            logger.exception("webhook not posted", extra={"job_id": lane.delivery.job_id})
            answer = PostAnswer(problem=type(error).__name__)
        self._ended.put((lane, answer))
