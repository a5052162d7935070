"""Jobs that change hands: a child that is killed, a store that dies, a deadline that nobody runs for."""

import os
import signal
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from blobferry import Job
from blobferry.errors import DeadlineExceededError
from dev.services import swift
from dev.stack import Stack
from tests.system.recorded_stack import child_of, recorded


@pytest.mark.long  # the failures of workers have a quicker one
def test_a_killed_child_is_a_retry_for_celery_and_the_job_succeeds(stack: Stack) -> None:
    with recorded(stack, delays={}) as scene, scene.stack.worker():
        job = scene.begin("/child/blob", 40)
        os.kill(child_of(job), signal.SIGKILL)
        result = scene.result(job)
        seen = set()

        def ended(job: Job) -> bool:
            state = result.state
            if not scene.client.get(job.id).is_final:  # asked afterwards: the state was told while the job went on
                seen.add(state)
            return job.is_final

        scene.until(job, ended)
        assert not seen & {"FAILURE", "SUCCESS"}
        job = scene.succeeded(job, attempt=2)
        assert result.get(timeout=10)["size"] == job.size


@pytest.mark.timeout(300)
@pytest.mark.long
def test_a_store_that_is_killed_and_comes_back_gets_only_what_it_lacks(stack: Stack, tmp_path: Path) -> None:
    with swift(directory=tmp_path / "swift") as store:
        stack = replace(stack, s3=store)
        stack.prepare()
        with recorded(stack, delays={}) as scene, scene.stack.worker():
            job = scene.begin("/store/blob", 40)
            store.kill9()
            job = scene.until(job, lambda job: job.state == "retrying")
            assert job.error_code == "store_unavailable"
            assert job.run_at is not None
            store.restart()
            job = scene.succeeded(job, timeout=120)
            assert job.attempt > 1
            scene.assert_no_part_was_sent_twice(job)


def test_a_job_that_ends_without_a_run_is_not_left_pending_in_celery(stack: Stack) -> None:
    with recorded(stack) as scene:
        late = scene.submit("/late/blob", 1, deadline=datetime.now(UTC))
        with scene.stack.worker():
            assert scene.client.wait(late.id, timeout=30).error_code == "deadline"
            with pytest.raises(DeadlineExceededError, match="not finished by its deadline"):
                scene.result(late).get(timeout=8)
