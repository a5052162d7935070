"""A blob above 5 GiB, which no single call can bring or copy: written, appended to, moved, and read back.

Run with ``-o log_cli=true -o log_cli_level=INFO`` to see the figures.
"""

import hashlib
import logging
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from blobferry import Client, Job
from dev.process import work_directory
from dev.proxies.s3_recorder import Recorder, recorder
from dev.services import Postgres, S3Service, Valkey, postgres_database, swift
from dev.stack import Stack, Worker
from tests.system.observation import Rows

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
class Scene:
    """A stack with one worker, and what looks at it."""

    stack: Stack
    storage: str
    client: Client
    worker: Worker
    rows: Rows
    requests: Recorder

    def finish(self, job: Job) -> Job:
        """Wait for the job, and say what it took."""
        begun = time.monotonic()
        job = self.client.wait(job.id, timeout=PATIENCE)
        logger.info("%s %s: %.0f s", self.storage, job.operation, time.monotonic() - begun)
        attempts = self.rows.select(
            "select outcome, error_message from blobferry_attempts where job_id = :id", id=job.id
        )
        assert [row["outcome"] for row in attempts] == ["succeeded"], attempts
        return job

    def bytes_sent(self, job: Job) -> int:
        """By the job's own count."""
        (row,) = self.rows.select("select bytes_sent from blobferry_jobs where id = :id", id=job.id)
        return int(row["bytes_sent"])


@pytest.fixture(params=["local", "swift"])
def scene(
    request: pytest.FixtureRequest, broker: Valkey, s3: S3Service, postgres_server: Postgres, tmp_path: Path
) -> Iterator[Scene]:
    with ExitStack() as services:
        directory = services.enter_context(work_directory("large"))  # not pytest's own, which is kept
        if shutil.disk_usage(directory).free < NEEDED:
            pytest.skip(f"needs {NEEDED // MIB // 1024} GiB of disk in {directory}")
        store = services.enter_context(swift()) if request.param == "swift" else s3
        requests = services.enter_context(recorder(store.endpoint, directory))
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
        url = services.enter_context(postgres_database(postgres_server))
        stack = Stack(broker.url, url, store, directory, requests.endpoint, settings, {"swift": "blobferry"})
        stack.prepare()
        broker.flush()
        rows = Rows(url)
        services.callback(rows.close)
        client = services.enter_context(stack.client())
        worker = services.enter_context(stack.worker())
        yield Scene(stack, request.param, client, worker, rows, requests)


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


def test_six_gib_are_written_appended_to_moved_and_read_in_bounded_memory(scene: Scene) -> None:
    client, storage = scene.client, scene.storage
    file = sparse_file(scene.stack.incoming / "large.bin")
    last = scene.stack.incoming / "last.bin"
    last.write_bytes(b"!")

    job = scene.finish(client.write_stream("/large/a", file, storage=storage))
    assert scene.bytes_sent(job) == SIZE

    before = scene.requests.requests()
    job = scene.finish(client.write_stream("/large/a", last, SIZE, storage=storage))
    assert job.size == SIZE + 1
    assert scene.bytes_sent(job) == 1
    appended = scene.requests.requests()[len(before) :]
    sent = sum(request.received for request in appended)
    fetched = sum(request.answered for request in appended)
    logger.info("%s append: %d bytes out, %d in, by %s", storage, sent, fetched, Counter(r.operation for r in appended))
    assert sent < MIB
    assert fetched < MIB

    job = scene.finish(client.move("/large/a", "/large/b", storage=storage))
    assert scene.bytes_sent(job) == 0
    moved = scene.requests.requests()[len(before) + len(appended) :]
    assert sum(request.received + request.answered for request in moved) < MIB
    if storage == "swift":
        for copies in (appended, moved):
            assert sum(request.operation == "copy_part" for request in copies) > 1

    out = scene.stack.incoming / "out.bin"
    job = scene.finish(client.read_stream("/large/b", out, storage=storage))
    assert out.stat().st_size == SIZE + 1
    assert sha256(out) == sha256(file, b"!")
    assert client.list("/large", storage=storage) == ["/large/b"]

    peak = scene.worker.peak_memory()
    logger.info("%s: peak %d MiB of %d", storage, peak, BOUND)
    assert peak <= BOUND
