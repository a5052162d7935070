"""Real processes for development and tests: start one, wait until it truly answers, end it with all it started.

This module knows processes, ports and logs; what runs in them is the business of :mod:`dev.services` and its parts.
"""

import os
import random
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil

from dev.waiting import wait_until

# Below the range from which systems take the ports of outgoing connections (Linux 32768, macOS 49152): a port that a
# client's socket happens to hold while its server is down for a moment could not be listened on again.
PORTS = range(15_000, 30_000)
LOOPBACK = "127.0.0.1"
LOG_TAIL_LINES = 25
STOP_SECONDS = 10.0  #: seconds that a process has between the polite signal and SIGKILL
# Settings of the developer's own shell and of a coverage run: not meant for the servers.
FOREIGN_VARIABLES = ("AWS_", "CELERY", "COVERAGE_", "FLOWER_", "MOTO_", "PG", "PYTHONWARNINGS", "S3_")

AnyService = TypeVar("AnyService", bound="Service")


class ServiceError(RuntimeError):
    """A service did not start, or did not answer in time. The message names it and shows the end of its log."""


def free_port() -> int:
    """A free TCP port of 127.0.0.1. Drawn at random, so that two runs at once rarely draw the same one;
    when they do, :class:`ServiceProcess` sees that the listener is not its own.
    """
    for port in random.sample(PORTS, k=len(PORTS)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise ServiceError("no free TCP port on 127.0.0.1")


@contextmanager
def work_directory(name: str, directory: Path | None = None) -> Iterator[Path]:
    """The caller's own ``directory``, made if need be and kept; without one, a temporary one that is removed."""
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        yield directory.resolve()
        return
    with tempfile.TemporaryDirectory(prefix=f"blobferry-{name}-") as temporary:
        yield Path(temporary)


class ServiceProcess:
    """One server process in a session of its own, so that Ctrl-C reaches it only through us."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        answers: Callable[[], object],
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
        owner: int | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        stop_group: bool = True,
        timeout: float = 60.0,
    ) -> None:
        """Describe the process; :meth:`start` starts it.

        Args:
            name: What errors call it.
            command: The program and its arguments.
            log: Where its output goes; a restart appends.
            answers: Whether it serves real requests yet; may raise until it does.
            port: The TCP port that it must itself listen on before ``answers`` is asked: another run's server that was
                quicker to take the port would answer just as well.
            environment: Variables on top of the inherited ones.
            owner: The user and group id to run as; our own by default.
            stop_signal: What asks it to end.
            stop_group: Whether its children get that signal too, or only it.
            timeout: Seconds it may take to answer.
        """
        self.name = name
        self._command = [str(part) for part in command]
        self._log = log
        self._answers = answers
        self._port = port
        self._environment = environment or {}
        self._owner = owner
        self._stop_signal = stop_signal
        self._stop_group = stop_group
        self._timeout = timeout
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The id of the running process, which is also its group's."""
        if self._process is None:
            raise ServiceError(f"{self.name} is not running")
        return self._process.pid

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start it, without waiting. ``environment``: variables of this start alone, on top of its own."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_VARIABLES)}
        with self._log.open("ab") as log:
            try:
                self._process = subprocess.Popen(
                    self._command,
                    cwd=self._log.parent,
                    env=inherited | {"PYTHONUNBUFFERED": "1"} | dict(self._environment) | dict(environment or {}),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    user=self._owner,
                    group=self._owner,
                    extra_groups=None if self._owner is None else [],
                )
            except OSError as error:
                raise ServiceError(f"{self.name} cannot be started: {error}") from error

    def wait_until_ready(self) -> None:
        """Wait until it answers.

        Raises:
            ServiceError: It ended, or took too long.
        """
        process = self._process

        def settled() -> bool:
            return self._ended() or (self._listens() and bool(self._answers()))

        try:
            wait_until(settled, self._timeout, f"{self.name} answers")
        except TimeoutError as error:
            raise ServiceError(f"{error}\n{self._log_tail()}") from error
        if process is None or self._ended():
            status = None if process is None else process.returncode
            raise ServiceError(f"{self.name} ended with status {status} before it answered\n{self._log_tail()}")

    def run(self) -> None:
        """Start it and wait for its end. Raises ServiceError if it takes too long or fails."""
        self.start()
        assert self._process is not None
        try:
            status = self._process.wait(self._timeout)
        except subprocess.TimeoutExpired:
            self.kill9()
            raise ServiceError(f"{self.name} takes more than {self._timeout:g} seconds\n{self._log_tail()}") from None
        if status:
            raise ServiceError(f"{self.name} ended with status {status}\n{self._log_tail()}")

    def stop(self) -> None:
        """End it and everything in its process group, politely first. Safe to repeat."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            (os.killpg if self._stop_group else os.kill)(self._process.pid, self._stop_signal)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        self.kill9()

    def kill9(self) -> None:
        """SIGKILL to it, its process group and all that it started, at once. Safe to repeat."""
        if self._process is None:
            return
        family = []
        with suppress(psutil.NoSuchProcess):
            # PostgreSQL's children leave its process group and would outlive it for a moment.
            family = psutil.Process(self._process.pid).children(recursive=True)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for relative in family:
            with suppress(psutil.NoSuchProcess):
                relative.kill()
        self._process.wait()
        psutil.wait_procs(family, timeout=STOP_SECONDS)
        self._process = None

    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _listens(self) -> bool:
        if self._port is None:
            return True
        connections = psutil.Process(self.pid).net_connections("tcp")
        return any(found.status == psutil.CONN_LISTEN and found.laddr[1] == self._port for found in connections)

    def _log_tail(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n".join([f"the end of its log, {self._log}:", *(lines or ["(empty)"])])


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What every running service offers: its process ids, a sudden death, a restart."""

    processes: tuple[ServiceProcess, ...] = field(default=(), repr=False, compare=False)

    @property
    def pids(self) -> tuple[int, ...]:
        """The ids of its processes, which change with a restart."""
        return tuple(process.pid for process in self.processes)

    def kill9(self) -> None:
        """Kill all its processes as a power failure would."""
        for process in self.processes:
            process.kill9()

    def restart(self) -> None:
        """Start again on the same ports and the same directory, stopping first what still runs; wait for answers."""
        self.stop()
        for process in self.processes:
            process.start()
        for process in self.processes:
            process.wait_until_ready()

    def stop(self) -> None:
        """End all its processes politely. Safe to repeat."""
        for process in reversed(self.processes):
            process.stop()


@contextmanager
def running(service: AnyService) -> Iterator[AnyService]:
    """The service, started and answering; ended on the way out, also if it was killed or restarted in between."""
    try:
        service.restart()
        yield service
    finally:
        service.stop()
