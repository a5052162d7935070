"""Workers that are killed, for real: SIGKILL to the whole process group, at any moment of a transfer."""

import hashlib
import os
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from blobferry import Job, JobState
from dev.proxies.s3_recorder import Recorder, recorder
from dev.services import Valkey
from dev.stack import BUCKET, CHECKOUT, Stack, Worker
from dev.waiting import wait_until
from tests.system.conftest import PART_SIZE, PART_THREADS
from tests.system.observation import Rows, wait_for

SIZE = 8 * PART_SIZE + 12_345
SEED = 20261122
KILLS = 20


@pytest.fixture
def other_checkout(tmp_path: Path) -> Path:
    """Another copy of the application: it shares database, broker and source file with the first, and nothing else."""
    copy = tmp_path / "other-checkout"
    for package in ("blobferry", "tasks", "worker", "models", "alembic"):
        shutil.copytree(CHECKOUT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


class TaskEvents:
    """The events that Celery's workers send, as Flower sees them."""

    def __init__(self, broker_url: str) -> None:
        self._app = Celery(broker=broker_url, set_as_current=False)
        self._seen: list[dict[str, Any]] = []

    @contextmanager
    def listening(self) -> Iterator["TaskEvents"]:
        with self._app.connection() as connection:
            receiver = self._app.events.Receiver(connection, handlers={"*": self._seen.append})
            thread = threading.Thread(target=receiver.capture)
            thread.start()
            try:
                yield self
            finally:
                receiver.should_stop = True
                thread.join()
        self._app.close()

    def of(self, job_id: str) -> Counter[str]:
        """How many of each kind there were for a task."""
        return Counter(event["type"] for event in list(self._seen) if event.get("uuid") == job_id)

    def results(self, job_id: str) -> list[str]:
        """The states in which runs of a task ended, in order."""
        ends = ("task-succeeded", "task-failed", "task-retried")
        return [event["type"] for event in list(self._seen) if event.get("uuid") == job_id and event["type"] in ends]


def owner(job: Job, workers: list[Worker]) -> Worker | None:
    """The worker whose child runs the job."""
    if job.worker is None:
        return None
    group = os.getpgid(int(job.worker.rpartition(":")[2]))
    return next((worker for worker in workers if worker.pids == (group,)), None)


def assert_resumed_well(
    stack: Stack, rows: Rows, requests: Recorder, job: Job, file: Path, *, killed_at: float, saved: set[int]
) -> None:
    key = str(job.path)[1:]
    s3 = stack.s3.client()
    blob = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    # moto dates every upload 2010: one that was opened in the last instant of a worker, and thus has no part, cannot be
    # told from another program's there. tests/transfer/upload/test_crashes.py shows it found on a store with a clock.
    unfinished = [
        upload
        for upload in s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        if s3.list_parts(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"]).get("Parts")
    ]
    s3.close()
    assert job.state == JobState.SUCCEEDED, job
    assert hashlib.sha256(blob).digest() == hashlib.sha256(file.read_bytes()).digest()
    assert unfinished == []
    parts = [request for request in requests.requests() if request.is_part and request.path.endswith(key)]
    again = {part.part_number for part in parts if part.started_at > killed_at}
    assert not again & saved, "a part with a row was sent again"
    twice = sum(part.received for part in parts) - file.stat().st_size
    assert 0 <= twice <= PART_THREADS * PART_SIZE
    attempts = rows.select("select * from blobferry_attempts where job_id = :id order by attempt", id=job.id)
    assert [row["attempt"] for row in attempts] == list(range(1, job.attempt + 1))
    assert [row["outcome"] for row in attempts] == ["died"] * (job.attempt - 1) + ["succeeded"]
    assert all(row["worker"] and row["started_at"] <= row["finished_at"] for row in attempts)


@pytest.mark.long  # in every run, chaos and the failures of workers do it
def test_kills_lose_nothing_and_send_nothing_twice(stack: Stack, broker: Valkey, other_checkout: Path) -> None:
    moments = random.Random(SEED)
    file = stack.incoming / "blob.bin"
    file.write_bytes(moments.randbytes(SIZE))
    with ExitStack() as services:
        requests = services.enter_context(recorder(stack.s3.endpoint, stack.directory))
        stack = replace(stack, endpoint=requests.endpoint)
        events = services.enter_context(TaskEvents(broker.url).listening())
        client = services.enter_context(stack.client())
        rows = Rows(stack.database_url)
        services.callback(rows.close)
        workers = [
            services.enter_context(stack.worker("first")),
            services.enter_context(stack.worker("second", checkout=other_checkout)),
        ]
        started = time.monotonic()
        job = client.write_stream("/kill/undisturbed", file)
        job = wait_for(client, job.id, lambda job: job.is_final)
        undisturbed = time.monotonic() - started
        resumed = 0
        for number in range(KILLS):
            job = client.write_stream(f"/kill/{number}", file)
            time.sleep(moments.uniform(0, undisturbed))
            job = wait_for(client, job.id, lambda job: job.worker or job.is_final)
            victim = owner(job, workers) or workers[number % 2]
            victim.kill9()
            killed_at = time.time()
            saved = rows.select(
                "select part_number from blobferry_parts join blobferry_uploads u on u.id = upload where job_id = :id",
                id=job.id,
            )
            job = wait_for(client, job.id, lambda job: job.is_final)
            assert_resumed_well(
                stack, rows, requests, job, file, killed_at=killed_at, saved={row["part_number"] for row in saved}
            )
            resumed += job.attempt > 1
            victim.restart()
        assert resumed >= KILLS // 4, "enough of the kills hit a running transfer"
        wait_until(lambda: events.results(job.id), 10, "the last job's result as an event")
        for row in rows.select("select id, attempt from blobferry_jobs"):
            results = events.results(row["id"])
            assert results.count("task-succeeded") <= 1
            assert "task-failed" not in results
            if row["attempt"] > 1:
                assert results == ["task-succeeded"], "SUCCESS once, at the end, never before"
