"""A small world for a job's life: one file, two stores, one database, and workers that come and go."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from pydantic import SecretStr
from sqlalchemy.orm import Session

from blobferry.contract import JobState
from dev.waiting import wait_until
from models import Database, queries
from tests.doubles import DeathError, FaultyStore, HookedStore, RecordingStore, When, WrappedStore, blob, tiny_store
from tests.models.rows import Rows, ago, submit
from worker import drain
from worker.driver import Driver
from worker.errors import StoreUnavailableError
from worker.jobs.heartbeat import PROCESS_HEARTBEAT
from worker.jobs.outcome import Cancelled, Finished, Outcome, Rescheduled
from worker.jobs.runner import run_job
from worker.maintenance.caretaker import Caretaker, Swept
from worker.maintenance.sender import SendMessages
from worker.runtime import Runtime
from worker.settings import Settings
from worker.stores.blob_values import BlobOptions, Page
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.store import Store
from worker.transfer.upload.engine import Engine
from worker.transfer.upload.server_copy import Copying

KEY = "videos/7.mp4"
PATH = "/videos/7.mp4"
PART = 10
THREADS = 2
OLD = b"the old blob"
CARRIED = BlobOptions(
    content_type="video/mp4", metadata={"title": "seven"}, tags={"team": "blue"}, headers={"Cache-Control": "no-store"}
)
#: Settings by which a failure is the last, and nothing is kept for a retry.
AT_ONCE: dict[str, Any] = {"retry": {"max_attempts": 1}, "retention": {"failed_upload_seconds": 0}}
QUICK = {"seconds": 30, "heartbeat_seconds": 0.03, "margin_seconds": 1}  #: a lease whose owner soon hears of wishes

#: A test whose world is kept in SQLite, and once more in PostgreSQL.
on_each_database = pytest.mark.parametrize("world_database", ["sqlite", "postgres"], indirect=True)


class World:
    """What outlives a worker, and the rows: ``world.change(job_id, ...)`` and all else that ``Rows`` has."""

    def __init__(self, database: Database, directory: Path, size: int = 95) -> None:
        directory.mkdir(exist_ok=True)
        self.database = database
        self.rows = Rows(database)
        self.memory = tiny_store()
        self.cold = tiny_store(bucket="cold")  #: the storage of that name
        self.part_size = PART
        self.copying = Copying(threshold=PART, part_size=PART, threads=THREADS)
        self.file = directory / "7.mp4"
        self.data = bytes(number % 251 for number in range(size))
        self.file.write_bytes(self.data)
        self.spool_dir: Path | None = None  #: of its workers

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rows, name)

    def submit(self, *, arguments: Mapping[str, Any] | None = None, **columns: Any) -> str:
        """A job that writes the file; its id."""
        asked = {"path": PATH, "source": self.file.as_uri(), **(arguments or {})}
        return submit(self.database, arguments=asked, **{"size": None} | columns)

    def seen(self) -> Any:
        """What readers see at the path."""
        return blob(self.memory, KEY)

    def ask(self, operation: str, **arguments: Any) -> str:
        """A job of any operation; its id."""
        return submit(self.database, operation=operation, arguments=arguments, size=None)

    @contextmanager
    def worker(
        self,
        store: Store | None = None,
        *,
        cold: Store | None = None,
        stores: Mapping[str, Store] | None = None,
        root: str = "",
        database: Database | None = None,
        **sections: Mapping[str, Any],
    ) -> Iterator[Runtime]:
        """The runtime of one worker child, by default with the world's two storages.

        Args:
            store: In place of the default storage's.
            cold: In place of the cold one's.
            stores: All storages of this worker.
            root: The root directory of all of them.
            database: In place of the world's.
            sections: Settings: ``retry={"max_attempts": 2}``.
        """
        kinds = get_type_hints(Settings)
        sections = {**sections, "sources": {"file_roots": (self.file.parent,), **sections.get("sources", {})}}
        settings = Settings.model_construct(
            database_url=SecretStr(self.database.engine.url.render_as_string(hide_password=False)),
            concurrency=2,
            spool_dir=self.spool_dir,
            **{name: kinds[name](**values) for name, values in sections.items()},
        )
        engine = Engine(part_size=self.part_size, part_threads=THREADS)
        stores = stores or {"default": store or self.memory, "cold": cold or self.cold}
        drivers = {name: Driver(of, root=root, engine=engine, copying=self.copying) for name, of in stores.items()}
        runtime = Runtime(settings, database=database or self.database, drivers=drivers)
        runtime.engine.close()
        runtime.engine = engine  # its parts are tiny; read_stream asks for it
        try:
            yield runtime
        finally:
            engine.close()
            drain._flag[0] = 0  # the next worker is another process

    def run(self, job_id: str, store: Store | None = None, **sections: Any) -> Outcome:
        """One run of the job, in a worker of its own."""
        with self.worker(store, **sections) as runtime:
            return run_job(runtime, job_id)

    def succeed(self, job_id: str, store: Store | None = None, **sections: Any) -> Finished:
        """One run, at whose end the job has succeeded."""
        outcome = self.run(job_id, store, **sections)
        assert isinstance(outcome, Finished), outcome
        assert outcome.error is None, outcome
        assert self.has_ended(job_id, JobState.SUCCEEDED)
        return outcome

    def fail(self, job_id: str, code: str, store: Store | None = None, **sections: Any) -> str:
        """One run, at whose end the job has failed with that code; its message."""
        outcome = self.run(job_id, store, **sections)
        assert isinstance(outcome, Finished), outcome
        assert outcome.error is not None, outcome
        assert outcome.error.code == code, outcome
        assert self.has_ended(job_id, JobState.FAILED, code)
        return str(self.job_row(job_id).error_message)

    def cancel(self, job_id: str, store: Store | None = None, **sections: Any) -> None:
        """One run, at whose end the job is cancelled."""
        assert self.run(job_id, store, **sections) == Cancelled()
        assert self.has_ended(job_id, JobState.CANCELLED)

    def put_off(self, job_id: str, store: Store | None = None, **sections: Any) -> Any:
        """One run that leaves the job to a later one; its row at that moment. Then time passes until it is due."""
        outcome = self.run(job_id, store, **sections)
        assert isinstance(outcome, Rescheduled), outcome
        row = self.job_row(job_id)
        self.change(job_id, run_at=ago(1))
        return row

    def crash(self, job_id: str, store: Store | None = None, **stores: Any) -> None:
        """A run whose worker dies, and whose lease runs out."""
        with pytest.raises(DeathError):
            self.run(job_id, store, **stores)
        self.expire_lease(job_id)

    def dying(self, *verbs: str, store: Store | None = None, number: int = 1, when: When = "before") -> FaultyStore:
        """A store at whose n-th call of these verbs the worker dies."""
        return FaultyStore(store or self.memory, *verbs, fail_at=number, when=when, error=DeathError)

    def taken_over(self, job_id: str) -> Any:
        """Another worker has claimed the job, whose lease had run out; the row as that one has it."""
        self.expire_lease(job_id)
        self.claim(job_id, worker="host:2")
        return self.job_row(job_id).as_row()

    def has_ended(self, job_id: str, state: JobState, code: str | None = None) -> bool:
        """Whether the row says so, in every column that has a say."""
        row = self.job_row(job_id)
        assert (row.state, row.error_code) == (state, code), row.error_message
        assert (row.phase, row.run_at, row.worker, row.lease_expires_at) == (None, None, None, None)
        return row.finished_at is not None

    def sweep(
        self, store: Store | None = None, *, publish: SendMessages = lambda *messages: len(messages), **sections: Any
    ) -> Swept:
        """One sweep of a caretaker whose messages arrive, unless ``publish`` says otherwise."""
        with self.worker(store, **sections) as runtime:
            return Caretaker(runtime, publish).sweep()

    def heartbeat_passes(self, job_id: str) -> None:
        """Wait until the run has learned of all that was written into its row before this call.

        The first renewal seen may have begun before that write; the second began after it; once the third is seen, the
        run has taken over what the second brought back.
        """
        seen = {self.job_row(job_id).lease_expires_at}

        def three_more() -> bool:
            seen.add(self.job_row(job_id).lease_expires_at)
            return len(seen) > 3

        wait_until(three_more, 30, "three heartbeats", longest_pause=0.01)

    def requesting(
        self, job_id: str, verb: str, store: Store | None = None, *, is_noticed: bool = True, **wishes: Any
    ) -> HookedStore:
        """A store whose first call of ``verb`` writes a control request into the row, by default a cancel.

        The call goes on once the heartbeat has brought the request to the run, or at once unless ``is_noticed``. Other
        calls of that verb wait for it.
        """

        def wish() -> None:
            self.change(job_id, **(wishes or {"cancel_requested": True}))
            if is_noticed:
                self.heartbeat_passes(job_id)

        return HookedStore(self.memory if store is None else store, before=at(verb, do=wish))

    def half_sent(self) -> str:
        """A job whose first run had to stop after five parts."""
        job_id = self.submit()
        self.put_off(job_id, FaultyStore(self.memory, "upload_part", fail_at=6, times=100))
        return job_id

    def moved_store(self, what: str) -> Store:
        """The default storage's store after somebody has changed its bucket or its endpoint."""
        store = WrappedStore(tiny_store(bucket="other" if what == "bucket" else self.memory.bucket))
        if what == "endpoint":
            store.endpoint = "http://elsewhere:9000"
        return store

    def silent_after_completion(self) -> HookedStore:
        """A store whose completion takes effect, and which then answers nothing more."""
        completed = threading.Event()

        def after(called: str) -> None:
            if called == "complete_upload":
                completed.set()
            if completed.is_set():
                raise StoreUnavailableError("no answer")

        return HookedStore(self.memory, after=after)


