"""A Celery revoke, Flower's button, is a cancel in the row: workers that restart do not forget it.

The table of all failures and their tests is in test_failures_of_workers.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from celery import Celery

from blobferry.contract import JOBS_QUEUE
from dev.services import Postgres, S3Service, Valkey
from dev.stack import Stack
from dev.waiting import wait_until
from tests.system.recorded_stack import LONG_LEASE, Scene, lasting_stack, recorded


@pytest.fixture(scope="module")
def scene(
    broker: Valkey, s3: S3Service, postgres_server: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """One worker for most of these tests."""
    with (
        lasting_stack(broker, s3, postgres_server, tmp_path_factory.mktemp("revokes")) as stack,
        recorded(stack, settings=LONG_LEASE) as scene,
        scene.stack.worker(),
    ):
        yield scene


@contextmanager
def somebodys_celery(stack: Stack) -> Iterator[Celery]:
    """What Flower, or an app that knows nothing of ours, asks with."""
    app = Celery(broker=stack.broker_url, backend=stack.broker_url, set_as_current=False)
    yield app
    app.close()


@pytest.fixture
def flower(scene: Scene) -> Iterator[Celery]:
    with somebodys_celery(scene.direct) as app:
        yield app


@pytest.mark.parametrize("terminate", [False, True], ids=["revoke", "terminate"])
def test_a_revoke_of_a_running_job_cancels_it_and_leaves_nothing_in_the_store(
    scene: Scene, flower: Celery, terminate: bool
) -> None:
    job = scene.submit(f"/revoke/running/{terminate}", 24)
    scene.under_way(job)
    flower.control.revoke(job.id, terminate=terminate)
    job = scene.until(job, lambda job: job.is_final, timeout=20)
    assert (job.state, job.error_code) == ("cancelled", None)
    assert len(scene.asked(job, "complete_upload")) == 0
    scene.until_rows("select 1 from blobferry_uploads where job_id = :id and state = 'gone'", id=job.id)
    assert scene.unfinished_uploads(job) == []
    scene.succeeded(scene.submit(f"/revoke/after/{terminate}", 1))


@pytest.mark.long
def test_a_revoke_while_workers_restart_is_remembered_by_the_row(stack: Stack) -> None:
    with recorded(stack) as scene, somebodys_celery(stack) as flower:
        with scene.stack.worker("first") as first:
            running = scene.submit("/revoke/busy", 12)
            scene.under_way(running)
            queued = [scene.submit(f"/revoke/queued/{n}", 1) for n in range(3)]
            flower.control.revoke(queued[0].id)
            scene.until_rows("select 1 from blobferry_jobs where id = :id and cancel_requested", id=queued[0].id)
            first.kill9()
        with scene.stack.worker("second"):
            for job in queued[1:]:
                scene.succeeded(job, attempt=1)
            assert scene.until(queued[0], lambda job: job.is_final).state == "cancelled"
            scene.succeeded(running, attempt=2)
        assert scene.asked(queued[0], "put") == []


def test_a_revoke_of_a_bare_task_that_waits_in_the_queue_keeps_it_from_the_store(scene: Scene, flower: Celery) -> None:
    running = scene.submit("/revoke/before", 6)
    scene.under_way(running)
    arguments = {"path": "/revoke/bare", "source": scene.file_of("/revoke/before").as_uri()}
    bare = flower.send_task("blobferry.write_stream", kwargs=arguments, queue=JOBS_QUEUE)
    flower.control.revoke(bare.id)
    scene.succeeded(running, attempt=1)
    wait_until(lambda: bare.state == "REVOKED", 20, "a word of Celery's")
    scene.succeeded(scene.submit("/revoke/marker", 1))
    assert "/revoke/bare" not in scene.requests.log.read_text()
    states = [row["state"] for row in scene.rows.select("select state from blobferry_jobs where id = :id", id=bare.id)]
    assert states in ([], ["cancelled"])


def test_a_revoked_id_does_not_stand_in_the_way_of_a_later_retry(scene: Scene, flower: Celery) -> None:
    source = scene.file_of("/revoke/late")
    job = scene.client.write_stream("/revoke/late", source)
    assert scene.until(job, lambda job: job.is_final).error_code == "source_not_found"
    source.write_bytes(b"there after all")
    flower.control.revoke(job.id)  # it has failed by now
    next_one = scene.submit("/revoke/next", 6)
    flower.control.revoke(next_one.id)
    assert scene.until(next_one, lambda job: job.is_final).state == "cancelled", "revokes are heard in order"
    scene.client.retry(job.id)
    scene.succeeded(job)
