"""A client on each kind of database, with a real broker whose queue tests can read."""

import base64
import json
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis
from click.testing import CliRunner, Result
from sqlalchemy import event, insert, select, text, update

from blobferry import Client, Job
from blobferry.cli import main
from blobferry.sql.clock import db_now
from blobferry.sql.tables import attempts, jobs, parts, uploads
from blobferry.sql.worker_tables import workers
from dev.services import Valkey, valkey, wait_until
from models import Database

SOURCE = "file:///srv/incoming/7.mp4"
MIB = 1024 * 1024

CHECKOUT = Path(__file__).parents[2]

Answer = TypeVar("Answer")
Command = Callable[..., Result]
Submit = Callable[..., Job]


def all_at_once(calls: Sequence[Callable[[], Answer]]) -> list[Answer]:
    """Call each in a thread of its own, all at the same moment; their answers, in order."""
    together = threading.Barrier(len(calls))

    def call(one: Callable[[], Answer]) -> Answer:
        together.wait()
        return one()

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(call, calls))


@contextmanager
def counted_selects(client: Client) -> Iterator[list[str]]:
    """The SELECTs of jobs that the client sends meanwhile."""
    sent: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *others: Any) -> None:
        if statement.startswith("SELECT") and "blobferry_jobs" in statement:
            sent.append(statement)

    event.listen(client._engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(client._engine, "before_cursor_execute", note)


def run_python(script: str, environment: Mapping[str, str]) -> None:
    """Run a script in a process of its own, which says nothing and ends well."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script)]
    done = subprocess.run(command, env=environment, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@dataclass(frozen=True)
class Site:
    """A database and a broker, and what lies in them."""

    database: Database
    broker_url: str
    url: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", self.database.engine.url.render_as_string(hide_password=False))

    def rows(self) -> list[dict[str, Any]]:
        with self.database.begin() as session:
            return [dict(row) for row in session.execute(select(jobs).order_by(jobs.c.seq)).mappings()]

    def row(self, job: Job | str) -> dict[str, Any]:
        job_id = job if isinstance(job, str) else job.id
        with self.database.begin() as session:
            return dict(session.execute(select(jobs).where(jobs.c.id == job_id)).mappings().one())

    def change(self, job: Job, **values: Any) -> None:
        """Set columns of the job's row, if any are named."""
        if not values:
            return
        with self.database.begin() as session:
            session.execute(update(jobs).where(jobs.c.id == job.id).values(**values))

    def add_upload(self, job: Job, sizes: tuple[int, ...] = (), **values: Any) -> None:
        """An upload of the job with parts of these sizes."""
        with self.database.begin() as session:
            statement = insert(uploads).values(job_id=job.id, **values).returning(uploads.c.id)
            upload = session.scalars(statement).one()
            for number, size in enumerate(sizes, start=1):
                session.execute(insert(parts).values(upload=upload, part_number=number, size=size))

    def add_attempt(self, job: Job, **values: Any) -> None:
        with self.database.begin() as session:
            session.execute(insert(attempts).values(job_id=job.id, **values))

    def messages(self) -> list[dict[str, Any]]:
        """Headers and body of all waiting messages, the newest first."""
        with redis.Redis.from_url(self.broker_url) as connection:
            raw = [json.loads(entry) for entry in connection.lrange("blobferry", 0, -1)]
        return [message["headers"] | {"body": json.loads(base64.b64decode(message["body"]))} for message in raw]

    def message_ids(self) -> list[str]:
        return [message["id"] for message in self.messages()]

    def take_messages(self) -> list[str]:
        """Remove all waiting messages; return their ids."""
        ids = self.message_ids()
        with redis.Redis.from_url(self.broker_url) as connection:
            connection.flushall()
        return ids

    def client(self, **means: Any) -> Client:
        """A client of both, or with other means; the caller closes it."""
        return Client(**{"database_url": self.url, "broker_url": self.broker_url} | means)

    def wait_until_somebody_waits_for_a_lock(self) -> None:
        """In PostgreSQL."""
        waits = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        with self.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            wait_until(lambda: connection.scalar(waits), 10, "somebody waits for a lock")

    def environment(self) -> dict[str, str]:
        return {"BLOBFERRY_DATABASE_URL": self.url, "BLOBFERRY_BROKER_URL": self.broker_url}


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Valkey]:
    with valkey() as server:
        yield server


@pytest.fixture
def make_site(valkey_server: Valkey) -> Callable[[Database], Site]:
    with redis.Redis.from_url(valkey_server.url) as connection:
        connection.flushall()
    return lambda database: Site(database, valkey_server.url)


@pytest.fixture
def site(make_site: Callable[[Database], Site], database: Database) -> Site:
    return make_site(database)


@pytest.fixture
def postgres_site(make_site: Callable[[Database], Site], postgres_database: Database) -> Site:
    return make_site(postgres_database)


@pytest.fixture
def sqlite_site(make_site: Callable[[Database], Site], sqlite_database: Database) -> Site:
    return make_site(sqlite_database)


@pytest.fixture
def ferry(site: Site) -> Iterator[Client]:
    with site.client() as client:
        yield client


@pytest.fixture
def client(sqlite_site: Site) -> Iterator[Client]:
    with Client.from_env(sqlite_site.environment()) as client:
        yield client


@pytest.fixture
def command(sqlite_site: Site) -> Command:
    """The command, in this process."""

    def run(*words: str, stdin: bytes = b"") -> Result:
        return CliRunner().invoke(main, words, input=stdin, env=sqlite_site.environment())

    return run


def add_living_worker(site: Site) -> None:
    """The row of a worker that is alive."""
    with site.database.begin() as session:
        session.execute(insert(workers).values(worker="w", name="w@host", alive_until=db_now(60.0)))
