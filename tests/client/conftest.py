"""A client on each kind of database, with a real broker whose queue can be looked into."""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from sqlalchemy import func, select

from blobferry import Client
from blobferry.sql.tables import jobs
from dev.services import Valkey, valkey
from models import Database


@dataclass(frozen=True)
class Asked:
    """A database and a broker, and what lies in them."""

    database: Database
    broker_url: str
    url: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", self.database.engine.url.render_as_string(hide_password=False))

    def rows(self) -> int:
        with self.database.begin() as session:
            return session.scalar(select(func.count()).select_from(jobs)) or 0

    def messages(self) -> list[dict[str, Any]]:
        """Headers and arguments of all waiting messages, the newest first."""
        with redis.Redis.from_url(self.broker_url) as connection:
            raw = [json.loads(entry) for entry in connection.lrange("blobferry", 0, -1)]
        return [message["headers"] | {"body": json.loads(base64.b64decode(message["body"]))} for message in raw]

    def message_ids(self) -> list[str]:
        return [message["id"] for message in self.messages()]

    def environment(self) -> dict[str, str]:
        return {"BLOBFERRY_DATABASE_URL": self.url, "BLOBFERRY_BROKER_URL": self.broker_url}


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Valkey]:
    with valkey() as server:
        yield server


@pytest.fixture
def make_asked(valkey_server: Valkey) -> Callable[[Database], Asked]:
    with redis.Redis.from_url(valkey_server.url) as connection:
        connection.flushall()
    return lambda database: Asked(database, valkey_server.url)


@pytest.fixture
def asked(make_asked: Callable[[Database], Asked], database: Database) -> Asked:
    return make_asked(database)


@pytest.fixture
def asked_postgres(make_asked: Callable[[Database], Asked], postgres_database: Database) -> Asked:
    return make_asked(postgres_database)


@pytest.fixture
def asked_sqlite(make_asked: Callable[[Database], Asked], sqlite_database: Database) -> Asked:
    return make_asked(sqlite_database)


@pytest.fixture
def ferry(asked: Asked) -> Iterator[Client]:
    with Client(database_url=asked.url, broker_url=asked.broker_url) as client:
        yield client
