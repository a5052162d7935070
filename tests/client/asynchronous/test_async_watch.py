"""Watching on an event loop: one query per interval and no thread each, however many watch."""

import asyncio
import gc
import math
import threading
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

import pytest

from blobferry import AsyncClient, Job, NewJob
from blobferry.aio.call_threads import DATABASE_THREADS, CallThreads
from blobferry.aio.loop_watches import LoopWatches
from blobferry.contract import JobState
from blobferry.errors import InvalidRequestError, JobNotFoundError, UnreachableError
from blobferry.jobs.shared_reading import SharedReading
from tests.client.conftest import SOURCE, Site, counted_selects

pytestmark = pytest.mark.anyio
WATCHERS = 1000


async def test_each_change_is_shown_once_until_the_end(ferry: AsyncClient, site: Site) -> None:
    job = await ferry.write_stream("/a", SOURCE)
    steps: Iterator[dict[str, Any]] = iter(
        [{"state": "running", "size": 10, "attempt": 1}, {"bytes_done": 5}, {"state": "succeeded", "bytes_done": 10}]
    )
    seen = []
    async for now in ferry.watch(job.id, timeout=30):
        seen.append((str(now.state), now.bytes_done))
        if not now.is_final:
            site.change(job, **next(steps))
    assert seen == [("queued", 0), ("running", 0), ("running", 5), ("succeeded", 10)]


async def test_a_heartbeat_shows_the_unchanged_job(ferry: AsyncClient) -> None:
    job = await ferry.write_stream("/a", SOURCE)
    seen = []
    async with aclosing(cast(Any, ferry.watch(job.id, heartbeat=0.05))) as watch:
        async for now in watch:
            seen.append(now)
            if len(seen) == 4:
                break
    assert seen == [job] * 4
    with pytest.raises(InvalidRequestError, match="heartbeat"):
        await anext(ferry.watch(job.id, heartbeat=0))


async def test_time_is_up_in_time_and_an_unknown_job_is_reported_at_once(ferry: AsyncClient) -> None:
    job = await ferry.write_stream("/a", SOURCE)
    with pytest.raises(TimeoutError, match="still queued"):
        await ferry.wait(job.id, timeout=0.1)
    with pytest.raises(JobNotFoundError):
        await ferry.wait("nobody")


@pytest.mark.long
async def test_a_thousand_watchers_cost_one_query_per_interval(ferry: AsyncClient, site: Site) -> None:
    ids = await ferry.submit_many(NewJob.delete(f"/{number}") for number in range(WATCHERS))
    begun = asyncio.Semaphore(0)

    async def watch(job_id: str) -> str:
        seen = []
        async for job in ferry.watch(job_id, heartbeat=600):
            begun.release()
            seen.append(job)
        return str(seen[-1].state)

    watching = [asyncio.create_task(watch(job_id)) for job_id in ids]
    for _ in range(WATCHERS):
        await begun.acquire()
    before = time.monotonic()
    with counted_selects(ferry.client) as selects:
        while len(selects) < 4:
            await asyncio.sleep(0.01)
    took, readings = time.monotonic() - before, len(selects)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("blobferry")]
    with site.database.begin() as session:
        session.connection().exec_driver_sql("UPDATE blobferry_jobs SET state = 'succeeded'")
    assert await asyncio.gather(*watching) == ["succeeded"] * WATCHERS
    assert readings <= took / 0.2 + 1
    assert len(threads) <= DATABASE_THREADS


async def test_a_watch_that_is_left_is_read_no_longer(ferry: AsyncClient) -> None:
    jobs = [await ferry.delete(f"/{number}") for number in range(3)]

    async def watch(job: Job) -> None:
        async for _ in ferry.watch(job.id):
            pass

    cancelled = asyncio.create_task(watch(jobs[0]))
    waiting = asyncio.create_task(ferry.wait(jobs[1].id))
    async for _ in ferry.watch(jobs[2].id):
        break
    await asyncio.sleep(0.3)
    cancelled.cancel()
    gc.collect()
    await asyncio.sleep(0.1)
    (watches,) = ferry._calls._watches.values()
    assert set(watches._wakers) == {jobs[1].id}
    waiting.cancel()
    await asyncio.gather(cancelled, waiting, return_exceptions=True)
    assert (watches._wakers, watches._known, watches._reads) == ({}, {}, None)
    assert not ferry.client._reader.shared._watched


class Answers:
    """A reader whose answers a test sets."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.error: Exception | None = None
        self.shared = SharedReading(self.get_many)

    def get(self, job_id: str) -> Job:
        return self.job

    def get_many(self, ids: Collection[str]) -> Mapping[str, Job]:
        if self.error is not None:
            raise self.error
        return {self.job.id: self.job}


@pytest.fixture
async def answers(ferry: AsyncClient) -> Answers:
    return Answers(await ferry.delete("/a"))


def watch_of(answers: Answers, **limits: Any) -> AsyncIterator[Job]:
    watches = LoopWatches(cast(Any, answers), CallThreads())
    return watches.watch(answers.job.id, None, **{"patience": 60.0, "heartbeat": None} | limits)


async def test_a_database_that_stays_away_ends_it_when_patience_does(answers: Answers) -> None:
    watch = watch_of(answers, patience=0.0)
    assert await anext(watch) == answers.job
    answers.error = UnreachableError("away")
    with pytest.raises(UnreachableError):
        await anext(watch)


async def test_heartbeats_go_on_while_the_database_is_away(answers: Answers) -> None:
    watch = watch_of(answers, heartbeat=0.05)
    await anext(watch)
    answers.error = UnreachableError("away")
    assert [await anext(watch) for _ in range(8)] == [answers.job] * 8


async def test_an_unexpected_error_of_the_readings_reaches_who_watches(answers: Answers) -> None:
    watch = watch_of(answers)
    await anext(watch)
    answers.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await anext(watch)


async def test_a_patient_watch_goes_on_when_the_database_is_back(answers: Answers) -> None:
    watch = watch_of(answers, patience=math.inf, heartbeat=0.05)
    await anext(watch)
    answers.error = UnreachableError("away")
    assert [await anext(watch) for _ in range(8)] == [answers.job] * 8
    answers.error, answers.job = None, replace(answers.job, state=JobState.SUCCEEDED)
    assert [job.state async for job in watch][-1] == "succeeded"
