"""What Celery says of jobs must be what their rows say, whatever happened on the way. One real worker, on SQLite."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import psutil
import pytest
import redis

from blobferry import Job
from blobferry.messages.job_messages import Message, client_app, publish
from dev.services import wait_until
from dev.stack import Stack, Worker
from models import Database
from tests.models.rows import ago, change, job_row
from tests.system.recorded_stack import Scene, child_of, recorded

JOBS = 20


@dataclass(frozen=True)
class Running:
    """One scene for all tests of this module, and what else looks at it."""

    scene: Scene
    database: Database
    broker: "redis.Redis"

    def state(self, job: Job) -> str:
        """What Celery says."""
        return str(self.scene.result(job).state)

    def ended(self, job: Job) -> Job:
        return self.scene.until(job, lambda job: job.is_final)

    def deliver_again(self, job: Job) -> None:
        """The job's first message, once more."""
        message = replace(Message.from_row(job_row(self.database, job.id).as_row()), seq=0)
        assert publish(client_app(self.scene.direct.broker_url), message)

    def wait_until_idle(self) -> None:
        """The worker has come to a job behind all others, and has told Celery how that ended."""
        job = self.scene.succeeded(self.scene.submit("/marker", 1))
        wait_until(lambda: not self.broker.llen("blobferry"), 20, "an empty queue")
        wait_until(lambda: self.state(job) == "SUCCESS", 20, "the marker's result")


@pytest.fixture(scope="module")
def running(sqlite_stack: Stack) -> Iterator[Running]:
    with (
        recorded(sqlite_stack, delays={}) as scene,
        redis.Redis.from_url(sqlite_stack.broker_url) as broker,
        closing(Database(sqlite_stack.database_url)) as database,
    ):
        yield Running(scene, database, broker)


@pytest.fixture(scope="module")
def cancelled(running: Running) -> Job:
    """A bare task with a link whose job was cancelled while no worker was up."""
    job = running.scene.submit("/cancelled", 1)
    options = {"link": [dict(running.scene.app.signature("after.write", queue="after"))]}
    running.broker.delete("blobferry")  # the message that knows nothing of the link
    change(running.database, job.id, message_options=options, cancel_requested=True)
    running.deliver_again(job)
    return job


@pytest.fixture(scope="module")
def worker(running: Running, cancelled: Job) -> Iterator[Worker]:
    """The worker, which comes up after the cancel."""
    with running.scene.stack.worker("w1") as worker:
        yield worker


def test_a_job_that_was_cancelled_while_no_worker_was_up_is_revoked_and_calls_no_link(
    running: Running, cancelled: Job, worker: Worker
) -> None:
    assert running.ended(cancelled).state == "cancelled"
    wait_until(lambda: running.state(cancelled) != "PENDING", 15, "a word of Celery's")
    assert running.state(cancelled) == "REVOKED"
    running.wait_until_idle()
    assert (running.state(cancelled), running.broker.llen("after")) == ("REVOKED", 0)


def test_a_named_worker_says_its_name_when_it_is_ready(worker: Worker) -> None:
    (ready,) = (line for line in worker.log.read_text().splitlines() if " ready." in line)
    assert "w1@" in ready


def test_jobs_that_failed_stay_failed_for_celery_though_second_messages_come(running: Running, worker: Worker) -> None:
    client, file_of = running.scene.client, running.scene.file_of
    jobs = [client.write_stream(path, file_of(path)) for path in (f"/missing/{n}" for n in range(JOBS))]
    for job in jobs:
        running.deliver_again(job)  # waits behind the first one in the queue
    for job in jobs:
        assert running.ended(job).error_code == "source_not_found"
        running.deliver_again(job)
    running.wait_until_idle()
    assert {running.state(job) for job in jobs} == {"FAILURE"}
    for job in jobs:
        change(running.database, job.id, finished_at=ago(60))
        running.deliver_again(job)  # long after its end
    running.wait_until_idle()
    assert {running.state(job) for job in jobs} == {"FAILURE"}


@pytest.mark.parametrize(("state", "told"), [("succeeded", "SUCCESS"), ("failed", "FAILURE")])
def test_an_end_that_celery_was_never_told_is_told_when_the_message_comes_again(
    state: str, told: str, running: Running, worker: Worker
) -> None:
    """The worker died between the last commit and Celery's own record."""
    file = running.scene.file_of(f"/untold/{state}")
    if state == "succeeded":
        file.write_bytes(b"told")
    job = running.ended(running.scene.client.write_stream(f"/untold/{state}", file))
    assert job.state == state
    wait_until(lambda: running.state(job) == told, 15, told)
    running.broker.delete(f"celery-task-meta-{job.id}")
    assert running.state(job) == "PENDING"
    change(running.database, job.id, finished_at=ago(60))
    running.deliver_again(job)
    wait_until(lambda: running.state(job) == told, 15, told)
    row = job_row(running.database, job.id)
    assert row.attempt == 1
    assert state == "failed" or running.scene.result(job).result == row.result


def test_the_parent_that_forks_opens_no_database_when_a_child_is_killed(running: Running, worker: Worker) -> None:
    job = running.scene.begin("/big", 40)
    child = child_of(job)
    assert open_databases(child), "the child has it open, so that the look at the parent means something"
    os.kill(child, signal.SIGKILL)
    parent = worker.pids[0]
    opened = set()

    def ended(job: Job) -> bool:
        opened.update(open_databases(parent))
        return job.is_final

    running.scene.until(job, ended)
    running.wait_until_idle()
    assert (opened, open_databases(parent)) == (set(), [])
    running.scene.succeeded(job, attempt=2)


def open_databases(pid: int) -> list[str]:
    """The files of the database that a process has open."""
    return [file.path for file in psutil.Process(pid).open_files() if "blobferry.db" in file.path]
