"""The processes of a worker, as its caretaker sees them: which of the parent's children live."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from worker.identity import process_name

_DEAD: Final = ("Z", "X")  #: states of a process that has ended. Source: proc(5), /proc/pid/stat


class Family:
    """The children of one process. Linux only: it reads /proc."""

    def __init__(self, worker_id: str, parent: int) -> None:
        self._worker_id = worker_id
        self._parent = parent
        self._known = frozenset[int]()

    def has_lost_one(self) -> bool:
        """Whether a child has ended since the last call."""
        before, self._known = self._known, self._living()
        return bool(before - self._known)

    def dead(self, names: list[str]) -> list[str]:
        """Those of these process names that were children of this worker and are no more."""
        living = {process_name(self._worker_id, pid) for pid in self._living()}
        return [name for name in names if name.startswith(f"{self._worker_id}@") and name not in living]

    def _living(self) -> frozenset[int]:
        found = set[int]()
        for task in Path(f"/proc/{self._parent}/task").glob("*/children"):
            with suppress(OSError):
                found |= {int(pid) for pid in task.read_text().split()}
        return frozenset(pid for pid in found if _lives(pid))


def _lives(pid: int) -> bool:
    try:
        # The name in parentheses may hold anything, blanks and parentheses included.
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in _DEAD


def of_parent(worker_id: str) -> Family:
    """The family that this process belongs to, as a child of the worker of this id."""
    return Family(worker_id, os.getppid())
