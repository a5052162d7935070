"""Waiting for a job while the database is away: a restart is waited for, an outage ends the wait, in time."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass

import pytest
from alembic import command

from blobferry import Client, Job
from blobferry.errors import UnreachableError
from blobferry.jobs.listening import listen
from dev import services
from dev.services.postgres_server import SERVER_VARIABLE
from models import Database, queries
from tests.client.conftest import SOURCE
from tests.conftest import alembic_config
from tests.models.rows import change, claim


@dataclass(frozen=True)
class Mortal:
    """A PostgreSQL that a test may kill, and the URL of a migrated database in it."""

    server: services.Postgres
    url: str

    @contextmanager
    def is_away(self) -> Iterator[None]:
        self.server.kill9()
        try:
            yield
        finally:
            self.server.restart()


@pytest.fixture(scope="module")
def mortal() -> Iterator[Mortal]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(SERVER_VARIABLE, raising=False)  # that one is not ours to kill
        with services.postgres() as server, services.postgres_database(server) as url:
            command.upgrade(alembic_config(url), "head")
            yield Mortal(server, url)


@pytest.fixture
def client(mortal: Mortal) -> Iterator[Client]:
    with Client(database_url=mortal.url) as client:
        yield client


@pytest.fixture
def job(client: Client) -> Job:
    return client.write_stream("/a", SOURCE)


def finish(url: str, job_id: str) -> None:
    with closing(Database(url)) as database:
        change(database, job_id, state="succeeded")


def test_a_wait_survives_a_database_that_is_killed_and_comes_back(mortal: Mortal, client: Client, job: Job) -> None:
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
        with mortal.is_away():
            with pytest.raises(UnreachableError):
                client.get(job.id)
            assert not watching.done()
        finish(mortal.url, job.id)
        assert watching.result(60) == ["queued", "succeeded"]


def test_the_first_read_does_not_wait_and_a_timeout_holds_during_an_outage(
    mortal: Mortal, client: Client, job: Job
) -> None:
    watching = client.watch(job.id, timeout=3)
    next(watching)
    with mortal.is_away():
        with pytest.raises(UnreachableError):
            client.wait(job.id, timeout=60)
        with pytest.raises(TimeoutError, match=rf"{job.id} is still queued after 3 s, or was when .* \(database: "):
            next(watching)


def end_now(url: str, job_id: str) -> None:
    with closing(Database(url)) as database:
        job = claim(database, job_id)
        with database.begin() as session:
            queries.finish_job(session, job, {})


def test_a_listener_outlives_a_database_that_is_away_while_it_saves_its_place(
    mortal: Mortal, client: Client, job: Job
) -> None:
    listening = listen(client, "shop", interval=0.01)
    end_now(mortal.url, job.id)
    assert next(listening).id == job.id
    later = client.write_stream("/b", SOURCE).id
    with ThreadPoolExecutor(1) as thread:
        with mortal.is_away():
            waiting = thread.submit(next, listening)
            with pytest.raises(UnreachableError):
                client.get(job.id)
        end_now(mortal.url, later)
        assert waiting.result(60).id == later
    assert next(listen(client, "shop", interval=0.01)).id == later, "the page before is done"


def test_a_database_that_stays_away_is_given_up(mortal: Mortal, client: Client, job: Job) -> None:
    watching = client.watch(job.id, patience=1.5)
    next(watching)
    with mortal.is_away():
        started = time.monotonic()
        with pytest.raises(UnreachableError):
            next(watching)
        assert time.monotonic() - started >= 1
