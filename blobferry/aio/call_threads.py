"""Calls of Client in threads, where no event loop waits for a database or a broker, and what a cancel does."""

import asyncio
import contextvars
import logging
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

from blobferry.values import Job

logger = logging.getLogger(__name__)

DATABASE_THREADS: Final = 8  #: fewer than the connections of an engine's pool
WORKER_THREADS: Final = 16  #: for reads of blobs, each of which waits for a worker's answer
Answer = TypeVar("Answer")


class CallThreads:
    """The threads of one AsyncClient. Made on first use, so that the client may be made before a fork."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._database: ThreadPoolExecutor | None = None
        self._worker: ThreadPoolExecutor | None = None

    def later(self, call: Callable[[], object]) -> None:
        """Make the call in a thread. Nobody waits for it but ``close``."""
        self._begin(call)

    async def finished(self, call: Callable[[], Answer]) -> Answer:
        """The answer of a call that may change something.

        A cancelled await ends once it is known what came of the call: nothing, if no thread had begun it. Otherwise it
        is waited for, and the log and a note of the CancelledError say what it did.
        """
        future = self._begin(call)
        waiting = asyncio.wrap_future(future)
        try:
            await asyncio.wait([waiting])
        except asyncio.CancelledError as cancelled:
            if not future.cancel():
                await _until_done(waiting)
                _tell(waiting, cancelled)
            raise
        return waiting.result()

    async def abandoned(self, call: Callable[[], Answer], *, asks_a_worker: bool = False) -> Answer:
        """The answer of a call that changes nothing. A cancelled await ends at once; its thread ends later."""
        return await asyncio.wrap_future(self._begin(call, asks_a_worker=asks_a_worker))

    def _begin(self, call: Callable[[], Answer], *, asks_a_worker: bool = False) -> Future[Answer]:
        if self._process != os.getpid():  # the parent's threads are not here
            self._forget()
        if asks_a_worker:
            pool = self._worker = self._worker or ThreadPoolExecutor(WORKER_THREADS, "blobferry-worker")
        else:
            pool = self._database = self._database or ThreadPoolExecutor(DATABASE_THREADS, "blobferry-database")
        return pool.submit(partial(contextvars.copy_context().run, call))

    async def close(self) -> None:
        """Wait for the calls that have begun. The threads are made again if another call comes."""
        pools = (self._database, self._worker) if self._process == os.getpid() else ()
        self._forget()
        for pool in pools:
            if pool is not None:
                await asyncio.to_thread(pool.shutdown)


async def _until_done(waiting: asyncio.Future[Any]) -> None:
    """Wait for it, however often this await is cancelled."""
    while not waiting.done():
        try:
            await asyncio.wait([waiting])
        except asyncio.CancelledError:
            continue


def _tell(done: asyncio.Future[Any], cancelled: asyncio.CancelledError) -> None:
    """Say what a call did whose await was cancelled."""
    error = done.exception()
    if error is not None:
        outcome, facts = f"it failed: {error}", {"reason": repr(error)}
    elif isinstance(answer := done.result(), Job):
        outcome, facts = f"job {answer.id} is {answer.state}", {"job_id": answer.id}
    else:
        outcome, facts = "it is done", {}
    cancelled.add_note(f"blobferry: the await was cancelled after its call had begun; {outcome}")
    logger.warning("await cancelled after its call had begun: %s", outcome, extra=facts)
