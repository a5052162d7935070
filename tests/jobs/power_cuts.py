"""A power cut, as SQLite may find its files afterwards: what was synced is there, of what came later all or a part."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import event, make_url

from models import Database


class Disk:
    """What is on the disk of a SQLite database. To the databases its connections say when a sync has returned."""

    def __init__(self, directory: Path, *databases: Database) -> None:
        self._databases = databases
        self._file = Path(str(make_url(str(databases[0].engine.url)).database))
        self._log = Path(f"{self._file}-wal")
        self._synced, self._synced_log = directory / "synced.db", directory / "synced.db-wal"
        self.syncs = 0
        for database in databases:
            database.close()
            event.listen(database.engine, "connect", self._connect)
        self._sync(str(self._file))

    def _connect(self, connection: Any, record: Any) -> None:
        connection.sync = self._sync

    def _sync(self, path: str) -> None:
        self.syncs += 1
        shutil.copyfile(self._file, self._synced)
        if self._log.exists():
            shutil.copyfile(self._log, self._synced_log)
        else:
            self._synced_log.write_bytes(b"")

    def lose_power(self, kept: Callable[[int], int] = lambda unsynced: 0) -> None:
        """Lose what was not synced, but for the first ``kept(number)`` of its bytes."""
        log, synced = self._log.read_bytes(), self._synced_log.read_bytes()
        for database in self._databases:
            database.close()
        if log[:32] == synced[:32]:  # it was not begun anew since then
            synced = log[: len(synced) + kept(len(log) - len(synced))]
        shutil.copyfile(self._synced, self._file)
        self._log.write_bytes(synced)
        Path(f"{self._file}-shm").unlink(missing_ok=True)
