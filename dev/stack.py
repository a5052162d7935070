"""The whole of Blobferry on this machine: broker, database, object store, and workers to start and to kill."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from blobferry import Client
from dev.process import Service, ServiceProcess, running
from dev.services.s3_server import S3Service, create_bucket

CHECKOUT = Path(__file__).parent.parent
BUCKET = "blobferry"


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker(Service):
    """A running worker: the parent, its children and its caretaker, in one process group."""

    log: Path

    def peak_memory(self) -> int:
        """MiB of memory that the largest of its children has held so far."""
        children = psutil.Process(self.pids[0]).children()
        return max(_peak(child.pid) for child in children if not {"sweep", "--beside"} & set(child.cmdline()))


@dataclass(frozen=True, slots=True)
class Stack:
    """Where everything is. ``settings`` are BLOBFERRY_ variables on top of these."""

    broker_url: str
    database_url: str
    s3: S3Service
    directory: Path  #: the allowed file root is ``incoming`` below it
    endpoint: str = ""  #: of a proxy in front of the store; "" is the store's own
    settings: Mapping[str, str] = field(default_factory=dict)
    buckets: Mapping[str, str] = field(default_factory=lambda: {"default": BUCKET})  #: by the name of their storage

    @property
    def incoming(self) -> Path:
        """Where files lie that jobs may read."""
        return self.directory / "incoming"

    def environment(self) -> dict[str, str]:
        """The variables of a worker and of a client."""
        return {
            "BLOBFERRY_DATABASE_URL": self.database_url,
            "BLOBFERRY_BROKER_URL": self.broker_url,
            **{name: value for storage in self.buckets for name, value in self._storage(storage).items()},
            "BLOBFERRY_SOURCES__FILE_ROOTS": f'["{self.incoming}"]',
            **self.settings,
        }

    def _storage(self, name: str) -> dict[str, str]:
        values = {
            "BUCKET": self.buckets[name],
            "REGION": self.s3.region,
            "REGIONENDPOINT": self.endpoint or self.s3.endpoint,
            "ACCESSKEY": self.s3.access_key,
            "SECRETKEY": self.s3.secret_key,
            "FORCEPATHSTYLE": "true",
        }
        return {f"BLOBFERRY_STORAGES__{name.upper()}__{parameter}": value for parameter, value in values.items()}

    def client(self) -> Client:
        """A client of this stack; the caller closes it."""
        return Client.from_env(self.environment())

    def prepare(self, *, has_tables: bool = False) -> None:
        """Make the buckets, the file root and the tables, unless the database ``has_tables``."""
        self.incoming.mkdir(parents=True, exist_ok=True)
        for bucket in self.buckets.values():
            create_bucket(self.s3, bucket)
        if has_tables:
            return
        log = self.directory / "migrate.log"
        ServiceProcess("migrate", _python("migrate"), log=log, answers=bool, environment=self._import_path()).run()

    def run(self, *command: str, settings: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run ``python -m worker …`` to its end, with other settings if given."""
        environment = os.environ | self._import_path() | dict(settings or {})
        return subprocess.run(_python(*command), env=environment, capture_output=True, text=True, timeout=60)

    @contextmanager
    def worker(
        self, name: str = "worker", *options: str, checkout: Path = CHECKOUT, prefix: Sequence[str] = ()
    ) -> Iterator[Worker]:
        """A worker that has said it is ready; ended on the way out if it still runs. ``options`` are those of run.

        ``prefix`` is a command that becomes the worker, on another host for example.
        """
        log = self.directory / f"{name}.log"
        # Its process for reads says so too.
        are_ready = _ready(log) + (1 if "--only" in options or self.settings.get("BLOBFERRY_READS") == "0" else 2)
        process = ServiceProcess(
            name,
            [*prefix, *_python("run", "--name", name, *options)],
            log=log,
            answers=lambda: _ready(log) >= are_ready,
            stop_group=False,  # Celery's children are the parent's to end
            environment=self._import_path(checkout),
        )
        with running(Worker(processes=(process,), log=log)) as worker:
            yield worker

    def _import_path(self, checkout: Path = CHECKOUT) -> dict[str, str]:
        # A worker is the code under test, unlike the services: a coverage run follows it.
        coverage = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
        return coverage | self.environment() | {"PYTHONPATH": str(checkout)}


def _python(*command: str) -> list[str]:
    return [sys.executable, "-m", "worker", *command]


def _ready(log: Path) -> int:
    return log.read_text(errors="replace").count(" ready.") if log.exists() else 0


def _peak(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) // 1024
