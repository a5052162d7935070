"""The system under harm: two workers and their services, each behind something that can break."""

import os
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
from sqlalchemy import make_url

from dev.chaos.contents import MIB, content
from dev.chaos.job_model import FIXTURES
from dev.chaos.living import living
from dev.chaos.store_proxy import ChaosProxy, chaos_proxy
from dev.chaos.web_site import site
from dev.process import ServiceError
from dev.proxies.quirk_proxy import quirk_proxy
from dev.proxies.tcp import Wire, wire
from dev.services import Postgres, S3Service, Valkey, postgres, postgres_database, swift, valkey
from dev.stack import Stack, Worker
from dev.zoo import PROFILES

LEASE: Final = 6  #: seconds
BUCKETS: Final = {"default": "blobferry", "other": "blobferry-other"}
SETTINGS: Final = {
    "BLOBFERRY_CONCURRENCY": "3",
    "BLOBFERRY_TRANSFER__PART_SIZE": str(5 * MIB),
    "BLOBFERRY_TRANSFER__PART_THREADS": "2",
    "BLOBFERRY_TRANSFER__SLICE_SECONDS": "3",
    "BLOBFERRY_LEASE__SECONDS": str(LEASE),
    "BLOBFERRY_LEASE__HEARTBEAT_SECONDS": "2",
    "BLOBFERRY_LEASE__MARGIN_SECONDS": "1.5",
    "BLOBFERRY_SWEEP__INTERVAL_SECONDS": "1",
    # No number of faults uses up the tries of a job that can be done.
    "BLOBFERRY_RETRY__BASE_SECONDS": "1",
    "BLOBFERRY_RETRY__MAX_SECONDS": "4",
    "BLOBFERRY_RETRY__MAX_ATTEMPTS": "1000",
    "BLOBFERRY_RETRY__MAX_RESTARTS": "20",
    "BLOBFERRY_RETENTION__ABORT_RECHECK_SECONDS": "5",
    "BLOBFERRY_SOURCES__HTTP_ALLOW_PRIVATE": "true",
    **{
        f"BLOBFERRY_STORAGES__{storage}__MULTIPARTCOPY{name}": str(value)
        for storage in ("DEFAULT", "OTHER")
        for name, value in (("THRESHOLDSIZE", 8 * MIB), ("CHUNKSIZE", 5 * MIB), ("MAXCONCURRENCY", 2))
    },
}


@dataclass(frozen=True)
class System:
    """All there is. The ``stack`` is what workers and apps see; services are seen as they are."""

    directory: Path
    stack: Stack
    workers: Mapping[str, Worker]
    broker: Valkey
    broker_wire: Wire
    database: Postgres
    database_url: str  #: past the wire
    database_wire: Wire
    s3: S3Service
    proxy: ChaosProxy
    site: str
    #: One lock for each target: two faults at once on the same target could not both be undone.
    busy: Mapping[str, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))
    groups: set[int] = field(default_factory=set)  #: process groups of all workers that ever were

    def filled(self, value: Any) -> Any:
        """A planned value with the URLs of this run in it."""
        return value.format(files=self.stack.incoming, site=self.site) if isinstance(value, str) else value

    def start_worker(self, name: str, environment: Mapping[str, str] | None = None) -> None:
        """Start a worker that has ended, without waiting for it, with other settings for this once."""
        (process,) = self.workers[name].processes
        process.start(environment)
        self.groups.add(process.pid)

    def children(self, name: str) -> Sequence[psutil.Process]:
        """The processes of a worker that run jobs; none if it is down."""
        return [child for child, command in self._family(name) if not {"sweep", "--beside"} & set(command)]

    def caretakers(self, name: str) -> Sequence[psutil.Process]:
        """A worker's caretaker, if it has one now."""
        return [child for child, command in self._family(name) if "sweep" in command]

    def is_up(self, name: str) -> bool:
        """Whether the worker's parent runs."""
        with suppress(ServiceError, psutil.NoSuchProcess):  # it is down, or ended at this very moment
            return psutil.Process(self.workers[name].pids[0]).status() != psutil.STATUS_ZOMBIE
        return False

    def _family(self, name: str) -> list[tuple[psutil.Process, Sequence[str]]]:
        with suppress(ServiceError, psutil.NoSuchProcess):  # the same
            return living(psutil.Process(self.workers[name].pids[0]).children())
        return []


@contextmanager
def system(directory: Path, profile: str) -> Iterator[System]:
    """A running one, in the directory. All processes end with it; the directory stays.

    ``profile``: of the zoo, that the store behaves as.
    """
    with ExitStack() as services:
        (directory / "database").mkdir()
        server = services.enter_context(postgres(directory / "database"))
        database_url = make_url(services.enter_context(postgres_database(server)))
        socket = Path(str(database_url.query["host"])) / ".s.PGSQL.5432"
        database_wire = services.enter_context(wire(socket))
        through = database_url.set(host="127.0.0.1", port=database_wire.port, query={})
        broker = services.enter_context(valkey())
        broker_wire = services.enter_context(wire(("127.0.0.1", broker.port)))
        s3 = services.enter_context(swift(directory=directory / "swift"))
        quirks = services.enter_context(quirk_proxy(s3.endpoint, PROFILES[profile].rules()))
        proxy = services.enter_context(chaos_proxy(s3, quirks.endpoint))
        stack = Stack(
            broker_url=f"redis://127.0.0.1:{broker_wire.port}/0",
            database_url=through.render_as_string(hide_password=False),
            s3=s3,
            directory=directory,
            endpoint=proxy.endpoint,
            settings=SETTINGS,
            buckets=BUCKETS,
        )
        stack.prepare()
        _put_fixtures(s3)
        running = System(
            directory=directory,
            stack=stack,
            workers={name: services.enter_context(stack.worker(name)) for name in ("worker-a", "worker-b")},
            broker=broker,
            broker_wire=broker_wire,
            database=server,
            database_url=database_url.render_as_string(hide_password=False),
            database_wire=database_wire,
            s3=s3,
            proxy=proxy,
            site=services.enter_context(site(stack.incoming)),
        )
        running.groups.update(worker.pids[0] for worker in running.workers.values())
        try:
            yield running
        finally:
            for group in running.groups:  # children of a parent that was killed alone
                with suppress(OSError):
                    os.killpg(group, 9)


def _put_fixtures(s3: S3Service) -> None:
    client = s3.client()
    for (storage, path), (name, size) in FIXTURES.items():
        client.put_object(Bucket=BUCKETS[storage], Key=path.lstrip("/"), Body=content(name, size))
    client.close()
