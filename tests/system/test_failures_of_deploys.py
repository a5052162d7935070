"""Workers that are told to go, or whose children are: a deploy, a hard stop, recycling.

The table of all failures and their tests is in test_failures_of_workers.
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from dev.process import Service, ServiceProcess, running
from dev.proxies.tcp import wire
from dev.services import Postgres, S3Service, Valkey
from dev.services.postgres_server import through
from dev.stack import CHECKOUT, Stack
from dev.waiting import wait_until
from tests.system.recorded_stack import LONG_LEASE, Scene, recorded, told_to_end

MIB = 1024 * 1024


def unacknowledged(broker: Valkey) -> int:
    with redis.Redis.from_url(broker.url) as connection:
        return int(connection.hlen("unacked"))


def expire_leases(scene: Scene) -> None:
    scene.rows.execute("update blobferry_jobs set lease_expires_at = now() where lease_expires_at is not null")


# Five seconds with parts of 16 MiB, where nothing else runs; beside other tests, processes take what time they take.
@pytest.mark.parametrize(("size", "seconds"), [(5 * MIB, 30), pytest.param(16 * MIB, 5, marks=pytest.mark.long)])
def test_sigterm_deploy_drains_within_five_seconds_and_leaves_nothing_unacknowledged(
    stack: Stack, broker: Valkey, size: int, seconds: int
) -> None:
    settings = LONG_LEASE | {"BLOBFERRY_TRANSFER__PART_SIZE": str(size), "BLOBFERRY_CONCURRENCY": "2"}
    with recorded(stack, delays={"upload_part": 3.0}, settings=settings) as scene:
        with scene.stack.worker("first") as first:
            jobs = [scene.submit(f"/drain/{n}", 12, part_size=size) for n in range(2)]
            waiting = scene.submit("/drain/waiting", 1)
            for job in jobs:
                scene.under_way(job)
            assert told_to_end(first, signal.SIGTERM, within=seconds) == 0
        handed_over = [scene.client.get(job.id) for job in (*jobs, waiting)]
        assert {(job.state, job.worker) for job in handed_over} == {("queued", None)}
        assert all(0 < job.bytes_done < 12 * size for job in handed_over[:2])
        assert unacknowledged(broker) == 0
        with scene.stack.worker("second"):
            scene.succeeded_once(*jobs, waiting)
        for job in jobs:
            (attempt,) = scene.attempts(job)
            assert (attempt["outcome"], attempt["bytes_sent"]) == ("succeeded", 12 * size)
        assert unacknowledged(broker) == 0


EVERY_RUN = "broker"  #: the one that took 36 s once


@pytest.mark.parametrize(
    "away",
    [
        pytest.param(away, marks=[] if away == EVERY_RUN else pytest.mark.long)
        for away in ("broker", "database", "store", "broker, database, store")
    ],
)
def test_sigterm_ends_a_worker_in_ten_seconds_whatever_falls_silent(
    stack: Stack, broker: Valkey, postgres_server: Postgres, s3: S3Service, away: str
) -> None:
    """Ten where nothing else runs; beside other tests, processes take what time they take."""
    store = urlsplit(s3.endpoint)
    with (
        wire(("127.0.0.1", broker.port)) as to_broker,
        wire(postgres_server.upstream) as to_database,
        wire(("127.0.0.1", int(store.port or 0))) as to_store,
        recorded(stack, settings=LONG_LEASE) as scene,
    ):
        cables = {"broker": to_broker, "database": to_database, "store": to_store}
        cut_off = replace(
            scene.stack,
            broker_url=f"redis://127.0.0.1:{to_broker.port}/0",
            database_url=through(stack.database_url, to_database),
            endpoint=f"http://127.0.0.1:{to_store.port}",
        )
        with cut_off.worker("first") as first:
            to_store.delay(to_client=0.2)
            job = scene.submit("/silent/blob", 40)
            scene.under_way(job)
            for name in away.split(", "):
                cables[name].freeze()
            assert told_to_end(first, signal.SIGTERM, within=20) == 0
        expire_leases(scene)
        to_store.thaw()
        with replace(scene.stack, endpoint=cut_off.endpoint).worker("second"):  # there is the upload
            scene.succeeded(job, timeout=90)


def test_sigterm_ends_a_worker_whose_broker_has_never_answered(stack: Stack, broker: Valkey, tmp_path: Path) -> None:
    with wire(("127.0.0.1", broker.port)) as cable:
        cable.freeze()
        deaf = replace(stack, broker_url=f"redis://127.0.0.1:{cable.port}/0")
        process = ServiceProcess(
            "deaf",
            [sys.executable, "-m", "worker", "run"],
            log=tmp_path / "deaf.log",
            answers=lambda: cable.connections > 0,
            stop_group=False,
            environment={**deaf.environment(), "PYTHONPATH": str(CHECKOUT)},
        )
        with running(Service(processes=(process,))) as worker:
            # Before its handlers are in place, the signal's own effect ends it.
            assert told_to_end(worker, signal.SIGTERM, within=20) in {0, -signal.SIGTERM, 128 + signal.SIGTERM}


@pytest.mark.parametrize("how", ["SIGQUIT", pytest.param("SIGKILL after SIGTERM", marks=pytest.mark.long)])
def test_a_worker_that_is_not_given_the_time_to_drain_loses_nothing(stack: Stack, how: str) -> None:
    with recorded(stack, delays={"upload_part": 1.0}) as scene:
        with scene.stack.worker("first") as first:
            job, waiting = scene.submit("/cold/blob", 9), scene.submit("/cold/waiting", 1)
            scene.under_way(job)
            if how == "SIGQUIT":
                told_to_end(first, signal.SIGQUIT, within=20)
            else:
                os.kill(first.pids[0], signal.SIGTERM)
                wait_until(lambda: "arm shutdown" in first.log.read_text(), 5, "a worker that drains")
            first.kill9()
        with scene.stack.worker("second"):
            for one in (job, waiting):
                scene.succeeded(one)
        saved = [part for part in scene.asked(job, "upload_part") if part.status == 200]
        assert len(saved) <= 9 + 3, "no more than what was in flight is sent again"


def test_a_rolling_restart_of_two_workers_under_load_costs_no_job_a_lease(stack: Stack, broker: Valkey) -> None:
    with recorded(stack, settings=LONG_LEASE) as scene:
        with scene.stack.worker("first") as first, scene.stack.worker("second") as second:
            jobs = [scene.submit(f"/rolling/{n}", 9) for n in range(4)]
            for worker in (first, second):
                wait_until(lambda: any(scene.client.get(job.id).bytes_done for job in jobs), 30, "load")
                assert told_to_end(worker, signal.SIGTERM, within=10) == 0
                worker.restart()
            scene.succeeded_once(*jobs, timeout=90)
        assert unacknowledged(broker) == 0


@pytest.mark.parametrize(
    "limit",
    [
        pytest.param({"BLOBFERRY_MAX_TASKS_PER_CHILD": "1"}, id="task count"),
        pytest.param({"BLOBFERRY_MAX_MEMORY_PER_CHILD": str(64 * MIB)}, id="memory"),
    ],
)
@pytest.mark.long
def test_a_child_is_recycled_between_two_slices_of_a_job(stack: Stack, limit: dict[str, str]) -> None:
    settings = LONG_LEASE | limit | {"BLOBFERRY_TRANSFER__SLICE_SECONDS": "0.3"}
    children = set[str]()
    with recorded(stack, settings=settings) as scene, scene.stack.worker():
        job = scene.submit("/recycled/blob", 12)
        while len(children) < 3:
            job = scene.until(job, lambda job: job.is_final or (job.worker and job.worker not in children))
            assert not job.is_final, f"it has seen {children} only"
            children.add(str(job.worker))
        scene.succeeded_once(job)
