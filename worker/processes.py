"""The processes of a worker: their names, and which children of the parent are alive."""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from socket import gethostname
from typing import Final

_DEAD: Final = ("Z", "X")  #: states of a process that has ended; see proc(5), /proc/pid/stat


class WorkerProcesses:
    """The children of one parent process. Reads /proc, so Linux only."""

    def __init__(self, worker_id: str, parent: int) -> None:
        self.worker_id = worker_id
        self._parent = parent
        self._known = frozenset[int]()

    def has_lost_one(self) -> bool:
        """Whether a child has ended since the last call."""
        before, self._known = self._known, self._living()
        return bool(before - self._known)

    def dead(self, names: list[str]) -> list[str]:
        """Those of the names that belong to ended children of this worker; [] if /proc does not show the parent."""
        if not Path(f"/proc/{self._parent}/stat").exists():
            return []
        ours = [name for name in names if name.startswith(f"{self.worker_id}@")]
        return [name for name in ours if not _is_child(int(name.rpartition(":")[2]), self._parent)]

    def _living(self) -> frozenset[int]:
        return children_of(self._parent)


def children_of(parent: int) -> frozenset[int]:
    """The ids of the living children of a process."""
    found = set[int]()
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        with suppress(OSError):
            found |= {int(pid) for pid in task.read_text().split()}
    return frozenset(pid for pid in found if _is_child(pid, parent))


def _is_child(pid: int, parent: int) -> bool:
    """Whether the process is alive and a child of ``parent``. Numbers only, since host names may change."""
    try:
        # The process name, in parentheses, may itself hold blanks and parentheses.
        state, its_parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return False
    return state not in _DEAD and int(its_parent) == parent


def processes_of_parent(worker_id: str) -> WorkerProcesses:
    """The processes of the worker with this id. This process must be a child of its parent process."""
    return WorkerProcesses(worker_id, os.getppid())


#: Random, drawn before the fork, so that the children of this worker share it and no other worker has it.
WORKER_ID: Final = secrets.token_hex(4)


def process_name(worker_id: str = WORKER_ID, pid: int | None = None) -> str:
    """``id@host:pid`` of a process of the worker; by default of this one."""
    return f"{worker_id}@{gethostname()}:{os.getpid() if pid is None else pid}"
