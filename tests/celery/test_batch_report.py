"""What Celery is told of the jobs of a batch whose messages are not at hand."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery, states
from celery.events.state import State
from celery.exceptions import Ignore

from blobferry.contract import ROW_HEADER, SEQ_HEADER
from dev.services import Valkey, valkey
from dev.waiting import wait_until
from models import Database
from tests.celery.task_events import task_events
from tests.jobs.batch.batch_world import BatchWorld
from worker.celery.batched_messages import forget, is_needless
from worker.celery.job_task import JobTask
from worker.celery.result_backend import ResultTolerantApp
from worker.runtime import start_runtime


@pytest.fixture
def broker() -> Iterator[Valkey]:
    with valkey() as broker:
        yield broker


@pytest.fixture
def app(broker: Valkey) -> Iterator[Celery]:
    app = ResultTolerantApp("batches", broker=broker.url, backend=broker.url, include=["tasks.transfers"])
    app.conf.update(result_extended=True, worker_send_task_events=True, task_serializer="json")
    app.loader.import_default_modules()
    yield app
    app.close()


OPERATIONS = {"contents": "put_content", "files": "write_stream"}


@pytest.fixture
def kind() -> str:
    return "contents"


@pytest.fixture
def world(sqlite_database: Database, tmp_path: Path, kind: str) -> BatchWorld:
    return BatchWorld(sqlite_database, tmp_path / "incoming", of_files=kind == "files")


def deliver(app: Celery, job_id: str, operation: str = "put_content", **arguments: object) -> object:
    """What a child does with the first message of a job."""
    task = app.tasks[f"blobferry.{operation}"]
    assert isinstance(task, JobTask)
    task.push_request(id=job_id, hostname="worker@here", **{ROW_HEADER: True, SEQ_HEADER: 0})
    try:
        return task.run(**arguments)
    finally:
        task.pop_request()


@pytest.mark.parametrize("kind", ["contents", "files"])
def test_each_job_of_a_batch_has_its_result_and_its_line_in_flower(kind: str, app: Celery, world: BatchWorld) -> None:
    jobs, operation = world.some(3), OPERATIONS[kind]
    with task_events(app) as events, world.worker() as runtime:
        start_runtime(runtime)
        deliver(app, jobs[0], operation, source=world.job_row(jobs[0]).source)
        for number, job_id in enumerate(jobs[1:], start=1):
            result = app.AsyncResult(job_id)
            assert (result.state, result.result) == (states.SUCCESS, world.job_row(job_id).result)
            assert (result.name, result.worker) == (f"blobferry.{operation}", "worker@here")
            if kind == "files":
                assert result.kwargs["source"] == world.source(number).as_uri()
            else:
                assert result.kwargs["contents"] == "<5 bytes>"
            assert is_needless(job_id, 0)
            with pytest.raises(Ignore):
                deliver(app, job_id, operation)
        wait_until(lambda: all(events.ends(job_id) for job_id in jobs[1:]), 20, "the events")
    flower = State()
    for event in events.seen:
        flower.event(event)
    assert [flower.tasks[job_id].state for job_id in jobs[1:]] == [states.SUCCESS] * 2
    assert {flower.tasks[job_id].name for job_id in jobs[1:]} == {f"blobferry.{operation}"}


@pytest.mark.parametrize("kind", ["files"])
def test_a_message_that_names_a_large_file_leads_to_no_batch(kind: str, app: Celery, world: BatchWorld) -> None:
    jobs = [world.small(0, bytes(11)), world.small(1)]
    with world.worker() as runtime:
        start_runtime(runtime)
        deliver(app, jobs[0], "write_stream", source=world.source(0).as_uri())
    assert world.states(jobs) == ["succeeded", "queued"]


def test_a_result_that_a_dead_process_did_not_store_is_stored_by_a_later_message(
    app: Celery, world: BatchWorld
) -> None:
    jobs = world.some(2)
    world.run_batch(jobs[0])
    forget((job_id, 0) for job_id in jobs)
    with world.worker() as runtime:
        start_runtime(runtime)
        assert deliver(app, jobs[1]) == world.job_row(jobs[1]).result
