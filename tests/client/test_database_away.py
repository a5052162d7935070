"""Waiting for a job while the database is away: a restart is waited for, an outage ends the wait, in time."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest
from alembic import command
from sqlalchemy import update

from blobferry import Client
from blobferry.errors import UnreachableError
from blobferry.sql.tables import jobs
from dev import services
from dev.services.postgres_server import SERVER_VARIABLE
from models import Database
from tests.client.conftest import SOURCE
from tests.conftest import alembic_config


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[tuple[services.Postgres, str]]:
    """A PostgreSQL that a test may kill, and the URL of a migrated database in it."""
    with pytest.MonkeyPatch.context() as patch, _own(patch) as server, services.postgres_database(server) as url:
        command.upgrade(alembic_config(url), "head")
        yield server, url


def _own(patch: pytest.MonkeyPatch) -> AbstractContextManager[services.Postgres]:
    patch.delenv(SERVER_VARIABLE, raising=False)  # that one is not ours to kill
    return services.postgres()


@pytest.fixture
def client(own_postgres: tuple[services.Postgres, str]) -> Iterator[Client]:
    with Client(database_url=own_postgres[1]) as client:
        yield client


def finish(url: str, job_id: str) -> None:
    database = Database(url)
    with database.begin() as session:
        session.execute(update(jobs).where(jobs.c.id == job_id).values(state="succeeded"))
    database.close()


def test_a_wait_survives_a_database_that_is_killed_and_comes_back(
    own_postgres: tuple[services.Postgres, str], client: Client
) -> None:
    server, url = own_postgres
    job = client.write_stream("/a", SOURCE)
    watched = threading.Event()

    def watch() -> list[str]:
        states = []
        for now in client.watch(job.id, timeout=60):
            states.append(str(now.state))
            watched.set()
        return states

    with ThreadPoolExecutor(1) as thread:
        watching = thread.submit(watch)
        assert watched.wait(30)
        server.kill9()
        with pytest.raises(UnreachableError):
            client.get(job.id)
        assert not watching.done()
        server.restart()
        finish(url, job.id)
        assert watching.result(60) == ["queued", "succeeded"]


def test_the_first_read_does_not_wait_and_a_timeout_holds_during_an_outage(
    own_postgres: tuple[services.Postgres, str], client: Client
) -> None:
    server, _ = own_postgres
    job = client.write_stream("/a", SOURCE)
    watching = client.watch(job.id, timeout=3)
    next(watching)
    server.kill9()
    try:
        with pytest.raises(UnreachableError):
            client.wait(job.id, timeout=60)
        with pytest.raises(TimeoutError, match=rf"{job.id} is still queued after 3 s, or was when .* \(database: "):
            next(watching)
    finally:
        server.restart()


def test_a_database_that_stays_away_is_given_up(own_postgres: tuple[services.Postgres, str], client: Client) -> None:
    server, _ = own_postgres
    job = client.write_stream("/a", SOURCE)
    watching = client.watch(job.id, patience=1.5)
    next(watching)
    server.kill9()
    try:
        started = time.monotonic()
        with pytest.raises(UnreachableError):
            next(watching)
        assert time.monotonic() - started >= 1
    finally:
        server.restart()
