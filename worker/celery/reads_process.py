"""The place that a worker keeps for reads: a process beside its slots, which all may be busy with jobs for minutes.

It is a Celery worker of its own, of threads, that consumes the queue of reads. The parent then does not: after a lost
connection a parent takes messages although its slots are busy, and a read among them would wait with it. The parent,
which forks, holds no thread, so its timer supervises the process.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

from celery import bootsteps

from worker import drain
from worker.celery.caretaker_process import MAIN
from worker.settings import load_settings

logger = logging.getLogger(__name__)

LOOK_INTERVAL: Final = 1.0  #: seconds
RESTART_AFTER: Final = 5.0  #: seconds between two starts: one that cannot live must not cost the worker its CPU
STOP_TIMEOUT: Final = 2.0  #: seconds after which a process that does not end is killed; whoever asked asks again
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class ReadsStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts the process with the worker, and stops it with the worker."""

    requires = ("celery.worker.components:Timer", "celery.worker.components:Pool")

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        name = f"{parent.hostname.partition('@')[0]}-reads"
        beside = ("run", "--only", "reads", "--name", name, "--beside", str(os.getpid()))
        self._command = (sys.executable, "-P", "-c", MAIN, *beside)
        self._max_memory = load_settings().max_child_memory
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._timer: Any = None

    def start(self, parent: Any) -> None:
        """Start the process, and check every ``LOOK_INTERVAL`` whether it lives and how large it has become."""
        self._look()
        self._timer = parent.timer.call_repeatedly(LOOK_INTERVAL, self._look)

    def close(self, parent: Any) -> None:
        """Ask the process to end, while the worker's jobs are handed over."""
        if self._timer is not None:
            self._timer.cancel()
        if self._process is not None:
            self._process.terminate()

    def stop(self, parent: Any) -> None:
        """Wait for the end of the process, if need be by force."""
        if self._process is None:
            return
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def terminate(self, parent: Any) -> None:
        """Stop at once."""
        self.close(parent)
        self.stop(parent)

    def _look(self) -> None:
        if self._process is not None and self._process.poll() is None:
            if _memory_of(self._process.pid) > self._max_memory:
                self._process.terminate()  # it answers what it has, and the next look starts another
            return
        if drain.is_draining() or (self._process and time.monotonic() - self._started_at < RESTART_AFTER):
            return
        if self._process is not None:
            logger.warning("process for reads ended, starting another", extra={"status": self._process.returncode})
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)
        self._started_at = time.monotonic()


def end_with(parent: int) -> None:
    """End this process, by SIGTERM, once the worker beside which it runs is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_INTERVAL)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _memory_of(pid: int) -> int:
    """Bytes that the process holds; 0 if it has just ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return 0
