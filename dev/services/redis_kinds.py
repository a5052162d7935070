"""Redis as deployments have it: behind sentinels, as a cluster. For TLS there is :mod:`dev.proxies.tls_wire`."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from dev.process import LOOPBACK, Service, ServiceProcess, free_port, running, work_directory
from dev.services import valkey_binary
from dev.waiting import wait_until

MASTER_NAME = "blobs"


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisServer(Service):
    """A running server of any kind."""

    port: int

    def client(self) -> Any:
        """A plain client; the caller closes it."""
        return redis.Redis(port=self.port, socket_timeout=5)


@contextmanager
def redis_server(work: Path, *options: str | Path) -> Iterator[RedisServer]:
    """A server with these options."""
    port = free_port()

    def answers() -> bool:
        with server.client() as connection:
            return bool(connection.ping())

    process = ServiceProcess(
        f"redis-{port}",
        [valkey_binary(), *options, "--port", str(port), "--bind", LOOPBACK, "--dir", work, "--save", ""],
        log=work / f"redis-{port}.log",
        answers=answers,
    )
    server = RedisServer(port=port, processes=(process,))
    with running(server):
        yield server


@contextmanager
def cluster() -> Iterator[RedisServer]:
    """A server in cluster mode."""
    with work_directory("cluster") as work, redis_server(work, "--cluster-enabled", "yes") as server:
        yield server


@contextmanager
def sentinel() -> Iterator[tuple[RedisServer, RedisServer, RedisServer]]:
    """A sentinel, the primary that it watches under ``MASTER_NAME``, and a replica."""
    with ExitStack() as services:
        work = services.enter_context(work_directory("sentinel"))
        primary = services.enter_context(redis_server(work))
        replica = services.enter_context(redis_server(work, "--replicaof", LOOPBACK, str(primary.port)))
        configuration = work / "sentinel.conf"
        configuration.write_text(
            f"sentinel monitor {MASTER_NAME} {LOOPBACK} {primary.port} 1\n"
            f"sentinel down-after-milliseconds {MASTER_NAME} 1000\nsentinel failover-timeout {MASTER_NAME} 3000\n"
        )
        with redis_server(work, configuration, "--sentinel") as watcher:
            with watcher.client() as connection:
                wait_until(lambda: connection.sentinel_slaves(MASTER_NAME), 30, "a sentinel that knows the replica")
            yield watcher, primary, replica
