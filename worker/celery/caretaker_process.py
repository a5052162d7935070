"""Supervision of the caretaker: a subprocess of each worker, restarted when it dies.

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

from blobferry.contract import JOBS_QUEUE
from worker.celery.drain_bound import tell_of_signals
from worker.celery.revoke import KEPT, asked_since
from worker.neighbours import HERE
from worker.processes import WORKER_ID

logger = logging.getLogger(__name__)

#: As ``python -m worker``, but not from the current directory, where an app may have a package of that name.
MAIN: Final = f"import sys; sys.path.append({str(HERE)!r}); from worker.__main__ import entry; entry()"
COMMAND: Final = (sys.executable, "-P", "-c", MAIN, "sweep", "--loop", "--of", WORKER_ID)
LOOK_INTERVAL: Final = 0.5  #: seconds
STOP_TIMEOUT: Final = 5.0  #: seconds after which a caretaker that does not end is killed


class CaretakerStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts the caretaker with the worker and stops it with the worker."""

    requires = ("celery.worker.components:Timer", "celery.worker.components:Pool")

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        serves = getattr(parent.app.amqp.queues, "consume_from", {})
        self._signals = tell_of_signals()
        command = (*COMMAND, "--signals", str(self._signals))
        self._command = (*command, "--runs-jobs") if JOBS_QUEUE in serves else command
        self._process: subprocess.Popen[bytes] | None = None
        self._timer: Any = None
        self._told = 0.0  #: the time of the newest revoke that was forwarded

    def start(self, parent: Any) -> None:
        """Start the caretaker, and check every ``LOOK_INTERVAL`` whether it lives."""
        self._look()
        self._timer = parent.timer.call_repeatedly(LOOK_INTERVAL, self._look)

    def stop(self, parent: Any) -> None:
        """Stop the caretaker, if need be by force."""
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
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, pass_fds=(self._signals,))
            assert self._process.stdin is not None, "it is a pipe"
            os.set_blocking(self._process.stdin.fileno(), False)
            self._told = time.monotonic() - KEPT  # the last caretaker may have died before it acted on them
        self._tell()

    def _tell(self) -> None:
        assert self._process is not None, "it has just been started"
        assert self._process.stdin is not None, "it is a pipe"
        with suppress(BlockingIOError, BrokenPipeError):  # the next check, or the next caretaker, gets the rest
            for asked_at, task_id in asked_since(self._told):
                os.write(self._process.stdin.fileno(), request_line(task_id))
                self._told = asked_at


def request_line(task_id: str) -> bytes:
    """The line that asks the caretaker to cancel a job: ASCII, and short enough for a pipe to take it in one piece."""
    return json.dumps({"cancel": task_id}).encode() + b"\n"
