"""The kit and an AsyncClient."""

import asyncio

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from blobferry import AsyncClient, ConfigurationError, Job
from blobferry.testing import recording
from tests.client.conftest import Site


@pytest.fixture
def web(site: Site) -> AsyncClient:
    return AsyncClient(database_url=site.url, broker_url=site.broker_url)


def test_what_an_async_client_enqueues_is_recorded_and_ends_by_hand(site: Site, web: AsyncClient) -> None:
    async def test() -> None:
        with recording(web) as kit:
            await web.delete("/a")
            async with web:
                job = await web.put_content("/b", b"bytes")
                kit.assert_enqueued("delete", path="/a")
                watch = web.watch(job.id)
                assert (await anext(watch)).state == "queued"
                await asyncio.to_thread(kit.finish, job)
                assert (await anext(watch)).state == "succeeded"
                await asyncio.to_thread(kit.drain)
        assert site.messages() == []

    asyncio.run(test())


def test_what_an_async_session_commits_is_not_published(site: Site, web: AsyncClient) -> None:
    driver = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}[site.database.engine.dialect.name]

    async def test() -> None:
        engine = create_async_engine(site.database.engine.url.set(drivername=driver))
        with recording(web) as kit:
            async with AsyncSession(engine) as session:
                await web.delete("/rolled-back", session=session)
                await session.rollback()
                await web.delete("/committed", session=session)
                await session.commit()
            kit.refute_enqueued(path="/rolled-back")
            kit.assert_enqueued(path="/committed")
        await web.close()
        await engine.dispose()
        assert site.messages() == []

    asyncio.run(test())


def test_coroutine_functions_for_ends_are_awaited(web: AsyncClient) -> None:
    called = []

    @web.on("succeeded")
    async def note(job: Job) -> None:
        called.append(job.path)

    async def test() -> None:
        async with web:
            with recording(web) as kit:
                kit.finish(await web.delete("/a"))
                assert [job.path for job in await kit.arun_handlers()] == ["/a"]

    asyncio.run(test())
    assert called == ["/a"]


def test_a_transaction_of_the_test_is_refused(site: Site, web: AsyncClient) -> None:
    with (
        site.database.engine.connect() as connection,
        pytest.raises(ConfigurationError, match="transaction: is for a Client"),
        recording(web, transaction=connection),
    ):
        raise AssertionError("it was taken")


def test_it_publishes_again_afterwards(site: Site, web: AsyncClient) -> None:
    async def test() -> None:
        async with web:
            with recording(web):
                await web.delete("/a")
            job = await web.delete("/b")
        assert site.message_ids() == [job.id]

    asyncio.run(test())
