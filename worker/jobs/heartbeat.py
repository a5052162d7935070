"""The heartbeat: one thread of a process that renews the leases of all its runs, each when it is due."""

import logging
import threading
import time
from typing import Final, Protocol

logger = logging.getLogger(__name__)

AFTER_ERROR: Final = 1.0  #: seconds to the next renewal after an unexpected error
IDLE: Final = 60.0  #: seconds that the thread sleeps while there is no lease


class Beating(Protocol):
    """A lease, as far as the heartbeat knows it."""

    def beat(self) -> float | None:
        """Renew it; return the seconds until the next renewal, or None if it is lost."""
        ...


class Heartbeat:
    """Renews leases in a thread of its own. Thread-safe; started by the first lease, so it never outlives a fork.

    A lease that lasts shorter than its interval costs no thread and no wake-up.
    """

    def __init__(self) -> None:
        self._due: dict[Beating, float] = {}  # by time.monotonic()
        self._changed = threading.Condition()
        self._wakes_at = 0.0
        self._beaten: Beating | None = None  # the one that is being renewed
        self._thread: threading.Thread | None = None

    def keep(self, lease: Beating, seconds: float) -> None:
        """Renew the lease in ``seconds``, and from then on as often as it asks for, until it is dropped."""
        due = time.monotonic() + seconds
        with self._changed:
            self._due[lease] = due
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
                self._wakes_at = due
                self._thread.start()
            elif due < self._wakes_at:
                self._changed.notify_all()

    def drop(self, lease: Beating) -> None:
        """Renew the lease no more. Returns once a renewal that is going on has ended."""
        with self._changed:
            self._due.pop(lease, None)
            while self._beaten is lease and threading.current_thread() is not self._thread:
                self._changed.wait()

    def hurry(self, lease: Beating) -> None:
        """Renew the lease at once, unless it was dropped. Does not wait for that."""
        with self._changed:
            if lease in self._due:
                self._due[lease] = time.monotonic()
                self._changed.notify_all()

    def _run(self) -> None:
        try:
            while True:
                self._beat(*self._next())
        finally:
            with self._changed:
                self._beaten, self._thread = None, None
                self._changed.notify_all()

    def _next(self) -> tuple[Beating, float]:
        """Wait until a lease is due; return it, and when it was."""
        with self._changed:
            while True:
                now = time.monotonic()
                lease = min(self._due, key=self._due.__getitem__, default=None)
                self._wakes_at = now + IDLE if lease is None else self._due[lease]
                if lease is not None and self._wakes_at <= now:
                    self._beaten = lease
                    return lease, self._wakes_at
                self._changed.wait(self._wakes_at - now)

    def _beat(self, lease: Beating, due: float) -> None:
        pause: float | None = AFTER_ERROR
        try:
            pause = lease.beat()
        except Exception:  # a bug must not end the leases of the other runs
            logger.exception("heartbeat failed")
        with self._changed:
            self._beaten = None
            if pause is None:
                self._due.pop(lease, None)
            elif self._due.get(lease) == due:  # neither dropped nor hurried meanwhile
                self._due[lease] = time.monotonic() + pause
            self._changed.notify_all()


PROCESS_HEARTBEAT: Final = Heartbeat()
"""The heartbeat of this process, shared by its runs."""
