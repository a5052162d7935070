"""A client on each kind of database, with a real broker whose queue tests can read."""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from click.testing import CliRunner, Result
from sqlalchemy import insert, select, update

from blobferry import Client, Job
from blobferry.cli import main
from blobferry.sql.tables import jobs, parts, uploads
from dev.services import Valkey, valkey
from models import Database

SOURCE = "file:///srv/incoming/7.mp4"
MIB = 1024 * 1024

Command = Callable[..., Result]


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

    def row(self, job: Job) -> dict[str, Any]:
        return next(row for row in self.rows() if row["id"] == job.id)

    def change(self, job: Job, **values: Any) -> None:
        with self.database.begin() as session:
            session.execute(update(jobs).where(jobs.c.id == job.id).values(**values))

    def add_upload(self, job: Job, sizes: tuple[int, ...] = (), **values: Any) -> None:
        """An upload of the job with parts of these sizes."""
        with self.database.begin() as session:
            statement = insert(uploads).values(job_id=job.id, **values).returning(uploads.c.id)
            upload = session.scalars(statement).one()
            for number, size in enumerate(sizes, start=1):
                session.execute(insert(parts).values(upload=upload, part_number=number, size=size))

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
    with Client(database_url=site.url, broker_url=site.broker_url) as client:
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
