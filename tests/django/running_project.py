"""A project whose worker runs: its storage is a directory, on each kind of database."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.services import valkey
from dev.services.s3_server import S3Service
from tests.directory_stack import LocalStack
from worker.driver import Driver

NO_STORE = S3Service(endpoint="http://127.0.0.1:1", access_key="none", secret_key="none", processes=())


@dataclass(frozen=True)
class Running:
    """A worker, its broker and database, and the directories of its spool and store."""

    stack: LocalStack

    @property
    def spool(self) -> Path:
        return self.stack.directory / "spool"

    @property
    def driver(self) -> Driver:
        """The store, as a stranger changes it."""
        return self.stack.driver

    def settings(self) -> dict[str, Any]:
        """BLOBFERRY of the project."""
        return {"BROKER_URL": self.stack.broker_url, "SPOOL_DIR": self.spool}

    def spooled(self) -> list[Path]:
        """What is in the spool."""
        return sorted(path for path in self.spool.iterdir() if path.name.startswith(("ferry-", ".ferry-")))


@contextmanager
def running(directory: Path, database_url: str) -> Iterator[Running]:
    """The same, started, on this database, which has our tables."""
    for name in ("blobs", "incoming", "spool"):
        (directory / name).mkdir()
    settings = {
        "BLOBFERRY_STORAGES__DEFAULT__DRIVER": "local",
        "BLOBFERRY_STORAGES__DEFAULT__ROOTDIRECTORY": str(directory / "blobs"),
        "BLOBFERRY_SPOOL_DIR": str(directory / "spool"),
        "BLOBFERRY_SWEEP__INTERVAL_SECONDS": "0.3",
    }
    with valkey() as broker:
        stack = LocalStack(broker.url, database_url, NO_STORE, directory, settings=settings)
        with stack.worker():
            yield Running(stack)
