"""Workers that stand still for longer than their lease and then go on, as on a virtual machine that was paused."""

import os
import signal
from typing import Any

import psutil
import pytest

from dev.stack import BUCKET, Stack
from dev.waiting import wait_until
from tests.system.recorded_stack import Scene, recorded

NEWER = b"put there by somebody else, once the job was done"


def remembered(scene: Scene, job_id: str) -> list[Any]:
    """All that the rows say of a job."""
    conditions = dict.fromkeys(("attempts", "uploads", "path_locks"), "job_id = :id")
    conditions |= {"jobs": "id = :id", "parts": "upload in (select id from blobferry_uploads where job_id = :id)"}
    return [
        scene.rows.select(f"select * from blobferry_{table} where {of_job} order by 1, 2", id=job_id)
        for table, of_job in conditions.items()
    ]


def test_a_worker_that_was_suspended_past_its_lease_writes_no_row_and_nothing_over_a_newer_blob(stack: Stack) -> None:
    with recorded(stack) as scene, scene.stack.worker("first") as first:
        job = scene.begin("/suspended", 12)
        os.killpg(first.pids[0], signal.SIGSTOP)
        try:
            with scene.stack.worker("second"):
                job = scene.succeeded(job)  # perhaps after more attempts: on a busy machine a lease of 3 s is short
                scene.s3.put_object(Bucket=BUCKET, Key="suspended", Body=NEWER)
                completed = "select 1 from blobferry_uploads where job_id = :id and state = 'completed'"
                scene.until_rows(completed, id=job.id)
                before = remembered(scene, job.id)
        finally:
            os.killpg(first.pids[0], signal.SIGCONT)
        wait_until(lambda: "lease lost" in first.log.read_text(), 30, "the suspended run notices")
        scene.succeeded(scene.submit("/suspended/after", 1))  # the only child, so that its run of before is over
        assert remembered(scene, job.id) == before
        first_outcome, *_, last_outcome = [row["outcome"] for row in scene.attempts(job)]
        assert (first_outcome, last_outcome) == ("died", "succeeded")
        assert len(scene.asked(job, "complete_upload")) == 1
        assert scene.blob("/suspended") == NEWER


@pytest.mark.long
def test_the_parent_that_forks_has_no_thread_beside_its_own(stack: Stack) -> None:
    """A thread would not be there in a child, and a lock that it held would never be given back."""
    recycled = {"BLOBFERRY_MAX_TASKS_PER_CHILD": "1"}
    with recorded(stack, delays={}, settings=recycled) as scene, scene.stack.worker() as worker:
        parent = psutil.Process(worker.pids[0])
        for number in range(3):  # each in a child of its own
            scene.succeeded(scene.submit(f"/threads/{number}", 2))
            assert parent.num_threads() == 1
