"""WebhookPost: takes the webhooks that are due, has them posted, and notes what became of them.

In a thread of the caretaker, and in threads of their own: no transfer and no sweep waits for an endpoint. Any number of
caretakers may do the same at once. Killed at any moment it has at most posted what will be posted again.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy.orm import Session

from models import queries
from models.queries import FailedTry, WebhookDelivery
from worker.errors import BlobferryError
from worker.maintenance.webhooks.endpoints import Endpoints, PostAnswer
from worker.maintenance.webhooks.signed_event import SignedEvent
from worker.maintenance.webhooks.webhook_lanes import WebhookLanes
from worker.runtime import Runtime

logger = logging.getLogger(__name__)

LOOK_INTERVAL: Final = 1.0  #: seconds between two looks for what is due
#: Seconds, beyond those of a try, after which others take what was taken: whoever took it must have been killed.
HOLD_MARGIN: Final = 30.0
FIRST_PAUSE: Final = 5.0  #: seconds after the first try; doubled after each that follows
LONGEST_PAUSE: Final = 3600.0  #: seconds between two tries, whatever an endpoint asks for
#: Seconds between two looks for what no worker signs, and after its time within which another worker may still try it.
UNSIGNED_INTERVAL: Final = 60.0
UNSIGNED_GRACE: Final = 3600.0


class WebhookPost:
    """The webhooks that one caretaker sends."""

    def __init__(self, runtime: Runtime) -> None:
        """Raises ConfigurationError for settings that cannot be used."""
        self._runtime = runtime
        self._settings = runtime.settings.webhooks
        self._endpoints = Endpoints(self._settings)
        total = self._settings.total_seconds
        self._lanes = WebhookLanes(self._post, threads=self._settings.threads, total_seconds=total)
        self._unsigned_at = -UNSIGNED_INTERVAL
        self._complaint = ""

    def loop(self, ended: threading.Event) -> None:
        """Send what becomes due, until the event is set; what is on its way then is waited for a moment longer."""
        while not ended.is_set():
            self._step(self.begin)
            self._step(self.give_up_unsigned)
            if self._lanes.awaited:
                self._step(self.settle)
            else:
                ended.wait(LOOK_INTERVAL)
        self._step(self.settle)

    def send_due(self) -> None:
        """Send, once, what is due now."""
        while self._step(self.begin) or self._lanes.awaited:
            self._step(self.settle)

    def _step(self, step: Callable[[], int]) -> int:
        """Never raises: what is not done now is due again after a while."""
        try:
            done = step()
        except Exception as error:  # whatever it is: the thread goes on
            if str(error) != self._complaint:  # the same one each second says nothing new
                known = isinstance(error, BlobferryError)
                logger.warning("webhooks not sent, tried again soon: %s", error, exc_info=not known)
            self._complaint = str(error)
            return 0
        if done:
            self._complaint = ""
        return done

    def begin(self) -> int:
        """Have posted what is due, as far as there are lanes; return how many. Raises UnreachableError."""
        begun = 0
        while taken := self._take():
            for delivery in taken:
                self._lanes.begin(delivery)
            begun += len(taken)
        return begun

    def _take(self) -> Sequence[WebhookDelivery]:
        free, wanted = self._lanes.free, {"busy": self._lanes.busy_hosts, "secrets": list(self._settings.secrets)}
        if not (free and self._settings.secrets):
            return ()
        with self._runtime.database.read() as session:
            if not queries.webhooks_are_due(session, **wanted):  # mostly none is, and then nobody waits for a lock
                return ()
        hold = self._settings.total_seconds + HOLD_MARGIN
        with self._runtime.database.begin() as session:
            return queries.take_webhooks(session, limit=free, hold_seconds=hold, **wanted)

    def _post(self, delivery: WebhookDelivery) -> PostAnswer:
        try:
            url = self._runtime.sealer.opened(delivery.url)
        except BlobferryError as error:
            return PostAnswer(problem=str(error))
        secrets = self._settings.secrets[delivery.secret]
        event = SignedEvent.of(delivery, secrets, delivery.taken_at)
        return self._endpoints.post(url, event.body, event.headers)

    def settle(self) -> int:
        """Note what has ended, after waiting for some of it; return how many. Raises UnreachableError."""
        tried = list(self._lanes.ended(LOOK_INTERVAL))
        if not tried:
            return 0
        with self._runtime.database.begin() as session:
            over = [each.delivery.id for each in tried if self._note(session, *each)]
        for delivery, answer in tried:
            _log(delivery, answer, is_over=delivery.id in over)
        return len(tried)

    def _note(self, session: Session, delivery: WebhookDelivery, answer: PostAnswer) -> bool:
        """Note how the try has ended; return whether it was the last one, and failed."""
        if answer.is_gone:
            queries.note_webhook_gone(session, delivery, answer.problem)
            return True
        if not answer.problem and answer.status is not None:
            queries.note_webhook_delivered(session, delivery.id, answer.status)
            return False
        delay = max(pause_after(delivery.tries), min(answer.wait, LONGEST_PAUSE))
        failed = FailedTry(delivery.id, delivery.tries, answer.status, answer.problem, delay)
        return queries.note_webhook_failed(session, failed, give_up_seconds=self._settings.give_up_seconds)

    def give_up_unsigned(self) -> int:
        """Now and then give up what no worker has signed in all its time; return how many. Raises UnreachableError."""
        if time.monotonic() < self._unsigned_at + UNSIGNED_INTERVAL:
            return 0
        self._unsigned_at, seconds = time.monotonic(), self._settings.give_up_seconds + UNSIGNED_GRACE
        with self._runtime.database.read() as session:
            if not queries.unsigned_webhooks(session, self._settings.secrets):
                return 0
        with self._runtime.database.begin() as session:
            return queries.give_up_unsigned(session, self._settings.secrets, give_up_seconds=seconds)


def pause_after(tries: int) -> float:
    """Seconds until the next try after so many: doubled each time, and at random so that not all come at once."""
    longest = min(FIRST_PAUSE * 2.0 ** min(tries - 1, 30), LONGEST_PAUSE)
    return random.uniform(longest / 2, longest)


def _log(delivery: WebhookDelivery, answer: PostAnswer, *, is_over: bool) -> None:
    """The URL may hold a secret, so only its host and path are named."""
    shown = {"job_id": delivery.job_id, "endpoint": delivery.endpoint, "tries": delivery.tries}
    if is_over:
        logger.warning("webhook given up: %s", answer.problem, extra=shown)
    elif answer.problem:
        logger.info("webhook not delivered, tried again later: %s", answer.problem, extra=shown)
    else:
        logger.debug("webhook delivered", extra=shown)
