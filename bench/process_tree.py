"""CPU and memory of a process and all that it has started, living and gone."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TICKS: Final = os.sysconf("SC_CLK_TCK")
PAGE: Final = os.sysconf("SC_PAGE_SIZE")
INTERVAL: Final = 0.1  #: seconds between two looks at the memory


def pids_of(root: int) -> list[int]:
    """The process and its descendants, parents first."""
    found = [root]
    for pid in found:
        for task in _listed(Path(f"/proc/{pid}/task")):
            try:
                found += [int(child) for child in (task / "children").read_text().split()]
            except OSError:  # it has ended meanwhile
                continue
    return found


def _listed(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:
        return []


def cpu_of(root: int) -> float:
    """Seconds of CPU, user and system, of the process, its descendants, and those that they have waited for.

    A child that ends between two looks would be counted twice or not at all, so it looks until nothing changes.
    """
    while True:
        before = pids_of(root)
        ticks = sum(_ticks(pid) for pid in before)
        if pids_of(root) == before:
            return ticks / TICKS


def _ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime. Source: proc_pid_stat(5)


def memory_of(root: int) -> int:
    """Bytes of resident memory, summed over the tree: pages that several of them share count for each."""
    pages = 0
    for pid in pids_of(root):
        try:
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            continue
    return pages * PAGE


@dataclass(slots=True)
class Peak:
    """The highest sum of resident memory that was seen, in bytes."""

    memory: int = 0


@contextmanager
def watched(root: int) -> Iterator[Peak]:
    """Look at the memory of the tree within the block, ten times a second."""
    peak, ended = Peak(), threading.Event()

    def look() -> None:
        while not ended.wait(INTERVAL):
            peak.memory = max(peak.memory, memory_of(root))

    thread = threading.Thread(target=look, name="memory")
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


@dataclass(frozen=True, slots=True)
class Moment:
    """When, how far, and the CPU that it had taken by then."""

    at: float  #: seconds of a monotonic clock
    cpu: float  #: seconds
    done: int


def moment(root: int, done: int) -> Moment:
    """Now."""
    return Moment(time.monotonic(), cpu_of(root), done)
