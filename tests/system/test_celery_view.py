"""What Celery says of jobs must be what their rows say, whatever happened on the way. One real worker, on SQLite."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace

import psutil
import pytest
import redis
from celery import Celery
from celery.result import AsyncResult

from blobferry import Client, Job
from blobferry.messages.job_messages import Message, client_app, publish
from dev.services import S3Service, Valkey, wait_until
from dev.stack import Stack, Worker
from models import Database
from tests.models.rows import ago, change, job_row
from tests.system.conftest import FAST
from tests.system.observation import wait_for

JOBS = 20


@dataclass(frozen=True)
class Running:
    """One stack for all tests of this module, and what looks at it."""

    stack: Stack
    client: Client
    database: Database
    app: Celery
    broker: "redis.Redis"

    def state(self, job_id: str) -> str:
        """What Celery says."""
        return str(AsyncResult(job_id, app=self.app).state)

    def deliver_again(self, job_id: str) -> None:
        """The job's first message, once more."""
        message = replace(Message.from_row(job_row(self.database, job_id).as_row()), seq=0)
        assert publish(client_app(self.broker_url), message)

    def wait_until_idle(self) -> None:
        """The worker has come to a job behind all others, and has told Celery how that ended."""
        file = self.stack.incoming / "marker.bin"
        file.write_bytes(b"marker")
        job = self.client.write_stream("/marker", file)
        assert wait_for(self.client, job.id, lambda job: job.is_final).state == "succeeded"
        wait_until(lambda: not self.broker.llen("blobferry"), 20, "an empty queue")
        wait_until(lambda: self.state(job.id) == "SUCCESS", 20, "the marker's result")

    @property
    def broker_url(self) -> str:
        return self.stack.broker_url


@pytest.fixture(scope="module")
def running(broker: Valkey, s3: S3Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("celery-view")
    url = f"sqlite:///{directory / 'blobferry.db'}"
    stack = Stack(broker.url, url, s3, directory, settings=FAST)
    stack.prepare()
    broker.flush()
    app = Celery("looking", broker=broker.url, backend=broker.url, set_as_current=False)
    database = Database(url)
    with stack.client() as client, redis.Redis.from_url(broker.url) as connection:
        yield Running(stack, client, database, app, connection)
    database.close()
    app.close()
    broker.flush()


@pytest.fixture(scope="module")
def cancelled(running: Running) -> str:
    """A bare task with a link whose job was cancelled while no worker was up."""
    file = running.stack.incoming / "cancelled.bin"
    file.write_bytes(b"never sent")
    job = running.client.write_stream("/cancelled", file)
    link = running.app.signature("after.write", queue="after")
    options = {"link": [dict(link)]}
    running.broker.delete("blobferry")  # the message that knows nothing of the link
    change(running.database, job.id, message_options=options, cancel_requested=True)
    running.deliver_again(job.id)
    return job.id


@pytest.fixture(scope="module")
def worker(running: Running, cancelled: str) -> Iterator[Worker]:
    """The worker, which comes up after the cancel."""
    with running.stack.worker("w1") as worker:
        yield worker


def test_a_job_that_was_cancelled_while_no_worker_was_up_is_revoked_and_calls_no_link(
    running: Running, cancelled: str, worker: Worker
) -> None:
    assert wait_for(running.client, cancelled, lambda job: job.is_final).state == "cancelled"
    wait_until(lambda: running.state(cancelled) != "PENDING", 15, "a word of Celery's")
    assert running.state(cancelled) == "REVOKED"
    running.wait_until_idle()
    assert running.state(cancelled) == "REVOKED"
    assert running.broker.llen("after") == 0


def test_a_named_worker_says_its_name_when_it_is_ready(worker: Worker) -> None:
    ready = [line for line in worker.log.read_text().splitlines() if " ready." in line]
    assert len(ready) == 1
    assert "w1@" in ready[0]


def test_jobs_that_failed_stay_failed_for_celery_though_second_messages_come(running: Running, worker: Worker) -> None:
    jobs = [running.client.write_stream(f"/missing/{n}", running.stack.incoming / f"missing-{n}") for n in range(JOBS)]
    for job in jobs:
        running.deliver_again(job.id)  # waits behind the first one in the queue
    for job in jobs:
        assert wait_for(running.client, job.id, lambda job: job.is_final).error_code == "source_not_found"
        running.deliver_again(job.id)
    running.wait_until_idle()
    assert {running.state(job.id) for job in jobs} == {"FAILURE"}
    for job in jobs:
        change(running.database, job.id, finished_at=ago(60))
        running.deliver_again(job.id)  # long after its end
    running.wait_until_idle()
    assert {running.state(job.id) for job in jobs} == {"FAILURE"}


@pytest.mark.parametrize("told", ["succeeded", "failed"])
def test_an_end_that_celery_was_never_told_is_told_when_the_message_comes_again(
    told: str, running: Running, worker: Worker
) -> None:
    """The worker died between the last commit and Celery's own record."""
    file = running.stack.incoming / f"untold-{told}.bin"
    if told == "succeeded":
        file.write_bytes(b"told")
    job = running.client.write_stream(f"/untold/{told}", file)
    assert wait_for(running.client, job.id, lambda job: job.is_final).state == told
    expected = "SUCCESS" if told == "succeeded" else "FAILURE"
    wait_until(lambda: running.state(job.id) == expected, 15, expected)
    running.broker.delete(f"celery-task-meta-{job.id}")
    assert running.state(job.id) == "PENDING"
    change(running.database, job.id, finished_at=ago(60))
    running.deliver_again(job.id)
    wait_until(lambda: running.state(job.id) == expected, 15, expected)
    if told == "succeeded":
        assert AsyncResult(job.id, app=running.app).result == job_row(running.database, job.id).result
    assert job_row(running.database, job.id).attempt == 1


def test_the_parent_that_forks_opens_no_database_when_a_child_is_killed(running: Running, worker: Worker) -> None:
    file = running.stack.incoming / "big.bin"
    with file.open("wb") as stream:
        stream.truncate(200 * 1024 * 1024)
    job = running.client.write_stream("/big", file)
    job = wait_for(running.client, job.id, lambda job: job.bytes_done > 0)
    child = int(str(job.worker).rpartition(":")[2])
    assert open_databases(child), "the child has it open, so that the look at the parent means something"
    os.kill(child, signal.SIGKILL)
    parent = psutil.Process(worker.pids[0])
    opened = set()

    def ended(job: Job) -> bool:
        opened.update(open_databases(parent.pid))
        return job.is_final

    wait_for(running.client, job.id, ended)
    assert opened == set()
    running.wait_until_idle()
    assert running.client.get(job.id).state == "succeeded"
    assert running.client.get(job.id).attempt == 2
    assert open_databases(parent.pid) == []


def open_databases(pid: int) -> list[str]:
    """The files of the database that a process has open."""
    return [file.path for file in psutil.Process(pid).open_files() if "blobferry.db" in file.path]
