"""What a cancelled await has done: nothing, or all of it, and then the caller is told."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing

import pytest
from sqlalchemy import event, text

from blobferry import AsyncClient
from blobferry.aio.call_threads import CallThreads
from tests.client.asynchronous.conftest import cancelled_at, threads_are_busy
from tests.client.conftest import SOURCE, Site

pytestmark = pytest.mark.anyio


async def test_before_a_thread_has_begun_it_nothing_is_submitted(ferry: AsyncClient, site: Site) -> None:
    with threads_are_busy(ferry):
        submit = asyncio.create_task(ferry.write_stream("/a", SOURCE))
        await asyncio.sleep(0)
        submit.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await submit
    await ferry.close()
    assert (site.rows(), site.messages()) == ([], [])
    assert not hasattr(cancelled.value, "__notes__")


@asynccontextmanager
async def kept_waiting(ferry: AsyncClient, site: Site) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Nobody can submit within the block. What is given waits until a thread tries."""
    tries = threading.Event()
    with site.database.engine.connect() as blocker:
        is_sqlite = blocker.dialect.name == "sqlite"  # where BEGIN IMMEDIATE comes with any statement
        blocker.execute(text("SELECT 1" if is_sqlite else "LOCK TABLE blobferry_jobs IN EXCLUSIVE MODE"))
        event.listen(ferry.client._engine.pool, "checkout", lambda *connection: tries.set())
        yield lambda: asyncio.to_thread(tries.wait, 10)
        blocker.rollback()


async def test_once_begun_it_is_finished_and_the_error_names_the_job(
    ferry: AsyncClient, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """The database makes it wait; a second cancel does not cut it off either."""
    async with kept_waiting(ferry, site) as begun:
        submit = asyncio.create_task(ferry.write_stream("/a", SOURCE))
        assert await begun()
        for _ in range(2):
            submit.cancel()
            await asyncio.sleep(0.01)
        assert not submit.done()
    with caplog.at_level(logging.WARNING), pytest.raises(asyncio.CancelledError) as cancelled:
        await submit
    (job_id,) = [row["id"] for row in site.rows()]
    assert site.message_ids() == [job_id]
    assert f"job {job_id} is queued" in "".join(cancelled.value.__notes__)
    assert [record.__dict__["job_id"] for record in caplog.records] == [job_id]


async def test_a_timeout_shows_the_note_of_its_cause(ferry: AsyncClient, site: Site) -> None:
    limit = asyncio.timeout(None)

    async def submit() -> None:
        async with limit:
            await ferry.write_stream("/a", SOURCE)

    async with kept_waiting(ferry, site) as begun:
        submitting = asyncio.create_task(submit())
        assert await begun()
        limit.reschedule(0)
        while not limit.expired():
            await asyncio.sleep(0.01)
        assert not submitting.done()
    with pytest.raises(TimeoutError) as late:
        await submitting
    assert site.rows()[0]["id"] in "".join(getattr(late.value.__cause__, "__notes__", ()))


async def test_a_read_ends_at_once(ferry: AsyncClient, site: Site) -> None:
    with threads_are_busy(ferry):
        get = asyncio.create_task(ferry.get("nobody"))
        await asyncio.sleep(0)
        get.cancel()
        with pytest.raises(asyncio.CancelledError):
            await get


async def test_cancelled_at_any_await_a_job_is_there_or_not_and_never_two(ferry: AsyncClient, site: Site) -> None:
    async def work() -> None:
        job = await ferry.write_stream("/a", SOURCE, idempotency_key="k")
        await ferry.cancel(job.id)

    number, awaits = 0, 1
    while number < awaits:
        number += 1
        awaits = await cancelled_at(number, work())
        assert number < 50
    await ferry.close()
    assert len(site.rows()) == 1
    assert {*site.message_ids()} == {row["id"] for row in site.rows()}


async def test_what_failed_after_a_cancel_is_told_too(caplog: pytest.LogCaptureFixture) -> None:
    threads, begun, released = CallThreads(), threading.Event(), threading.Event()

    def fail() -> None:
        begun.set()
        released.wait(10)
        raise ValueError("no such luck")

    call = asyncio.create_task(threads.finished(fail))
    await asyncio.to_thread(begun.wait, 10)
    call.cancel()
    await asyncio.sleep(0)
    released.set()
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await call
    assert "it failed: no such luck" in cancelled.value.__notes__[0]
    assert "no such luck" in caplog.text
    await threads.close()


async def test_the_event_loop_runs_on_while_the_database_keeps_a_call_waiting(
    ferry: AsyncClient, sqlite_site: Site
) -> None:
    async with AsyncClient(database_url=sqlite_site.url) as own:
        with closing(sqlite_site.database.engine.connect()) as blocker:
            blocker.exec_driver_sql("SELECT 1")
            submit = asyncio.create_task(own.write_stream("/a", SOURCE))
            for _ in range(20):
                await asyncio.sleep(0.01)
            assert not submit.done()
            blocker.rollback()
        assert (await submit).state == "queued"
