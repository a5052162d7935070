"""What the processes of a worker ask of the database, counted in them: see ``agents/counted_sql/sitecustomize.py``."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DIRECTORY: Final = Path(__file__).parent / "agents" / "counted_sql"  #: goes to the PYTHONPATH of what is counted
_ENTRY: Final = struct.Struct("=QQ")  #: transactions and statements of one process
_SLOTS: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class SqlCounts:
    """Transactions and statements so far, of all processes that use the same file."""

    path: Path

    def variables(self, python_path: str) -> dict[str, str]:
        """The variables that have a Python process, and its children, counted."""
        if not self.path.exists():
            with self.path.open("wb") as file:
                file.truncate(_SLOTS * _ENTRY.size)
        return {"PYTHONPATH": f"{python_path}:{DIRECTORY}", "BENCH_SQL_COUNTS": str(self.path)}

    def read(self) -> dict[str, int]:
        """By name. An autocommitted read is a transaction, too."""
        found = list(_ENTRY.iter_unpack(self.path.read_bytes()))
        return {"transactions": sum(entry[0] for entry in found), "statements": sum(entry[1] for entry in found)}
