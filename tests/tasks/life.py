"""A small world for a job's life: one file, two stores, one database, and workers that come and go."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from blobferry.contract import JobState
from models import Database
from tests.doubles import HookedStore, tiny_store
from tests.models.rows import ago, change, job_row, submit
from worker.driver import Driver
from worker.jobs.outcome import Outcome
from worker.jobs.runner import run_job
from worker.runtime import Runtime
from worker.settings import LeaseSettings, RetentionSettings, RetrySettings, Settings, SourcesSettings, TransferSettings
from worker.stores.store import Store
from worker.transfer.upload.engine import Engine
from worker.transfer.upload.server_copy import Copying

KEY = "videos/7.mp4"
PATH = "/videos/7.mp4"
PART = 10
THREADS = 2
OLD = b"the old blob"
QUICK = {"seconds": 30, "heartbeat_seconds": 0.03, "margin_seconds": 1}  #: a lease whose owner soon hears of wishes


class World:
    """What outlives a worker."""

    def __init__(self, database: Database, directory: Path, size: int = 95) -> None:
        self.database = database
        self.memory = tiny_store()
        self.cold = tiny_store(bucket="cold")  #: the storage of that name
        self.part_size = PART
        self.copying = Copying(threshold=PART, part_size=PART, threads=THREADS)
        self.file = directory / "7.mp4"
        self.data = bytes(number % 251 for number in range(size))
        self.file.write_bytes(self.data)

    def submit(self, *, arguments: Mapping[str, Any] | None = None, **columns: Any) -> str:
        """A job that writes the file; its id."""
        asked = {"path": PATH, "source": self.file.as_uri(), **(arguments or {})}
        return submit(self.database, arguments=asked, **{"size": None} | columns)

    def ask(self, operation: str, **arguments: Any) -> str:
        """A job of any operation; its id."""
        return submit(self.database, operation=operation, arguments=arguments, size=None)

    @contextmanager
    def worker(
        self,
        store: Store | None = None,
        *,
        cold: Store | None = None,
        database: Database | None = None,
        **sections: Mapping[str, Any],
    ) -> Iterator[Runtime]:
        """The runtime of one worker child. ``sections`` are settings: ``retry={"max_attempts": 2}``."""
        kinds = {
            "transfer": TransferSettings,
            "lease": LeaseSettings,
            "retry": RetrySettings,
            "retention": RetentionSettings,
            "sources": SourcesSettings,
        }
        sections = {**sections, "sources": {"file_roots": (self.file.parent,), **sections.get("sources", {})}}
        settings = Settings.model_construct(
            database_url=SecretStr(self.database.engine.url.render_as_string(hide_password=False)),
            concurrency=2,
            **{name: kinds[name](**values) for name, values in sections.items()},
        )
        engine = Engine(part_size=self.part_size, part_threads=THREADS)
        stores = {"default": self.memory if store is None else store, "cold": self.cold if cold is None else cold}
        drivers = {name: Driver(of, engine=engine, copying=self.copying) for name, of in stores.items()}
        runtime = Runtime(settings, database=database or self.database, drivers=drivers)
        runtime.engine.close()
        runtime.engine = engine  # its parts are tiny; read_stream asks for it
        try:
            yield runtime
        finally:
            engine.close()

    def run(self, job_id: str, store: Store | None = None, **sections: Any) -> Outcome:
        """One run of the job, in a worker of its own."""
        with self.worker(store, **sections) as runtime:
            return run_job(runtime, job_id)


def due(world: World, job_id: str) -> None:
    """Time passes until the job may run again."""
    change(world.database, job_id, run_at=ago(1))


def has_ended(world: World, job_id: str, state: JobState, code: str | None = None) -> bool:
    """Whether the row says so, in every column that has a say."""
    row = job_row(world.database, job_id)
    assert (row.state, row.error_code) == (state, code), row.error_message
    assert (row.phase, row.run_at, row.worker, row.lease_expires_at) == (None, None, None, None)
    return row.finished_at is not None


def wishing(world: World, job_id: str, verb: str, store: Store | None = None, **wishes: Any) -> HookedStore:
    """A store during whose first such call somebody wishes something, by default a cancel, and the heartbeat hears.

    Other such calls wait for that.
    """
    done: list[str] = []
    lock = threading.Lock()

    def wish(called: str) -> None:
        if called != verb:
            return
        with lock:
            if not done:
                done.append(called)
                change(world.database, job_id, **(wishes or {"cancel_requested": True}))
                time.sleep(0.15)

    return HookedStore(world.memory if store is None else store, before=wish)
