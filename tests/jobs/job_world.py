"""A small world for a job's life: one file, two stores, one database, and workers that come and go."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from blobferry.contract import JobState
from dev.waiting import wait_until
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


def heartbeat_passes(world: World, job_id: str) -> None:
    """Wait until the run has learned of all that was written into its row before this call.

    The first renewal seen may have begun before that write; the second began after it; once the third is seen, the run
    has taken over what the second brought back.
    """
    seen = {job_row(world.database, job_id).lease_expires_at}

    def three_more() -> bool:
        seen.add(job_row(world.database, job_id).lease_expires_at)
        return len(seen) > 3

    wait_until(three_more, 30, "three heartbeats", longest_pause=0.01)


def heartbeat_gives_up() -> None:
    """Wait until the only run of this process has noticed that its lease is lost: its heartbeat ends."""
    wait_until(lambda: "heartbeat" not in [thread.name for thread in threading.enumerate()], 30, "the end of the beat")


def requesting(
    world: World, job_id: str, verb: str, store: Store | None = None, *, is_noticed: bool = True, **wishes: Any
) -> HookedStore:
    """A store whose first call of ``verb`` writes a control request into the row, by default a cancel.

    The call goes on once the heartbeat has brought the request to the run, or at once unless ``is_noticed``. Other
    calls of that verb wait for it.
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
                if is_noticed:
                    heartbeat_passes(world, job_id)

    return HookedStore(world.memory if store is None else store, before=wish)
