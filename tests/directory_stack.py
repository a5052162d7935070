"""A worker whose default storage is a directory: no object store to start."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dev.services import valkey
from dev.services.s3_server import S3Service
from dev.stack import Stack
from worker.driver import Driver


@dataclass(frozen=True, slots=True)
class LocalStack(Stack):
    """The stack, and the storage that its worker calls "default"."""

    @property
    def driver(self) -> Driver:
        return Driver.from_parameters({"driver": "local", "rootdirectory": str(self.directory / "blobs")})


@contextmanager
def local_stack(directory: Path, migrated: Path, **settings: str) -> Iterator[LocalStack]:
    """With its own broker, a copy of the migrated database, and a running worker."""
    (directory / "blobs").mkdir()
    (directory / "incoming").mkdir()
    shutil.copyfile(migrated, directory / "blobferry.db")
    storage = {
        "BLOBFERRY_STORAGES__DEFAULT__DRIVER": "local",
        "BLOBFERRY_STORAGES__DEFAULT__ROOTDIRECTORY": str(directory / "blobs"),
    }
    nowhere = S3Service(endpoint="http://127.0.0.1:1", access_key="none", secret_key="none", processes=())
    with valkey() as broker:
        url = f"sqlite:///{directory / 'blobferry.db'}"
        stack = LocalStack(broker.url, url, nowhere, directory, settings=storage | settings)
        with stack.worker():
            yield stack
