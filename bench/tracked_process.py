"""Processes under the reaper: their CPU and memory while they run, and all they took when they have ended."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.process_tree import Peak, cpu_of, watched
from dev.process import FOREIGN_VARIABLES, LOG_TAIL_LINES, Service, ServiceError, ServiceProcess, running

REAPER: Final = Path(__file__).parent / "agents" / "reaper.py"


@dataclass(frozen=True, slots=True)
class Tracked:
    """A running server under the reaper."""

    pid: int
    peak: Peak

    def cpu(self) -> float:
        """Seconds that it and all it has started have taken so far."""
        return cpu_of(self.pid)


@dataclass(frozen=True, slots=True)
class Used:
    """What a command took from its start to its end."""

    wall: float
    cpu: float
    memory: int  #: bytes, the highest sum over its processes


def _reaped(report: Path, command: Sequence[str | Path]) -> list[str | Path]:
    return [sys.executable, "-S", "-E", REAPER, report, *command]


@contextmanager
def tracked_server(
    name: str,
    command: Sequence[str | Path],
    *,
    directory: Path,
    answers: Callable[[], object],
    environment: Mapping[str, str],
) -> Iterator[Tracked]:
    """Start a server and wait until it answers; end it politely with the block."""
    process = ServiceProcess(
        name,
        _reaped(directory / f"{name}.json", command),
        log=directory / f"{name}.log",
        answers=answers,
        stop_group=False,
        environment=environment,
    )
    with running(Service(processes=(process,))), watched(process.pid) as peak:
        yield Tracked(process.pid, peak)


def run_tracked(
    name: str,
    command: Sequence[str | Path],
    *,
    directory: Path,
    environment: Mapping[str, str],
    timeout: float = 900,
) -> Used:
    """Run a command to its end. Raises ServiceError if it fails."""
    report, log = directory / f"{name}.json", directory / f"{name}.log"
    report.unlink(missing_ok=True)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN_VARIABLES)}
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [str(part) for part in _reaped(report, command)],
            cwd=directory,
            env=inherited | dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
        watched(process.pid) as peak,
    ):
        process.wait(timeout)
    found: dict[str, Any] = json.loads(report.read_text()) if report.exists() else {"status": "unknown"}
    if found["status"]:
        lines = log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        raise ServiceError("\n".join([f"{name} ended with status {found['status']}", *lines]))
    memory = max(peak.memory, found["largest_kib"] * 1024)
    return Used(found["wall"], found["user"] + found["system"], memory)
