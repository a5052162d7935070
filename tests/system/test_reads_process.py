"""Reads while all slots are busy: a worker answers them by a process beside its slots, unless it is told not to."""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import psutil
import pytest

from blobferry import Client, Job
from blobferry.errors import UnreachableError
from dev.services import valkey
from dev.stack import BUCKET, Stack, Worker
from dev.waiting import wait_until
from tests.fetching import fetch
from tests.system.conftest import PART_SIZE
from tests.system.recorded_stack import Scene, recorded
from worker.settings import Settings

SLOTS = 2
FOREVER = 300.0  #: seconds that each part takes: no upload ends within a test
TIMEOUT = 30.0
BY_DEFAULT = str(Settings.model_fields["reads"].default)
LIMITS = {"BLOBFERRY_CONCURRENCY": str(SLOTS), "BLOBFERRY_DRAIN_SECONDS": "1"}


def reads_process(worker: Worker) -> psutil.Process | None:
    """The process that answers reads; None while there is none."""
    children = psutil.Process(worker.pids[0]).children()
    return next((child for child in children if "--beside" in child.cmdline()), None)


@contextmanager
def busy(stack: Stack, reads: str) -> Iterator[tuple[Scene, Client, Worker]]:
    """A worker all of whose slots send a part that takes for ever, and a client that knows no storage."""
    settings = LIMITS | {"BLOBFERRY_READS": reads}
    with recorded(stack, delays={"upload_part": FOREVER}, settings=settings) as scene, scene.stack.worker() as worker:
        scene.s3.put_object(Bucket=BUCKET, Key="there", Body=b"a blob")
        jobs = [scene.submit(f"/slow/{number}", 3) for number in range(SLOTS)]
        for job in jobs:
            scene.until(job, sends)
        with Client(database_url=stack.database_url, broker_url=stack.broker_url) as client:
            yield scene, client, worker
        assert [scene.client.get(job.id).state for job in jobs] == ["running"] * SLOTS


def sends(job: Job) -> bool:
    return job.state == "running" and job.size == 3 * PART_SIZE


def test_reads_are_answered_by_default_while_all_slots_are_busy(stack: Stack) -> None:
    with busy(stack, BY_DEFAULT) as (scene, client, _):
        url = client.url_for("/there", timeout=TIMEOUT)
        assert fetch(url)[:2] == (200, b"a blob")
        assert client.stat("/there", timeout=TIMEOUT).size == 6
        assert "/there" in client.list("/", timeout=TIMEOUT)
        assert client.get_content("/there", timeout=TIMEOUT) == b"a blob"
        put = client.url_for("/new", {"method": "PUT", "content-type": "text/plain"}, timeout=TIMEOUT)
        assert dict(put.headers) == {"Content-Type": "text/plain"}
        paths = [f"/{number % 700}" for number in range(1500)]
        urls = client.urls_for(paths, timeout=TIMEOUT)
        assert [url.partition("?")[0].rpartition("/")[2] for url in urls] == [path[1:] for path in paths]
        assert "/500" not in scene.logged()  # a log line names some of a thousand paths
        assert "1000 in all" in scene.logged()


def test_a_worker_that_keeps_no_place_for_reads_answers_none_meanwhile(stack: Stack) -> None:
    with busy(stack, "0") as (_, client, worker):
        assert reads_process(worker) is None
        with pytest.raises(UnreachableError, match="no worker answered within 1 s"):
            client.url_for("/there", timeout=1)


def test_a_process_for_reads_that_was_killed_is_started_again(stack: Stack) -> None:
    with busy(stack, BY_DEFAULT) as (_, client, worker):
        first = appeared(lambda: reads_process(worker))
        first.kill()
        second = appeared(another(worker, first))
        assert client.stat("/there", timeout=TIMEOUT).size == 6
        assert second.is_running()


def appeared(look: Callable[[], psutil.Process | None]) -> psutil.Process:
    """The process, once it is there."""
    wait_until(look, TIMEOUT, "there is a process for reads")
    found = look()
    assert found is not None
    return found


def another(worker: Worker, first: psutil.Process) -> Callable[[], psutil.Process | None]:
    def look() -> psutil.Process | None:
        found = reads_process(worker)
        return None if found is None or found.pid == first.pid else found

    return look


def test_reads_are_answered_after_a_lost_broker_too(stack: Stack) -> None:
    """A worker that connects anew takes messages although its slots are busy: no read may be among them."""
    with valkey() as own, busy(replace(stack, broker_url=own.url), BY_DEFAULT) as (_, client, _worker):
        assert client.stat("/there", timeout=TIMEOUT).size == 6
        own.kill9()
        own.restart()
        with ThreadPoolExecutor(10) as threads:
            sizes = threads.map(lambda _: client.stat("/there", timeout=TIMEOUT).size, range(50))
            assert list(sizes) == [6] * 50


def test_a_worker_for_one_of_the_two_has_no_such_process(stack: Stack) -> None:
    settings = {"BLOBFERRY_READS": BY_DEFAULT}
    with (
        recorded(stack, delays={}, settings=settings) as scene,
        scene.stack.worker("jobs", "--only", "jobs") as jobs,
        scene.stack.worker("reads", "--only", "reads") as reads,
    ):
        assert [reads_process(worker) for worker in (jobs, reads)] == [None, None]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_its_worker(stack: Stack, how: signal.Signals) -> None:
    settings = LIMITS | {"BLOBFERRY_READS": BY_DEFAULT}
    with recorded(stack, delays={}, settings=settings) as scene, scene.stack.worker() as worker:
        beside = appeared(lambda: reads_process(worker))
        os.kill(worker.pids[0], how)
        assert beside.wait(TIMEOUT) in (0, None)  # None: it was no child of this process
