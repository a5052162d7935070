"""Supervision of the caretaker: a subprocess of each worker, started again when it dies.

The parent that forks the children holds no thread, engine or client, so it looks after the process from its timer.
"""

import logging
import subprocess
import sys
from typing import Any, Final

from celery import bootsteps

logger = logging.getLogger(__name__)

COMMAND: Final = (sys.executable, "-m", "worker", "sweep", "--loop")
LOOK_INTERVAL: Final = 1.0  #: seconds
STOP_TIMEOUT: Final = 5.0  #: seconds that the caretaker gets to end by itself


class CaretakerStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts the caretaker with the worker, and ends it with it."""

    requires = ("celery.worker.components:Timer", "celery.worker.components:Pool")

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._process: subprocess.Popen[bytes] | None = None
        self._timer: Any = None

    def start(self, parent: Any) -> None:
        """Start it, and look every second whether it lives."""
        self._look()
        self._timer = parent.timer.call_repeatedly(LOOK_INTERVAL, self._look)

    def stop(self, parent: Any) -> None:
        """End it."""
        if self._timer is not None:
            self._timer.cancel()
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    terminate = stop

    def _look(self) -> None:
        if self._process is None or self._process.poll() is not None:
            if self._process is not None:
                logger.warning("caretaker ended, starting another", extra={"status": self._process.returncode})
            self._process = subprocess.Popen(COMMAND)
