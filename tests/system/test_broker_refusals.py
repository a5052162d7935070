"""A broker that answers commands with an error: no worker ends, and jobs go on when it is over."""

from collections.abc import Iterator

import psutil
import pytest
import redis

from dev.proxies.redis_gate import RedisGate, redis_gate
from dev.services import Valkey
from dev.stack import Stack, Worker
from dev.waiting import wait_until
from tests.system.recorded_stack import LONG_LEASE, Scene, recorded

#: Source: Redis, src/server.c createSharedObjects, src/acl.c, src/cluster.c, src/replication.c; Valkey has the same.
REFUSALS = [
    "READONLY You can't write against a read only replica.",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "NOREPLICAS Not enough good replicas to write.",
    "LOADING Redis is loading the dataset in memory",
    "CLUSTERDOWN The cluster is down",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "MOVED 3999 127.0.0.1:6381",
    "CROSSSLOT Keys in request don't hash to the same slot",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "NOPERM User default has no permissions to run the 'brpop' command",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "NOAUTH Authentication required.",
    "WRONGPASS invalid username-password pair or user is disabled.",
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "DENIED Redis is running in protected mode",
    "ERR max number of clients reached",
    "ERR unknown command 'BRPOP', with args beginning with: 'blobferry' ",
]


@pytest.fixture(scope="module")
def gate(broker: Valkey) -> Iterator[RedisGate]:
    with redis_gate(("127.0.0.1", broker.port)) as running:
        yield running


@pytest.fixture(scope="module")
def scene_and_worker(lasting_stack: Stack, gate: RedisGate) -> Iterator[tuple[Scene, Worker]]:
    """One worker for all refusals, with its broker behind the gate."""
    database = lasting_stack.broker_url.rpartition("/")[2]
    url = f"redis://127.0.0.1:{gate.port}/{database}"
    with recorded(lasting_stack, settings=LONG_LEASE, broker_url=url) as scene, scene.stack.worker() as worker:
        yield scene, worker


def is_alive(worker: Worker, pid: int) -> bool:
    return worker.pids == (pid,) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


EVERY_RUN = ("READONLY", "NOPERM", "NOAUTH", "CLUSTERDOWN")


@pytest.mark.parametrize(
    "error",
    [pytest.param(error, marks=() if error.startswith(EVERY_RUN) else pytest.mark.long) for error in REFUSALS],
    ids=lambda error: error[:20],
)
def test_a_broker_that_refuses_every_command_ends_no_worker(
    error: str, scene_and_worker: tuple[Scene, Worker], gate: RedisGate
) -> None:
    scene, worker = scene_and_worker
    before, said = worker.pids[0], len(worker.log.read_text())
    running = scene.submit(f"/refusals/{REFUSALS.index(error)}/running", 6)
    scene.under_way(running)
    gate.refuse_commands(error)
    refused = gate.refused
    queued = scene.submit(f"/refusals/{REFUSALS.index(error)}/queued", 1)
    wait_until(lambda: gate.refused > refused + 3 or not is_alive(worker, before), 60, "some refusals")
    gate.take_commands()
    assert is_alive(worker, before)
    for job in (running, queued):
        scene.succeeded(job, attempt=1, timeout=90)
    assert is_alive(worker, before)
    log = worker.log.read_text()[said:]
    assert log.count("broker refuses commands") <= 1
    assert "Unrecoverable" not in log


def test_a_broker_that_becomes_a_replica_and_again_a_primary_ends_no_worker(
    scene_and_worker: tuple[Scene, Worker], broker: Valkey
) -> None:
    scene, worker = scene_and_worker
    before, said = worker.pids[0], len(worker.log.read_text())
    with redis.Redis.from_url(broker.url) as server:
        server.execute_command("REPLICAOF", "127.0.0.1", "1")
        job = scene.submit("/replica/queued", 1)
        wait_until(lambda: "broker refuses commands" in worker.log.read_text()[said:], 60, "a refused command")
        server.execute_command("REPLICAOF", "NO", "ONE")
    scene.succeeded(job, attempt=1, timeout=90)
    assert is_alive(worker, before)
