"""A small world for a job's life: one file, one store, one database, and workers that come and go."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from models import Database
from tests.doubles import tiny_store
from tests.models.rows import submit
from worker.driver import Driver
from worker.runner import Outcome, run_job
from worker.runtime import Runtime
from worker.settings import Lease, Retention, Retry, Settings, Sources, Transfer
from worker.stores.store import Store
from worker.transfer.engine import Engine

KEY = "videos/7.mp4"
PATH = "/videos/7.mp4"
PART = 10
THREADS = 2
OLD = b"the old blob"


class World:
    """What outlives a worker."""

    def __init__(self, database: Database, directory: Path, size: int = 95) -> None:
        self.database = database
        self.memory = tiny_store()
        self.file = directory / "7.mp4"
        self.data = bytes(number % 251 for number in range(size))
        self.file.write_bytes(self.data)

    def submit(self, *, arguments: Mapping[str, Any] | None = None, **columns: Any) -> str:
        """A job that writes the file; its id."""
        asked = {"path": PATH, "source": self.file.as_uri(), **(arguments or {})}
        return submit(self.database, arguments=asked, **{"size": None} | columns)

    @contextmanager
    def worker(
        self, store: Store | None = None, *, database: Database | None = None, **sections: Mapping[str, Any]
    ) -> Iterator[Runtime]:
        """The runtime of one worker child. ``sections`` are settings: ``retry={"max_attempts": 2}``."""
        kinds = {"transfer": Transfer, "lease": Lease, "retry": Retry, "retention": Retention}
        settings = Settings.model_construct(
            database_url=SecretStr(self.database.engine.url.render_as_string(hide_password=False)),
            concurrency=2,
            sources=Sources(file_roots=(self.file.parent,)),
            **{name: kinds[name](**values) for name, values in sections.items()},
        )
        engine = Engine(part_size=PART, part_threads=THREADS)
        driver = Driver(self.memory if store is None else store, engine=engine)
        runtime = Runtime(settings, database=database or self.database, drivers={"default": driver})
        try:
            yield runtime
        finally:
            engine.close()
            runtime.engine.close()

    def run(self, job_id: str, store: Store | None = None, **sections: Any) -> Outcome:
        """One run of the job, in a worker of its own."""
        with self.worker(store, **sections) as runtime:
            return run_job(runtime, job_id)
