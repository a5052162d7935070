"""FerryKit: what a test does with a client whose jobs are recorded, and ``recording``, which makes one."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, cast

from blobferry.async_client import AsyncClient
from blobferry.client import Client
from blobferry.contract import JobState
from blobferry.errors import BlobferryError
from blobferry.jobs.end_feed import MAX_LIMIT, NOW
from blobferry.jobs.job_ids import JobId
from blobferry.jobs.open_blocks import JOINED
from blobferry.jobs.submission import Transaction
from blobferry.testing import hand_moved_jobs as by_hand
from blobferry.testing.enqueued_jobs import EnqueuedJobs
from blobferry.testing.fresh_tables import create_tables, scratch_database_url
from blobferry.testing.hand_made_results import code_and_message
from blobferry.testing.installed_worker import Storages, inline_worker
from blobferry.testing.recorded_client import silenced
from blobferry.testing.silent_broker import SilentBroker
from blobferry.testing.told_callbacks import CallbackBox, ToldCallback
from blobferry.testing.told_ends import ToldWebhook, take_told
from blobferry.values import Job

if TYPE_CHECKING:
    from celery import Celery


class FerryKit(EnqueuedJobs):
    """A client under test, the jobs that were enqueued since the test began, and what a worker would do with them.

    Made by :func:`recording`. Jobs are ended by hand (``finish``, ``fail``, ``progress``, ``simulate``), in a test's
    thread, or run by the worker's own code (``drain``). ``wait``, ``watch``, ``finished`` and all other methods of the
    client show what has become of them.
    """

    def __init__(self, ferry: Client, callbacks: CallbackBox, storages: Storages) -> None:
        super().__init__(ferry)
        self.ferry = ferry  #: the client
        self._callbacks = callbacks
        self._webhooks: list[ToldWebhook] = []
        self._handled = ferry.finished(after=NOW).cursor
        self._inline = inline_worker(ferry, storages)

    @property
    def callbacks(self) -> Sequence[ToldCallback]:
        """The tasks that were told of ends, ``on_done=`` and ``on_failed=``, in order."""
        return tuple(self._callbacks.told)

    @property
    def webhooks(self) -> Sequence[ToldWebhook]:
        """The webhooks of ends, ``webhook=``, that a worker would have posted, in order. Nothing is posted."""
        return tuple(self._webhooks)

    @property
    def variables(self) -> Mapping[str, str]:
        """For ``Client.from_env`` in the app: the database of this kit, and no broker."""
        return {"BLOBFERRY_DATABASE_URL": self.ferry._engine.url.render_as_string(hide_password=False)}

    @contextmanager
    def only(self) -> Iterator[EnqueuedJobs]:
        """The jobs that are enqueued in the block, for the same assertions; also after the block."""
        block = EnqueuedJobs(self.ferry)
        try:
            yield block
        finally:
            block.close()

    def finish(self, job: Job | JobId, *, size: int | None = None, etag: str | None = None) -> Job:
        """End the job as succeeded, as if a worker had: whoever asked for its end is told.

        Args:
            job: any that has not ended, or its id.
            size: bytes of the blob; what is known of it unless given, else 0.
            etag: of the blob; one is made up unless given.

        Raises TooLateError for a job that has ended, JobNotFoundError, and what a task raises that runs eagerly.
        """
        return self._moved(by_hand.succeed(self.ferry._engine, _id_of(job), size=size, etag=etag))

    def fail(self, job: Job | JobId, error: str | BlobferryError, *, message: str | None = None) -> Job:
        """End the job as failed. ``error``: a code such as ``source_changed``, or an error of blobferry.

        Raises ValueError for the code of no error; the others as ``finish``.
        """
        code, why = code_and_message(error, message)
        return self._moved(by_hand.fail(self.ferry._engine, _id_of(job), code, why))

    def progress(self, job: Job | JobId, bytes_done: int, *, size: int | None = None) -> Job:
        """Let the job be running, with so many bytes done of ``size``. Raises as ``finish``."""
        return self._moved(by_hand.run(self.ferry._engine, _id_of(job), bytes_done=bytes_done, size=size))

    def simulate(
        self,
        job: Job | JobId,
        state: JobState | str,
        *,
        error: str | BlobferryError = "store_unavailable",
        message: str | None = None,
        seconds: float = 60.0,
    ) -> Job:
        """Bring the job into any state but ``queued``, as a worker would.

        Args:
            job: any that has not ended, or its id.
            state: ``running``, ``verifying`` (all is sent, and checked), ``paused``, ``retrying``, or a final one.
            error: of ``retrying`` and ``failed``.
            message: that of the error.
            seconds: until a ``retrying`` job is due again.

        Raises as ``finish``, and ValueError.
        """
        job_id, engine = _id_of(job), self.ferry._engine
        match JobState(state):
            case JobState.SUCCEEDED:
                return self.finish(job_id)
            case JobState.FAILED:
                return self.fail(job_id, error, message=message)
            case JobState.CANCELLED:
                return self._moved(by_hand.cancel(engine, job_id))
            case JobState.RUNNING:
                return self._moved(by_hand.run(engine, job_id, bytes_done=None, size=None))
            case JobState.VERIFYING:
                return self._moved(by_hand.verify(engine, job_id))
            case JobState.PAUSED:
                return self._moved(by_hand.pause(engine, job_id))
            case JobState.RETRYING:
                code, why = code_and_message(error, message)
                return self._moved(by_hand.put_off(engine, job_id, code, why, seconds))
        raise ValueError("a job is queued when it is submitted; ferry.retry(job.id) continues one that has failed")

    def run_callbacks(self) -> list[ToldCallback]:
        """Run, in this process, the tasks that were told of ends and have not run yet; return them.

        In an app with ``task_always_eager`` they have. Raises what a task raises, and LookupError for one that the
        Celery app does not know.
        """
        return self._callbacks.run()

    def run_handlers(self) -> list[Job]:
        """Do what a listener does, for each job that has ended since the last call, or since the test began: call the
        functions that ``@ferry.on(…)`` added; in Django first enqueue the ``@task`` that it names, and send the signal
        ``job_finished``. Return these jobs. Raises what a function raises.
        """
        ended = self._newly_ended()
        for job in ended:
            if self.ferry._engine.dialect.driver == JOINED:
                from blobferry.django.ended_jobs import tell_of  # noqa: PLC0415 - it needs a project

                tell_of(cast(Any, self.ferry), job)
            self.ferry._handlers.call(job)
        return ended

    async def arun_handlers(self) -> list[Job]:
        """The same on an event loop, where the functions may be coroutine functions."""
        ended = self._newly_ended()
        for job in ended:
            await self.ferry._handlers.acall(job)
        return ended

    def _newly_ended(self) -> list[Job]:
        page = self.ferry.finished(after=self._handled, limit=MAX_LIMIT)
        self._handled = page.cursor
        return list(page)

    def drain(self, *, scheduled: bool = False) -> list[Job]:
        """Run all jobs that are due by the worker's own code, in this thread, until none is; return them as they are.

        ``scheduled``: those that are due later, too, and all tries of those that fail for a while. The bytes go into a
        store in memory unless ``recording`` was given ``storages``. Raises ImportError where blobferry-worker is not
        installed.
        """
        ids = self._inline().drain(self._callbacks.take, scheduled=scheduled)
        by_hand.number_ends(self.ferry._engine, ids)
        self._tell()
        return list(self.ferry.get_many(ids).values())

    def driver(self, storage: str = "default") -> Any:
        """The worker's driver of a storage that ``drain`` uses, to put blobs there and to look at them:
        ``kit.driver().get_content("/a")``. Raises ImportError as ``drain``.
        """
        return self._inline().driver(storage)

    def _moved(self, row: Mapping[str, Any]) -> Job:
        self._tell()
        return Job.from_row(row)

    def _tell(self) -> None:
        for told in take_told(self.ferry._engine):
            if isinstance(told, ToldWebhook):
                self._webhooks.append(told)
            else:
                self._callbacks.take(told)


@contextmanager
def recording(
    client: Client | AsyncClient | None = None,
    *,
    transaction: Transaction | None = None,
    celery: "Celery | None" = None,
    storages: Storages | None = None,
) -> Iterator[FerryKit]:
    """A kit for the block: nothing that the client submits in it is published, and all of it can be asserted.

    Args:
        client: the app's own, or Django's ``ferry``, on the database of the tests, whose tables are there. Without it
            the kit has one, on an SQLite database in a temporary file: ``kit.ferry``.
        transaction: of the test, a Session or a Connection, if tests roll back what they did: then all that the client
            does is part of it. Not for Django, whose transaction ``ferry`` joins by itself.
        celery: the app whose tasks ``on_done=`` and ``on_failed=`` name; Celery's current app unless given.
        storages: driver parameters by the name of the storage, for ``drain``:
            ``{"default": {"driver": "local", "rootdirectory": "/tmp/blobs"}}``. Those not named are in memory.
    """
    with ExitStack() as stack:
        if client is None:
            client = stack.enter_context(Client(database_url=stack.enter_context(scratch_database_url())))
            create_tables(client._engine)
        broker = SilentBroker(lambda request: kit._inline().answer(request), lambda: kit._inline.is_made)
        silent = stack.enter_context(silenced(client, broker, transaction))
        kit = FerryKit(silent, CallbackBox(celery), storages or {})
        stack.callback(kit._inline.close)
        yield kit


def _id_of(job: Job | JobId) -> JobId:
    return job.id if isinstance(job, Job) else job
