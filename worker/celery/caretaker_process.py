"""Supervision of the caretaker: a subprocess of each worker, started again when it dies.

The parent that forks the children holds no thread, engine or client, so its timer supervises the process. The
parent has no database either, so it forwards revoked ids to the caretaker through a pipe: one JSON object a line.
"""

import json
import logging
import os
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any, Final

from celery import bootsteps

from worker.celery.revoke import KEPT, asked_since
from worker.processes import WORKER_ID

logger = logging.getLogger(__name__)

COMMAND: Final = (sys.executable, "-m", "worker", "sweep", "--loop", "--of", WORKER_ID)
LOOK_INTERVAL: Final = 0.5  #: seconds
STOP_TIMEOUT: Final = 5.0  #: seconds that the caretaker gets to end by itself


class CaretakerStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts the caretaker with the worker, and ends it with it."""

    requires = ("celery.worker.components:Timer", "celery.worker.components:Pool")

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._process: subprocess.Popen[bytes] | None = None
        self._timer: Any = None
        self._told = 0.0  #: the time of the newest revoke that it was told

    def start(self, parent: Any) -> None:
        """Start it, and look every half second whether it lives."""
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
            self._process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE)
            assert self._process.stdin is not None, "it is a pipe"
            os.set_blocking(self._process.stdin.fileno(), False)
            self._told = time.monotonic() - KEPT  # the one before may have died with it
        self._tell()

    def _tell(self) -> None:
        assert self._process is not None, "it has just been started"
        assert self._process.stdin is not None, "it is a pipe"
        with suppress(BlockingIOError, BrokenPipeError):  # told at the next look, or to the next caretaker
            for asked_at, task_id in asked_since(self._told):
                os.write(self._process.stdin.fileno(), request_line(task_id))
                self._told = asked_at


def request_line(task_id: str) -> bytes:
    """The line that asks the caretaker to cancel a job: ASCII, and short enough for a pipe to take it in one piece."""
    return json.dumps({"cancel": task_id}).encode() + b"\n"
