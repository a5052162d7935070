"""Jobs that change hands: a worker that is told to stop, a child that is killed, a store that dies."""

import hashlib
import os
import signal
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from celery import Celery
from celery.result import AsyncResult

from blobferry import Job
from blobferry.errors import DeadlineExceededError
from dev.proxies.s3_recorder import Recorder, recorder
from dev.services import S3Service, Valkey, swift
from dev.stack import BUCKET, Stack
from tests.system.conftest import PART_SIZE
from tests.system.observation import Rows, wait_for


def random_file(path: Path, parts: int) -> Path:
    with path.open("wb") as file:
        for _ in range(parts):
            file.write(os.urandom(PART_SIZE))
    return path


def assert_blob_is(file: Path, job: Job, s3: S3Service) -> None:
    client = s3.client()
    blob = client.get_object(Bucket=BUCKET, Key=str(job.path)[1:])["Body"].read()
    assert hashlib.sha256(blob).digest() == hashlib.sha256(file.read_bytes()).digest()
    assert client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []) == []
    client.close()


def parts_sent_twice(requests: Recorder) -> int:
    sent = [request.part_number for request in requests.requests() if request.is_part and request.status == 200]
    return len(sent) - len(set(sent))


@pytest.mark.long  # the failures of workers have a quicker one
def test_a_worker_that_is_told_to_stop_hands_over_and_nothing_is_sent_twice(stack: Stack, broker: Valkey) -> None:
    file = random_file(stack.incoming / "drain.bin", 40)
    rows = Rows(stack.database_url)
    with ExitStack() as services:
        requests = services.enter_context(recorder(stack.s3.endpoint, stack.directory))
        stack = replace(stack, endpoint=requests.endpoint)
        client = services.enter_context(stack.client())
        first = services.enter_context(stack.worker("first"))
        job = client.write_stream("/drain/blob", file)
        wait_for(client, job.id, lambda job: job.bytes_done > 0)
        os.kill(first.pids[0], signal.SIGTERM)
        psutil.Process(first.pids[0]).wait(timeout=30)
        handed_over = client.get(job.id)
        assert (handed_over.state, handed_over.worker) == ("queued", None)
        assert 0 < handed_over.bytes_done < file.stat().st_size
        services.enter_context(stack.worker("second"))
        job = wait_for(client, job.id, lambda job: job.is_final)
        assert (job.state, job.attempt) == ("succeeded", 1), "handing over is no new attempt"
        assert parts_sent_twice(requests) == 0
        assert_blob_is(file, job, stack.s3)
        (attempt,) = rows.select("select outcome, bytes_sent from blobferry_attempts where job_id = :id", id=job.id)
        assert dict(attempt) == {"outcome": "succeeded", "bytes_sent": file.stat().st_size}
    rows.close()


@pytest.mark.long  # the same
def test_a_killed_child_is_a_retry_for_celery_and_the_job_succeeds(stack: Stack, broker: Valkey) -> None:
    file = random_file(stack.incoming / "child.bin", 40)
    app = Celery(broker=broker.url, backend=broker.url, set_as_current=False)
    with stack.client() as client, stack.worker():
        job = client.write_stream("/child/blob", file)
        job = wait_for(client, job.id, lambda job: job.bytes_done > 0)
        os.kill(int(str(job.worker).rpartition(":")[2]), signal.SIGKILL)
        result = AsyncResult(job.id, app=app)
        seen = set()

        def ended(job: Job) -> bool:
            state = result.state
            if not client.get(job.id).is_final:  # asked afterwards: the state was told while the job went on
                seen.add(state)
            return job.is_final

        job = wait_for(client, job.id, ended)
        assert (job.state, job.attempt) == ("succeeded", 2), job
        assert not seen & {"FAILURE", "SUCCESS"}
        assert result.get(timeout=10)["size"] == file.stat().st_size
        assert_blob_is(file, job, stack.s3)
    app.close()


@pytest.mark.timeout(300)
@pytest.mark.long
def test_a_store_that_is_killed_and_comes_back_gets_only_what_it_lacks(stack: Stack, tmp_path: Path) -> None:
    file = random_file(stack.incoming / "store.bin", 40)
    with ExitStack() as services:
        store = services.enter_context(swift(directory=tmp_path / "swift"))
        requests = services.enter_context(recorder(store.endpoint, stack.directory))
        stack = replace(stack, s3=store, endpoint=requests.endpoint)
        stack.prepare()
        client = services.enter_context(stack.client())
        services.enter_context(stack.worker())
        job = client.write_stream("/store/blob", file)
        wait_for(client, job.id, lambda job: job.bytes_done > 0)
        store.kill9()
        job = wait_for(client, job.id, lambda job: job.state == "retrying")
        assert job.error_code == "store_unavailable"
        assert job.run_at is not None
        store.restart()
        job = wait_for(client, job.id, lambda job: job.is_final, timeout=120)
        assert job.state == "succeeded", job
        assert job.attempt > 1
        assert parts_sent_twice(requests) == 0
        assert_blob_is(file, job, store)


def test_a_job_that_ends_without_a_run_is_not_left_pending_in_celery(stack: Stack, broker: Valkey) -> None:
    file = random_file(stack.incoming / "late.bin", 1)
    app = Celery(broker=broker.url, backend=broker.url, set_as_current=False)
    with stack.client() as client:
        late = client.write_stream("/late/blob", file, deadline=datetime.now(UTC))
        with stack.worker():
            assert client.wait(late.id, timeout=30).error_code == "deadline"
            with pytest.raises(DeadlineExceededError, match="not finished by its deadline"):
                AsyncResult(late.id, app=app).get(timeout=8)
    app.close()
