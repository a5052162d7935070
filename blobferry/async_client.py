"""AsyncClient: Client for asyncio. Do not edit: `make async-client` writes it from the signatures of Client."""

import builtins
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from sqlalchemy import Engine

from blobferry.aio.async_calls import AsyncCalls, own_database
from blobferry.aio.async_options import AsyncJobOptions, AsyncStreamOptions, AsyncWriteOptions
from blobferry.client import PATIENCE, READ_TIMEOUT, Client
from blobferry.jobs.end_feed import Ends
from blobferry.jobs.end_handlers import Function
from blobferry.jobs.job_filter import States
from blobferry.jobs.job_ids import JobId, JobIds
from blobferry.jobs.job_options import Labels
from blobferry.jobs.listening import INTERVAL
from blobferry.jobs.new_job import NewJob
from blobferry.jobs.option_signatures import with_listed_options
from blobferry.messages.broker_address import BrokerOptions
from blobferry.signing.signed_url import SignedUrl
from blobferry.spooling import AnyUpload, Spooled
from blobferry.sql.async_transactions import AsyncTransaction
from blobferry.values import Attempt, Delivery, FileInfo, Job, Situation, Upload

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


@with_listed_options
class AsyncClient(AbstractAsyncContextManager["AsyncClient"]):
    """Client for asyncio: its methods, awaited. The event loop never waits for the database, the broker or a worker.

    ``session`` takes an AsyncSession or an AsyncConnection. ``engine`` may be an AsyncEngine: Blobferry opens
    connections of its own to that database, by psycopg 3 or SQLite's own driver. All watches share one query.

    What was cancelled before a thread had begun it has not happened. A submit, or a change of a job, that had begun is
    finished before its await ends with CancelledError, whose note names the job; with an ``idempotency_key`` it is safe
    to repeat. In a ``session`` it is part of that transaction.
    """

    def __init__(
        self,
        *,
        database_url: str | None = None,
        engine: "Engine | AsyncEngine | None" = None,
        broker_url: str | None = None,
        result_backend: str | None = None,
        encryption_keys: str | Sequence[str] = (),
        keys: str = "registry",
        broker_options: BrokerOptions | None = None,
        spool_dir: str | Path | None = None,
        storages: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._calls = AsyncCalls(
            Client(
                **own_database(database_url, engine),
                broker_url=broker_url,
                result_backend=result_backend,
                encryption_keys=encryption_keys,
                keys=keys,
                broker_options=broker_options,
                spool_dir=spool_dir,
                storages=storages,
            )
        )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """A client from the variables BLOBFERRY_DATABASE_URL, which is needed, and those of the other arguments."""
        client = cls.__new__(cls)
        client._calls = AsyncCalls(Client.from_env() if environ is None else Client.from_env(environ))
        return client

    @property
    def client(self) -> Client:
        """The Client behind this one, for use in threads."""
        return self._calls.client

    async def close(self) -> None:
        """Finish what has begun, then close the connections that this client opened. It may be used again."""
        await self._calls.close()

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def put_content(
        self, path: str, contents: bytes | bytearray | memoryview, **options: Unpack[AsyncWriteOptions]
    ) -> Job:
        """Submit a job that makes these bytes the whole blob. At most 1 MiB: the row of the job holds them."""
        return await self._calls.submit(Client.put_content, path, contents, **options)

    async def spool(
        self, upload: AnyUpload, *, size: int | None = None, digest: bool = True, move: bool = False
    ) -> Spooled:
        """Bring an upload from its beginning into ``spool_dir`` and onto the disk: a source for ``write_stream``.

        Renames a temporary file on the same file system, with ``move`` any; copies all else. ``size``: bytes that it
        must have. Without ``digest`` no SHA-256 is computed. Raises InvalidRequestError, OSError.
        """
        return await self._calls.change(self._calls.client.spool, upload, size=size, digest=digest, move=move)

    async def write_stream(
        self, path: str, source: str | Path | Spooled, offset: int = 0, **options: Unpack[AsyncStreamOptions]
    ) -> Job:
        """Submit a job that writes the source, spooled or a URL or file as the **worker** sees it, to the path.

        With an ``offset``, in bytes, the blob keeps what lies before it, padded with zeros, and loses what lies after.
        """
        return await self._calls.submit(Client.write_stream, path, source, offset, **options)

    async def read_stream(
        self,
        path: str,
        dest: str | Path,
        offset: int = 0,
        *,
        overwrite: bool = True,
        **options: Unpack[AsyncJobOptions],
    ) -> Job:
        """Submit a job that writes the blob, from byte ``offset`` on, to a file as the **worker** sees it."""
        return await self._calls.submit(Client.read_stream, path, dest, offset, overwrite=overwrite, **options)

    async def move(
        self,
        source_path: str,
        dest_path: str,
        *,
        dest_storage: str | None = None,
        overwrite: bool = True,
        **options: Unpack[AsyncJobOptions],
    ) -> Job:
        """Submit a job that moves a blob, from ``storage`` to ``dest_storage`` if that is given."""
        return await self._calls.submit(
            Client.move, source_path, dest_path, dest_storage=dest_storage, overwrite=overwrite, **options
        )

    async def delete(self, path: str, **options: Unpack[AsyncJobOptions]) -> Job:
        """Submit a job that deletes the blob and everything under the path."""
        return await self._calls.submit(Client.delete, path, **options)

    async def submit_many(self, requests: Iterable[NewJob], *, session: AsyncTransaction | None = None) -> JobIds:
        """Submit any number of jobs, all or none of them; return their ids, in order.

        ``requests`` may be a generator of any length: it is read to its end first, partly into a temporary file. A key
        counts as in a single submit, also among the requests. Safe to repeat if each request has one. Raises
        InvalidRequestError or ConflictError that says which request it is about, ``requests[17]``, and what the
        iterable raises. Nothing is written then, and ``session`` may go on.
        """
        return await self._calls.submit(Client.submit_many, requests, session=session)

    async def cancel(self, job_id: JobId) -> Job:
        """End the job, within one part, and remove what it has sent; a failed job gives up the upload that it kept.
        Raises TooLateError for a job that has succeeded or whose outcome readers may see.
        """
        return await self._calls.change(self._calls.client.cancel, job_id)

    async def pause(self, job_id: JobId) -> Job:
        """Stop the job, within one part, and keep its upload for the worker's retention. Raises TooLateError for a job
        that is final, is being cancelled, or whose outcome readers may see.
        """
        return await self._calls.change(self._calls.client.pause, job_id)

    async def resume(self, job_id: JobId) -> Job:
        """Let a paused job continue where it was; any other is left unchanged. Raises TooLateError for a job that is
        final or is being cancelled.
        """
        return await self._calls.change(self._calls.client.resume, job_id)

    async def retry(self, job_id: JobId, *, source: str | Path | Spooled | None = None) -> Job:
        """Let a failed job continue with the parts that are still kept and with all its tries; others are unchanged.
        Raises TooLateError for a job that has succeeded, was cancelled, or is past its deadline: submit it again.
        ``source`` is another URL or file of the same content, with which the worker compares what was sent.
        """
        return await self._calls.change(self._calls.client.retry, job_id, source=source)

    async def get(self, job_id: JobId) -> Job:
        """The job as it is now."""
        return await self._calls.read(self._calls.client.get, job_id)

    async def get_many(self, job_ids: Iterable[JobId]) -> dict[str, Job]:
        """Those of the jobs that exist, by id, in the order of the ids: one query for up to 5,000 of them."""
        return await self._calls.read(self._calls.client.get_many, job_ids)

    async def wait(self, job_id: JobId, timeout: float | None = None, *, patience: float = PATIENCE) -> Job:
        """The job once it is final, in any final state. Raises TimeoutError after ``timeout`` seconds, and
        UnreachableError if the database is away at the call, or later for ``patience`` seconds.
        """
        return await self._calls.wait(job_id, timeout, patience=patience)

    def watch(
        self, job_id: JobId, timeout: float | None = None, *, patience: float = PATIENCE, heartbeat: float | None = None
    ) -> AsyncIterator[Job]:
        """The job now, at each change until it is final, and each ``heartbeat`` seconds without. Raises as ``wait``."""
        return self._calls.watch(job_id, timeout, patience=patience, heartbeat=heartbeat)

    async def jobs(
        self,
        *,
        state: States | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        operation: str | None = None,
        storage: str | None = None,
        under: str | None = None,
        labels: Labels | None = None,
        limit: int = 100,
    ) -> builtins.list[Job]:
        """The newest jobs that match all arguments, the newest first. Raises InvalidRequestError naming a wrong one.

        Args:
            state: one state, or several.
            since: submitted then or later: an aware datetime, or ISO 8601 with a zone. ``until``: before then.
            operation: an operation that is a job, such as ``write_stream``.
            storage: the storage that the job was submitted for.
            under: the job's path is this path or lies below it.
            labels: the job has these labels; it may have others.
            limit: the most jobs to return, at most 10,000.
        """
        return await self._calls.read(
            self._calls.client.jobs,
            state=state,
            since=since,
            until=until,
            operation=operation,
            storage=storage,
            under=under,
            labels=labels,
            limit=limit,
        )

    async def uploads(
        self, job_id: JobId | None = None, *, finished: bool = False, limit: int = 1000
    ) -> builtins.list[Upload]:
        """The unfinished uploads, or with ``finished`` all, the oldest first; of one job if its id is given."""
        return await self._calls.read(self._calls.client.uploads, job_id, finished=finished, limit=limit)

    async def attempts(self, job_id: JobId) -> builtins.list[Attempt]:
        """The attempts of the job with worker, times, outcome and bytes, the oldest first."""
        return await self._calls.read(self._calls.client.attempts, job_id)

    async def situation(self, job_id: JobId) -> Situation:
        """The job with everything that explains its state."""
        return await self._calls.read(self._calls.client.situation, job_id)

    async def deliveries(
        self, job_id: JobId | None = None, *, failed: bool = False, limit: int = 100
    ) -> builtins.list[Delivery]:
        """Who was, or is to be, told of ends, the newest first; of one job if its id is given. ``failed``: those that
        were given up, or whose endpoint is gone.
        """
        return await self._calls.read(self._calls.client.deliveries, job_id, failed=failed, limit=limit)

    async def redeliver(self, which: JobId | int) -> builtins.list[Delivery]:
        """Tell the receivers of the last end of a job again, or those of one delivery by its number. Safe to repeat:
        the event keeps its id. Raises InvalidRequestError if there is none.
        """
        return await self._calls.change(self._calls.client.redeliver, which)

    async def finished(self, *, after: str | None = None, labels: Labels | None = None, limit: int = 100) -> Ends:
        """The jobs that have ended since ``after``, the ``cursor`` of an earlier answer, or "now": see docs/ends.md."""
        return await self._calls.read(self._calls.client.finished, after=after, labels=labels, limit=limit)

    def listen(self, name: str, *, labels: Labels | None = None, interval: float = INTERVAL) -> AsyncIterator[Job]:
        """Each job that ends, for ever and at least once; the database keeps the place under ``name``. docs/ends.md.

        ``labels``: the job has these labels. ``interval``: seconds between two looks. Raises UnreachableError if the
        database is away at the call, or later for ten minutes.
        """
        return self._calls.listen(name, labels=labels, interval=interval)

    def on(self, *states: str) -> Callable[[Function], Function]:
        """A decorator for a function that ``handle`` calls with each job that ends so; without states, with each."""
        return self._calls.client.on(*states)

    async def handle(self, name: str, *, labels: Labels | None = None, interval: float = INTERVAL) -> None:
        """Call the functions added by ``on`` for each job that ends, as ``listen``, until one raises an error.

        The next call, under the same name, then begins with that job or up to 99 before it.
        """
        return await self._calls.handle(name, labels=labels, interval=interval)

    async def get_content(self, path: str, *, storage: str = "default", timeout: float = READ_TIMEOUT) -> bytes:
        """The whole blob, of at most 1 MiB. Use ``read_stream`` for larger ones."""
        return await self._calls.ask(self._calls.client.get_content, path, storage=storage, timeout=timeout)

    async def stat(self, path: str, *, storage: str = "default", timeout: float = READ_TIMEOUT) -> FileInfo:
        """The blob at the path, or else the directory. Raises PathNotFoundError."""
        return await self._calls.ask(self._calls.client.stat, path, storage=storage, timeout=timeout)

    async def list(
        self,
        path: str,
        *,
        after: str | None = None,
        limit: int | None = None,
        recursive: bool = False,
        storage: str = "default",
        timeout: float = READ_TIMEOUT,
    ) -> builtins.list[str]:
        """Up to 10,000 absolute paths directly under the path, in byte order; with ``after``, those that follow it.
        ``recursive``: the paths of all blobs at any depth, and of no directory.
        """
        return await self._calls.ask(
            self._calls.client.list,
            path,
            after=after,
            limit=limit,
            recursive=recursive,
            storage=storage,
            timeout=timeout,
        )

    async def url_for(
        self,
        path: str,
        options: Mapping[str, Any] | None = None,
        *,
        storage: str = "default",
        timeout: float = READ_TIMEOUT,
    ) -> SignedUrl:
        """A URL that needs no credentials, signed here if this client has the storage's parameters, else by a worker.

        ``options``: ``method`` (GET, HEAD, PUT), ``expiry`` (an aware datetime, a timedelta or seconds, up to 7 days);
        of a GET ``download-as`` (a name), ``response-content-disposition``, ``response-content-type``; of a PUT
        ``content-type``. A PUT has to send the URL's ``headers``. Raises UnsupportedMethodError, CredentialsError.
        """
        return await self._calls.ask(self._calls.client.url_for, path, options, storage=storage, timeout=timeout)

    async def urls_for(
        self,
        paths: Iterable[str],
        options: Mapping[str, Any] | None = None,
        *,
        storage: str = "default",
        timeout: float = READ_TIMEOUT,
    ) -> builtins.list[SignedUrl]:
        """The same for many paths, in their order, repeated ones too. A worker answers 1,000 at a time."""
        return await self._calls.ask(self._calls.client.urls_for, paths, options, storage=storage, timeout=timeout)
