"""The watches of one event loop: one task makes a reading per interval, in a thread, and wakes whom it concerns."""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import suppress

from blobferry.aio.call_threads import CallThreads
from blobferry.jobs.job_ids import JobId
from blobferry.jobs.job_reader import JobReader
from blobferry.jobs.job_watch import JobWatch, check_limits
from blobferry.jobs.shared_reading import Reading
from blobferry.values import Job


class LoopWatches:
    """Watches jobs on the running event loop. A thousand watches take one query per interval and no thread each."""

    def __init__(self, reader: JobReader, threads: CallThreads) -> None:
        self._reader = reader
        self._threads = threads
        self._wakers: dict[str, set[asyncio.Event]] = {}
        self._known: dict[str, Job] = {}  #: as the watches of each job were last woken for it
        self._reading: Reading | None = None
        self._reads: asyncio.Task[None] | None = None  #: while anybody watches

    async def watch(
        self, job_id: JobId, timeout: float | None, *, patience: float, heartbeat: float | None
    ) -> AsyncIterator[Job]:
        """The job now, then after each change until it is final, and after ``heartbeat`` seconds without a change."""
        limits = check_limits(timeout, patience, heartbeat)
        began = time.monotonic()
        job = await self._threads.abandoned(lambda: self._reader.get(job_id))
        read_at = time.monotonic()
        yield job
        watch = JobWatch(job, limits, began=began, read_at=read_at)
        with self._reader.shared.watched(job.id):
            waker = self._enter(job.id)
            try:
                while not watch.is_over:
                    alone = watch.interval_alone()
                    due_in = min(watch.due_in(), math.inf if alone is None else alone)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(due_in if due_in < math.inf else None):
                            await waker.wait()
                    waker.clear()
                    reading = self._last()
                    if alone is not None:
                        reading = await self._threads.abandoned(lambda: self._reader.shared.alone(job.id))
                    found = watch.look(reading)
                    if found is not None:
                        yield found
            finally:
                self._leave(job.id, waker)

    def _enter(self, job_id: str) -> asyncio.Event:
        waker = asyncio.Event()
        self._wakers.setdefault(job_id, set()).add(waker)
        self._known.pop(job_id, None)  # this watch has not seen what the others have
        if self._reads is None or self._reads.done():
            self._reads = asyncio.create_task(self._read_on())
        return waker

    def _leave(self, job_id: str, waker: asyncio.Event) -> None:
        wakers = self._wakers[job_id]
        wakers.discard(waker)
        if not wakers:
            del self._wakers[job_id]
            self._known.pop(job_id, None)
        if not self._wakers and self._reads is not None:
            self._reads.cancel()
            self._reads = None

    def _last(self) -> Reading | None:
        """The last reading. Raises what ended the readings, if something unexpected did."""
        if self._reads is not None and self._reads.done() and not self._reads.cancelled():
            self._reads.result()
        return self._reading

    async def _read_on(self) -> None:
        shared = self._reader.shared
        try:
            while True:
                await asyncio.sleep(shared.due_in())
                self._reading = await self._threads.abandoned(shared.latest)
                for job_id in self._concerned(self._reading):
                    for waker in self._wakers.get(job_id, ()):
                        waker.set()
        except Exception:
            for wakers in self._wakers.values():
                for waker in wakers:
                    waker.set()
            raise

    def _concerned(self, reading: Reading) -> list[str]:
        """The jobs whose watches must look: those that have changed or are gone; all while the database is away."""
        if reading.away is not None:
            return list(self._wakers)
        asked = [job_id for job_id in reading.asked if job_id in self._wakers]
        concerned = [job_id for job_id in asked if reading.jobs.get(job_id) != self._known.get(job_id, 0)]
        self._known |= {job_id: reading.jobs[job_id] for job_id in concerned if job_id in reading.jobs}
        return concerned