class FailingDatabase(Database):
    """Fails right after the commit that brings the job into a state or phase, and after so many that leave it there."""

    def __init__(
        self, database: Database, job_id: str, place: str, error: Callable[[str], BaseException], *, times: int = 1
    ) -> None:
        super().__init__(str(database.engine.url))
        self.times_left = times
        self._job_id, self._place, self._error = job_id, place, error

    @contextmanager
    def begin(self) -> Iterator[Session]:
        with super().begin() as session:
            yield session
        if not self.times_left:
            return
        with super().begin() as session:
            job = queries.find_job(session, self._job_id)
        if job is not None and self._place in (job.state, job.phase):
            self.times_left -= 1
            raise self._error("the connection was lost in the middle of COMMIT")


class PagedStore(MemoryStore):
    """Lists few keys at once."""

    def list_page(self, prefix: str, *, delimiter: str = "", token: str | None = None, limit: int = 4) -> Page:
        return super().list_page(prefix, delimiter=delimiter, token=token, limit=limit)


class SlowStore(WrappedStore):
    """Its worker dies while a commit call is on its way, which ``arrive`` lets have its effect."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.on_its_way: list[Callable[[], object]] = []

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if name in ("copy", "complete_upload"):
            self.on_its_way.append(lambda: super(SlowStore, self)._do(name, args, keywords))
            raise DeathError
        return super()._do(name, args, keywords)

    def arrive(self) -> None:
        self.on_its_way.pop()()


def at(*verbs: str, do: Callable[[], object], number: int = 1) -> Callable[[str], None]:
    """A hook that does something at the n-th call of one of the verbs; other such calls wait for it."""
    calls, lock = 0, threading.RLock()

    def hook(called: str) -> None:
        nonlocal calls
        if called in verbs:
            with lock:
                calls += 1
                if calls == number:
                    do()

    return hook


def by_another_name(store: Store, endpoint: str = "http://elsewhere:9000") -> RecordingStore:
    """The very same store, reached by another endpoint."""
    renamed = WrappedStore(store)
    renamed.endpoint = endpoint
    return RecordingStore(renamed)


def brought(*stores: RecordingStore) -> list[int]:
    """The numbers of the parts that were copied or sent."""
    return sorted(call.args[2] for store in stores for call in store.named("copy_part", "upload_part"))


def heartbeat_gives_up() -> None:
    """Wait until the only run of this process has noticed that its lease is lost: nobody renews it any more."""
    wait_until(lambda: not PROCESS_HEARTBEAT._due, 30, "the end of the beat")
