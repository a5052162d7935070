"""Everything in the broker is lost, at the worst moments. SQL owns the truth, so it costs seconds."""

from collections.abc import Iterator

import pytest

from dev.services import Valkey
from dev.stack import Stack
from tests.system.recorded_stack import Scene, recorded


@pytest.fixture
def scene(stack: Stack) -> Iterator[Scene]:
    with recorded(stack) as scene:
        yield scene


def test_a_job_whose_message_was_flushed_while_it_was_queued_finishes(scene: Scene, broker: Valkey) -> None:
    job = scene.submit("/flush/queued", 2)
    broker.flush()
    with scene.stack.worker():
        scene.succeeded(job)


def test_a_job_whose_published_message_was_flushed_is_published_again(scene: Scene, broker: Valkey) -> None:
    job = scene.submit("/flush/published", 1)
    # What a caretaker does, 31 seconds ago; its message went with the flush.
    published = "publish_seq = 7, published_at = now() - interval '31 s'"
    scene.rows.execute(f"update blobferry_jobs set {published} where id = :id", id=job.id)
    broker.flush()
    with scene.stack.worker():
        scene.succeeded(job, attempt=1)
    (row,) = scene.rows.select("select publish_seq from blobferry_jobs where id = :id", id=job.id)
    assert row["publish_seq"] == 8


def test_a_flush_while_a_job_runs_changes_nothing(scene: Scene, broker: Valkey) -> None:
    with scene.stack.worker():
        job = scene.begin("/flush/running", 12)
        broker.flush()
        scene.succeeded(job, attempt=1)
        scene.succeeded(scene.submit("/flush/after", 12))  # and the worker still listens
