"""AsyncClient on each kind of database, and the app's own async engines beside it."""

import asyncio
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from threading import Event, Semaphore
from typing import Any

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from blobferry import AsyncClient
from blobferry.aio.call_threads import DATABASE_THREADS
from tests.client.conftest import Site

DRIVERS = ("aiosqlite", "asyncpg", "psycopg_async")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def ferry(site: Site) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(database_url=site.url, broker_url=site.broker_url) as ferry:
        yield ferry


def async_url(site: Site, driver: str) -> str:
    """The URL of the site's database as an app that uses the driver has it."""
    url = make_url(site.url)
    return url.set(drivername=f"{url.get_backend_name()}+{driver}").render_as_string(hide_password=False)


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def app_site(driver: str, request: pytest.FixtureRequest) -> Site:
    """The database that the driver is for."""
    found = request.getfixturevalue("sqlite_site" if "sqlite" in driver else "postgres_site")
    assert isinstance(found, Site)
    return found


@pytest.fixture
async def app_engine(app_site: Site, driver: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(async_url(app_site, driver))
    yield engine
    await engine.dispose()


@pytest.fixture
async def app_ferry(app_site: Site) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(database_url=app_site.url, broker_url=app_site.broker_url) as ferry:
        yield ferry


@contextmanager
def threads_are_busy(ferry: AsyncClient) -> Iterator[None]:
    """All threads for calls of the database wait until the block ends."""
    released, begun = Event(), Semaphore(0)

    def wait() -> None:
        begun.release()
        released.wait(60)

    for _ in range(DATABASE_THREADS):
        ferry._calls._threads.later(wait)
    for _ in range(DATABASE_THREADS):
        assert begun.acquire(timeout=10)
    try:
        yield
    finally:
        released.set()


@types.coroutine
def cancelled_at(number: int, work: Coroutine[Any, Any, None]) -> Generator[Any, Any, int]:
    """Run the coroutine and cancel it where it awaits for the ``number``-th time; return how often it has awaited.

    The task that runs it goes on: it is the work alone that ends with CancelledError.
    """
    count, task = 0, asyncio.current_task()
    assert task is not None
    step: Callable[[], Any] = lambda: work.send(None)  # noqa: E731
    while True:
        try:
            awaited = step()
        except StopIteration:
            return count
        except asyncio.CancelledError:
            task.uncancel()
            return count
        count += 1
        if count == number:
            task.cancel()
        try:
            yield awaited
            step = lambda: work.send(None)  # noqa: E731
        except BaseException as error:
            thrown = error
            step = lambda: work.throw(thrown)  # noqa: B023, E731
