"""Workers that are killed, for real: SIGKILL to the whole process group, at any moment of a transfer."""

import hashlib
import os
import random
import shutil
import time
from pathlib import Path

import pytest

from blobferry import Job
from dev.stack import BUCKET, CHECKOUT, Stack, Worker
from dev.waiting import wait_until
from tests.celery.task_events import task_events
from tests.system.conftest import PART_SIZE, PART_THREADS
from tests.system.recorded_stack import Scene, child_of, recorded

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


def owner(job: Job, workers: list[Worker]) -> Worker | None:
    """The worker whose child runs the job."""
    if job.worker is None:
        return None
    group = os.getpgid(child_of(job))
    return next((worker for worker in workers if worker.pids == (group,)), None)


def assert_resumed_well(scene: Scene, job: Job, file: Path, *, killed_at: float, saved: set[int]) -> None:
    # moto dates every upload 2010: one that was opened in the last instant of a worker, and thus has no part, cannot be
    # told from another program's there. On a store with a clock it is found: transfer/upload/test_upload_crashes.py.
    unfinished = [
        upload
        for upload in scene.s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        if scene.s3.list_parts(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"]).get("Parts")
    ]
    assert (job.state, unfinished) == ("succeeded", []), job
    assert hashlib.sha256(scene.blob(str(job.path))).digest() == hashlib.sha256(file.read_bytes()).digest()
    parts = scene.asked(job, "upload_part")
    again = {part.part_number for part in parts if part.started_at > killed_at}
    assert not again & saved, "a part with a row was sent again"
    twice = sum(part.received for part in parts) - file.stat().st_size
    assert 0 <= twice <= PART_THREADS * PART_SIZE
    scene.history(job, "died")


@pytest.mark.long  # in every run, chaos and the failures of workers do it
def test_kills_lose_nothing_and_send_nothing_twice(stack: Stack, other_checkout: Path) -> None:
    moments = random.Random(SEED)
    file = stack.incoming / "blob.bin"
    file.write_bytes(moments.randbytes(SIZE))
    parts = "select part_number from blobferry_parts join blobferry_uploads u on u.id = upload where job_id = :id"
    with (
        recorded(stack, delays={}) as scene,
        task_events(scene.app) as events,
        scene.stack.worker("first") as first,
        scene.stack.worker("second", checkout=other_checkout) as second,
    ):
        started = time.monotonic()
        scene.until(scene.client.write_stream("/kill/undisturbed", file), lambda job: job.is_final)
        undisturbed = time.monotonic() - started
        resumed = 0
        for number in range(KILLS):
            job = scene.client.write_stream(f"/kill/{number}", file)
            time.sleep(moments.uniform(0, undisturbed))
            job = scene.until(job, lambda job: job.worker or job.is_final)
            victim = owner(job, [first, second]) or (first, second)[number % 2]
            victim.kill9()
            killed_at = time.time()
            saved = {row["part_number"] for row in scene.rows.select(parts, id=job.id)}
            job = scene.until(job, lambda job: job.is_final)
            assert_resumed_well(scene, job, file, killed_at=killed_at, saved=saved)
            resumed += job.attempt > 1
            victim.restart()
        assert resumed >= KILLS // 4, "enough of the kills hit a running transfer"
        wait_until(lambda: events.ends(job.id), 10, "the last job's result as an event")
        for row in scene.rows.select("select id, attempt from blobferry_jobs"):
            results = events.ends(row["id"])
            assert results.count("task-succeeded") <= 1
            assert "task-failed" not in results
            if row["attempt"] > 1:
                assert results == ["task-succeeded"], "SUCCESS once, at the end, never before"
