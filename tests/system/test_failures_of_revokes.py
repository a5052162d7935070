"""A Celery revoke, Flower's button, is a cancel in the row: workers that restart do not forget it.

The table of all failures and their tests is in test_failures_of_workers.
"""

from collections.abc import Iterator

import pytest

from blobferry.contract import JOBS_QUEUE
from dev.stack import Stack
from dev.waiting import wait_until
from tests.system.recorded_stack import LONG_LEASE, Scene, recorded


@pytest.fixture(scope="module")
def scene(lasting_stack: Stack) -> Iterator[Scene]:
    """One worker for most of these tests."""
    with recorded(lasting_stack, settings=LONG_LEASE) as scene, scene.stack.worker():
        yield scene


@pytest.mark.parametrize("terminate", [False, True], ids=["revoke", "terminate"])
def test_a_revoke_of_a_running_job_cancels_it_and_leaves_nothing_in_the_store(scene: Scene, terminate: bool) -> None:
    job = scene.begin(f"/revoke/running/{terminate}", 24)
    scene.app.control.revoke(job.id, terminate=terminate)
    job = scene.until(job, lambda job: job.is_final, timeout=20)
    assert (job.state, job.error_code, scene.asked(job, "complete_upload")) == ("cancelled", None, [])
    scene.until_rows("select 1 from blobferry_uploads where job_id = :id and state = 'gone'", id=job.id)
    assert scene.unfinished_uploads(job) == []
    scene.succeeded(scene.submit(f"/revoke/after/{terminate}", 1))


@pytest.mark.long
def test_a_revoke_while_workers_restart_is_remembered_by_the_row(stack: Stack) -> None:
    with recorded(stack) as scene:
        with scene.stack.worker("first") as first:
            running = scene.begin("/revoke/busy", 12)
            revoked, *queued = [scene.submit(f"/revoke/queued/{n}", 1) for n in range(3)]
            scene.app.control.revoke(revoked.id)
            scene.until_rows("select 1 from blobferry_jobs where id = :id and cancel_requested", id=revoked.id)
            first.kill9()
        with scene.stack.worker("second"):
            for job in queued:
                scene.succeeded(job, attempt=1)
            assert scene.until(revoked, lambda job: job.is_final).state == "cancelled"
            scene.succeeded(running, attempt=2)
        assert scene.asked(revoked, "put") == []


def test_a_revoke_of_a_bare_task_that_waits_in_the_queue_keeps_it_from_the_store(scene: Scene) -> None:
    running = scene.begin("/revoke/before", 6)
    arguments = {"path": "/revoke/bare", "source": scene.file_of("/revoke/before").as_uri()}
    bare = scene.app.send_task("blobferry.write_stream", kwargs=arguments, queue=JOBS_QUEUE)
    scene.app.control.revoke(bare.id)
    scene.succeeded(running, attempt=1)
    wait_until(lambda: bare.state == "REVOKED", 20, "a word of Celery's")
    scene.succeeded(scene.submit("/revoke/marker", 1))
    assert "/revoke/bare" not in scene.requests.log.read_text()
    states = [row["state"] for row in scene.rows.select("select state from blobferry_jobs where id = :id", id=bare.id)]
    assert states in ([], ["cancelled"])


def test_a_revoked_id_does_not_stand_in_the_way_of_a_later_retry(scene: Scene) -> None:
    source = scene.file_of("/revoke/late")
    job = scene.client.write_stream("/revoke/late", source)
    assert scene.until(job, lambda job: job.is_final).error_code == "source_not_found"
    source.write_bytes(b"there after all")
    scene.app.control.revoke(job.id)  # it has failed by now
    next_one = scene.submit("/revoke/next", 6)
    scene.app.control.revoke(next_one.id)
    assert scene.until(next_one, lambda job: job.is_final).state == "cancelled", "revokes are heard in order"
    scene.client.retry(job.id)
    scene.succeeded(job)
