"""What every method of AsyncClient does: call the method of Client that has its name, off the event loop."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from copy import copy
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Engine

from blobferry.aio.call_threads import CallThreads
from blobferry.aio.later_announcement import LaterAnnouncement
from blobferry.aio.loop_watches import LoopWatches
from blobferry.client import Client
from blobferry.jobs.job_ids import JobId
from blobferry.jobs.job_options import Labels
from blobferry.jobs.listening import ListenersPlace
from blobferry.sql.async_transactions import AsyncTransaction, run_within, url_of
from blobferry.values import Job

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

P = ParamSpec("P")
Answer = TypeVar("Answer")


def own_database(database_url: str | None, engine: "Engine | AsyncEngine | None") -> dict[str, Any]:
    """The arguments of Client for them: beside an AsyncEngine it has connections of its own, by its own driver."""
    if engine is None or isinstance(engine, Engine) or database_url is not None:
        return {"database_url": database_url, "engine": engine}
    return {"database_url": url_of(engine), "engine": None}


class AsyncCalls:
    """Calls the methods of one Client, its first argument left out."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._threads = CallThreads()
        self._watches: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopWatches] = WeakKeyDictionary()
        #: For transactions that commit on the event loop, which must not wait for the broker then.
        self._joining = copy(client)
        self._joining._announcement = LaterAnnouncement.of(client._announcement, self._threads.later)

    async def submit(
        self, call: Callable[..., Answer], *args: Any, session: AsyncTransaction | None = None, **options: Any
    ) -> Answer:
        """Call a method that submits, in the session's transaction if one is given, else in a thread."""
        if session is None:
            return await self._threads.finished(lambda: call(self.client, *args, **options))
        return await run_within(session, lambda joined: call(self._joining, *args, session=joined, **options))

    async def change(self, call: Callable[P, Answer], *args: P.args, **options: P.kwargs) -> Answer:
        """Call a bound method that may change something; see ``CallThreads.finished``."""
        return await self._threads.finished(lambda: call(*args, **options))

    async def read(self, call: Callable[P, Answer], *args: P.args, **options: P.kwargs) -> Answer:
        """Call a bound method that reads the database."""
        return await self._threads.abandoned(lambda: call(*args, **options))

    async def ask(self, call: Callable[P, Answer], *args: P.args, **options: P.kwargs) -> Answer:
        """Call a bound method that asks a worker."""
        return await self._threads.abandoned(lambda: call(*args, **options), asks_a_worker=True)

    def watch(
        self, job_id: JobId, timeout: float | None, *, patience: float, heartbeat: float | None = None
    ) -> AsyncIterator[Job]:
        """As ``Client.watch``, together with all watches of this event loop."""
        loop = asyncio.get_running_loop()
        watches = self._watches.get(loop)
        if watches is None:
            watches = self._watches[loop] = LoopWatches(self.client._reader, self._threads)
        return watches.watch(job_id, timeout, patience=patience, heartbeat=heartbeat)

    async def wait(self, job_id: JobId, timeout: float | None, *, patience: float) -> Job:
        """As ``Client.wait``."""
        async with aclosing(self.watch(job_id, timeout, patience=patience)) as watch:  # type: ignore[type-var]
            async for job in watch:
                if job.is_final:
                    return job
        raise AssertionError("a watch ends with a final job, or raises")

    async def listen(self, name: str, *, labels: Labels | None, interval: float) -> AsyncIterator[Job]:
        """As ``Client.listen``. No thread waits while nothing ends; a cancel between two jobs leaves a page unread."""
        place = ListenersPlace(self.client._engine, name, labels, interval)
        await self._threads.finished(place.begin)
        while True:
            for job in await self._threads.abandoned(place.read):
                yield job
            await self._threads.finished(place.keep)
            await asyncio.sleep(place.pause)

    async def handle(self, name: str, *, labels: Labels | None, interval: float) -> None:
        """As ``Client.handle``; the functions may be coroutine functions."""
        handlers = self.client._handlers
        handlers.check(with_coroutines=True)
        async with aclosing(self.listen(name, labels=labels, interval=interval)) as ends:  # type: ignore[type-var]
            async for job in ends:
                await handlers.acall(job)

    async def close(self) -> None:
        """Finish what has begun, announcements included, then close the connections."""
        await self._threads.close()
        await asyncio.to_thread(self.client.close)
