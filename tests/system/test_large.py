"""A blob above 5 GiB, which no single call can bring or copy: written, appended to, moved, and read back.

Run with ``-o log_cli=true -o log_cli_level=INFO`` to see the figures.
"""

import hashlib
import logging
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from blobferry import Job
from dev.process import work_directory
from dev.services import Postgres, S3Service, Valkey, postgres_database, swift
from dev.stack import BUCKET, Stack, Worker
from tests.system.conftest import prepared
from tests.system.recorded_stack import Scene, recorded

logger = logging.getLogger(__name__)

MIB = 1024 * 1024
SIZE = 6 * 1024 * MIB
NEEDED = 4 * SIZE  #: bytes of disk: the old blob, the new one, the copy of it, and the file it is read into
PART_SIZE = 16 * MIB
PART_THREADS = 4
BOUND = 120 + PART_THREADS * min(PART_SIZE // MIB, 64)  #: MiB that a worker child may hold
STRIDE = 4 * MIB  #: between two numbers in the file, which is sparse, so that no part of it looks like another
PATIENCE = 1_800.0  #: seconds

pytestmark = [pytest.mark.long, pytest.mark.timeout(3_600)]


@dataclass(frozen=True)
class Site:
    """A scene with one worker, and the storage that is used."""

    scene: Scene
    storage: str
    worker: Worker

    def finish(self, job: Job, *, bytes_sent: int | None = None) -> Job:
        """Wait for the job, and say what it took. ``bytes_sent`` are by its own count."""
        begun = time.monotonic()
        job = self.scene.client.wait(job.id, timeout=PATIENCE)
        logger.info("%s %s: %.0f s", self.storage, job.operation, time.monotonic() - begun)
        attempts = self.scene.attempts(job)
        assert [row["outcome"] for row in attempts] == ["succeeded"], attempts
        (row,) = self.scene.rows.select("select bytes_sent from blobferry_jobs where id = :id", id=job.id)
        assert bytes_sent in (None, row["bytes_sent"])
        return job


@pytest.fixture(params=["local", "swift"])
def site(request: pytest.FixtureRequest, broker: Valkey, s3: S3Service, postgres_server: Postgres) -> Iterator[Site]:
    with (
        work_directory("large") as directory,  # not pytest's own, which is kept
        swift() if request.param == "swift" else nullcontext(s3) as store,
        postgres_database(postgres_server) as url,
    ):
        if shutil.disk_usage(directory).free < NEEDED:
            pytest.skip(f"needs {NEEDED // MIB // 1024} GiB of disk in {directory}")
        blobs = directory / "blobs"
        blobs.mkdir()
        settings = {
            "BLOBFERRY_CONCURRENCY": "1",
            "BLOBFERRY_TRANSFER__PART_SIZE": str(PART_SIZE),
            "BLOBFERRY_TRANSFER__PART_THREADS": str(PART_THREADS),
            # A hundred copies at once, the default, take Swift longer on two cores than a client waits for each.
            "BLOBFERRY_STORAGES__SWIFT__MULTIPARTCOPYMAXCONCURRENCY": "8",
            "BLOBFERRY_STORAGES__LOCAL__DRIVER": "local",
            "BLOBFERRY_STORAGES__LOCAL__ROOTDIRECTORY": str(blobs),
        }
        stack = Stack(broker.url, url, store, directory, settings=settings, buckets={"swift": BUCKET})
        with recorded(prepared(broker, stack), delays={}) as scene, scene.stack.worker() as worker:
            yield Site(scene, request.param, worker)


def sparse_file(path: Path) -> Path:
    with path.open("wb") as file:
        for number, offset in enumerate(range(0, SIZE, STRIDE)):
            file.seek(offset)
            file.write(number.to_bytes(8, "big"))
        file.truncate(SIZE)
    return path


def sha256(path: Path, more: bytes = b"") -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(more)
    return digest.hexdigest()


def test_six_gib_are_written_appended_to_moved_and_read_in_bounded_memory(site: Site) -> None:
    client, storage, requests = site.scene.client, site.storage, site.scene.requests.requests
    file = sparse_file(site.scene.stack.incoming / "large.bin")
    last = site.scene.stack.incoming / "last.bin"
    last.write_bytes(b"!")

    site.finish(client.write_stream("/large/a", file, storage=storage), bytes_sent=SIZE)

    before = len(requests())
    job = site.finish(client.write_stream("/large/a", last, SIZE, storage=storage), bytes_sent=1)
    assert job.size == SIZE + 1
    appended = requests()[before:]
    sent, fetched = sum(request.received for request in appended), sum(request.answered for request in appended)
    logger.info("%s append: %d bytes out, %d in, by %s", storage, sent, fetched, Counter(r.operation for r in appended))
    assert max(sent, fetched) < MIB

    site.finish(client.move("/large/a", "/large/b", storage=storage), bytes_sent=0)
    moved = requests()[before + len(appended) :]
    assert sum(request.received + request.answered for request in moved) < MIB
    if storage == "swift":
        for copies in (appended, moved):
            assert sum(request.operation == "copy_part" for request in copies) > 1

    out = site.scene.stack.incoming / "out.bin"
    site.finish(client.read_stream("/large/b", out, storage=storage))
    assert out.stat().st_size == SIZE + 1
    assert sha256(out) == sha256(file, b"!")
    assert client.list("/large", storage=storage) == ["/large/b"]

    peak = site.worker.peak_memory()
    logger.info("%s: peak %d MiB of %d", storage, peak, BOUND)
    assert peak <= BOUND
