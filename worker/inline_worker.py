"""A worker in the process of an app's tests, for blobferry.testing: the real runner, no broker and no children.

Jobs run in the caller's thread, one after another, in the database or the transaction that the tests use. It sweeps by
the caretaker, whose messages are jobs to run here and ends to tell of.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from pydantic import SecretStr
from sqlalchemy import Connection, Engine, update
from sqlalchemy.orm import sessionmaker

from blobferry.checks.url_options import Method
from blobferry.contract import FINAL_STATES, Request
from blobferry.messages.callback_messages import CallbackMessage
from blobferry.sealing import Sealer
from blobferry.signing.signed_url import SignedUrl
from blobferry.sql.clock import db_now
from blobferry.sql.tables import jobs
from models import Database
from worker.celery.read_task import ANSWERS
from worker.driver import Driver
from worker.jobs.runner import run_job
from worker.maintenance.caretaker import Caretaker
from worker.runtime import Runtime
from worker.settings import LeaseSettings, Settings, SourcesSettings, TransferSettings
from worker.stores.memory.memory_store import MemoryStore
from worker.transfer.upload.engine import Engine as TransferEngine

#: Seconds: no heartbeat comes while a test runs, as its thread could not use the connection of the test.
LEASE: Final = LeaseSettings(seconds=600, heartbeat_seconds=580)


class InlineWorker:
    """Runs jobs of one database.

    Args:
        bind: the engine of the jobs, or the connection that has the transaction of the test.
        storages: driver parameters by name; storages that are not named are in memory.
        sealer: of the client, whose sealed sources it opens.
        spool_dir: of the client.
    """

    def __init__(
        self, bind: Engine | Connection, storages: Mapping[str, Mapping[str, Any]], sealer: Sealer, spool_dir: Any
    ) -> None:
        settings = Settings.model_construct(
            database_url=SecretStr("sqlite://"),  # not used: the database below is
            spool_dir=None if spool_dir is None else Path(spool_dir),
            # What the tests may read and remove, their jobs may.
            sources=SourcesSettings(file_roots=(Path("/"),), delete_roots=(Path("/"),)),
            transfer=TransferSettings(batch_jobs=1),  # one after another, in the order of their submission
            lease=LEASE,
        )
        transfer = settings.transfer
        self._engine = TransferEngine(part_size=transfer.part_size, part_threads=2)
        self._drivers = _Drivers(storages, self._engine)
        self._runtime = Runtime(settings, database=LentDatabase(bind), drivers=self._drivers)
        self._runtime.sealer = sealer

    def drain(self, tell: Callable[[CallbackMessage], None], *, scheduled: bool = False) -> list[str]:
        """Run jobs until none is due; return their ids, each once, in the order of their first runs.

        Args:
            tell: is called with the message of each callback.
            scheduled: let jobs be due that wait for a time.
        """
        sent: list[Any] = []

        def send(*messages: Any) -> int:
            sent.extend(messages)
            return len(messages)

        caretaker, ran = EagerCaretaker(self._runtime, send), dict[str, None]()
        while True:
            if scheduled:
                self._let_all_be_due()
            caretaker.sweep(is_quick=True)
            if not sent:
                return list(ran)
            taken, sent[:] = list(sent), []
            for message in taken:
                if isinstance(message, CallbackMessage):
                    tell(message)
                else:
                    ran[message.job_id] = None
                    run_job(self._runtime, message.job_id, message.seq, source=message.arguments.get("source"))

    def driver(self, storage: str) -> Driver:
        """The driver of a storage."""
        return self._drivers[storage]

    def answer(self, asked: Request) -> Any:
        """The answer to a read, as a worker gives it. Raises BlobferryError."""
        return ANSWERS[asked.operation](self._drivers[asked.storage], asked)

    def close(self) -> None:
        """End its threads."""
        self._runtime.close()
        self._engine.close()

    def _let_all_be_due(self) -> None:
        waits = (jobs.c.run_at > db_now(), jobs.c.state.not_in(sorted(FINAL_STATES)))
        with self._runtime.database.begin() as session:
            session.execute(update(jobs).where(*waits).values(run_at=db_now()))


class EagerCaretaker(Caretaker):
    """A caretaker whose errors a test sees."""

    def _step(self, step: Callable[[], int]) -> int:
        return step()


class LentDatabase(Database):
    """Sessions on the engine, or in the transaction, of somebody else, who closes it."""

    def __init__(self, bind: Engine | Connection) -> None:
        self.engine = bind if isinstance(bind, Engine) else bind.engine
        self.storage_webhooks = {}  # nothing is posted: the kit records those of jobs
        self._sessions = self._lookups = sessionmaker(
            bind, expire_on_commit=False, join_transaction_mode="create_savepoint"
        )

    def close(self) -> None:
        """Nothing."""


class ShownMemoryStore(MemoryStore):
    """A bucket in memory whose blobs have URLs, so that a page that shows one can be tested. They lead nowhere."""

    def presign(self, method: Method, key: str, expires_in: int, headers: Mapping[str, str] | None = None) -> SignedUrl:
        """A URL of the top-level domain that is reserved for this: RFC 2606, section 2."""
        terms = urlencode({"method": method, "expires": expires_in, **(headers or {})})
        url = f"https://{self.bucket}.invalid/{quote(key)}?{terms}"
        return SignedUrl(url, headers if method == "PUT" else None)


class _Drivers(dict[str, Driver]):
    """Drivers by the name of their storage, in memory unless named; made when they are first asked for."""

    def __init__(self, storages: Mapping[str, Mapping[str, Any]], engine: TransferEngine) -> None:
        super().__init__()
        self._storages = storages
        self._engine = engine
        for storage in {"default", *storages}:
            self[storage]  # wrong parameters are reported now

    def __missing__(self, storage: str) -> Driver:
        named = self._storages.get(storage)
        self[storage] = (
            Driver(ShownMemoryStore(storage), engine=self._engine)
            if named is None
            else Driver.from_parameters(named, engine=self._engine)
        )
        return self[storage]

    def get(self, storage: str, default: Any = None) -> Driver:
        """The driver of any storage."""
        return self[storage]
