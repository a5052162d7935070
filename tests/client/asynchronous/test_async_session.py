"""The app's own transaction on an event loop: the row is part of it, the message waits for its commit, in a thread."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session, async_sessionmaker

from blobferry import AsyncClient, Client, NewJob
from blobferry.errors import InvalidRequestError
from tests.client.asynchronous.conftest import cancelled_at
from tests.client.conftest import SOURCE, Site

pytestmark = pytest.mark.anyio


async def test_the_message_leaves_after_the_commit(
    app_ferry: AsyncClient, app_site: Site, app_engine: AsyncEngine
) -> None:
    async with AsyncSession(app_engine) as session:
        job = await app_ferry.write_stream("/a", SOURCE, session=session)
        assert app_site.messages() == []
        await session.commit()
    await app_ferry.close()  # which waits for the announcement
    assert app_site.message_ids() == [job.id]
    assert await app_ferry.get(job.id) == job


async def test_a_rollback_leaves_no_row_and_no_message(
    app_ferry: AsyncClient, app_site: Site, app_engine: AsyncEngine
) -> None:
    async with AsyncSession(app_engine) as session:
        await app_ferry.write_stream("/a", SOURCE, session=session)
        await session.rollback()
        async with session.begin():
            savepoint = await session.begin_nested()
            await app_ferry.write_stream("/b", SOURCE, session=session)
            await savepoint.rollback()
    with suppress(ZeroDivisionError):
        async with AsyncSession(app_engine) as session, session.begin():
            await app_ferry.submit_many([NewJob.delete("/c")], session=session)
            raise ZeroDivisionError
    await app_ferry.close()
    assert (app_site.rows(), app_site.messages()) == ([], [])


async def test_many_join_the_transaction(app_ferry: AsyncClient, app_site: Site, app_engine: AsyncEngine) -> None:
    async with AsyncSession(app_engine) as session, session.begin():
        ids = await app_ferry.submit_many((NewJob.delete(f"/{number}") for number in range(3)), session=session)
    await app_ferry.close()
    assert sorted(app_site.message_ids()) == sorted(ids)


async def test_a_connection_takes_the_row_into_its_transaction(
    app_ferry: AsyncClient, app_site: Site, app_engine: AsyncEngine
) -> None:
    """Nobody tells when it commits, so the caretaker publishes."""
    async with app_engine.connect() as connection:
        await app_ferry.write_stream("/a", SOURCE, session=connection)
        await connection.rollback()
        job = await app_ferry.write_stream("/b", SOURCE, session=connection)
        await connection.commit()
    await app_ferry.close()
    assert ([row["id"] for row in app_site.rows()], app_site.messages()) == ([job.id], [])


async def test_a_scoped_session_is_the_session_behind_it(
    app_ferry: AsyncClient, app_site: Site, app_engine: AsyncEngine
) -> None:
    scoped = async_scoped_session(async_sessionmaker(app_engine), asyncio.current_task)
    job = await app_ferry.write_stream("/a", SOURCE, session=scoped)
    await scoped.commit()
    await scoped.remove()
    await app_ferry.close()
    assert app_site.message_ids() == [job.id]


@pytest.mark.parametrize("driver", ["aiosqlite"])
async def test_client_says_what_takes_an_async_session(app_site: Site, app_engine: AsyncEngine) -> None:
    session: Any
    connection: Any
    with app_site.client() as client:
        async with AsyncSession(app_engine) as session, app_engine.connect() as connection:
            for each in (session, connection):
                with pytest.raises(InvalidRequestError, match=r"got Async.*blobferry\.AsyncClient.*run_sync"):
                    client.delete("/a", session=each)
            with pytest.raises(InvalidRequestError, match=r"blobferry\.AsyncClient"):
                client.submit_many([], session=session)
            await session.run_sync(lambda joined: client.delete("/a", session=joined))  # as the sentence says
            await session.commit()
    assert len(app_site.rows()) == 1


async def test_a_commit_does_not_wait_for_a_broker_that_hangs(app_site: Site, app_engine: AsyncEngine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        broker_url = f"redis://127.0.0.1:{hanging.getsockname()[1]}/0"
        ferry = AsyncClient(database_url=app_site.url, broker_url=broker_url)
        async with AsyncSession(app_engine) as session:
            job = await ferry.write_stream("/a", SOURCE, session=session)
            await session.commit()
        assert app_site.row(job)["published_at"] is not None, "the thread has yet to learn that nobody answers"
        await ferry.close()
    assert app_site.row(job)["published_at"] is None


@pytest.mark.parametrize("end", [AsyncSession.commit, AsyncSession.rollback], ids=lambda end: end.__name__)
async def test_cancelled_at_any_await_it_is_all_or_nothing(
    app_ferry: AsyncClient, app_site: Site, app_engine: AsyncEngine, end: Callable[[AsyncSession], Any]
) -> None:
    """A row and its message, or neither; and the pool goes on."""
    accounts = text("INSERT INTO blobferry_tombstones (id, finished_at) VALUES (:id, '2026-01-01 00:00:00')")

    async def work(number: int) -> None:
        async with AsyncSession(app_engine) as session:
            await session.execute(accounts, {"id": str(number)})  # the app's own row
            await app_ferry.write_stream("/a", SOURCE, session=session, labels={"number": str(number)})
            await end(session)

    number, awaits = 0, 1
    while number < awaits:
        number += 1
        awaits = await cancelled_at(number, work(number))
        assert number < 100
    await app_ferry.close()
    assert number > 3
    own = await _own_rows(app_engine)
    jobs = {row["labels"]["number"]: row["id"] for row in app_site.rows()}
    assert set(jobs) == own
    assert set(app_site.message_ids()) <= set(jobs.values())
    assert (str(number) in own) is (end is AsyncSession.commit)


async def _own_rows(engine: AsyncEngine) -> set[str]:
    async with engine.connect() as connection:
        return set((await connection.scalars(text("SELECT id FROM blobferry_tombstones"))).all())


def test_no_engine_of_the_loop_is_needed_for_a_plain_client(sqlite_site: Site) -> None:
    with Client(database_url=sqlite_site.url.replace("sqlite:", "sqlite+aiosqlite:")) as client:
        assert client.delete("/a").state == "queued"
