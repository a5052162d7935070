"""Client: how a web app asks. Submitting needs only the database; the broker makes it faster, not safer."""

import builtins
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self, Unpack

from sqlalchemy import Engine

from blobferry.checks.paths import check_keys
from blobferry.client_variables import from_variables
from blobferry.contract import check_request
from blobferry.jobs import control
from blobferry.jobs.announcement import Announcement
from blobferry.jobs.bulk_submission import submit_many
from blobferry.jobs.delivery_log import redeliver
from blobferry.jobs.end_feed import Ends, read_ends
from blobferry.jobs.end_handlers import EndHandlers, Function
from blobferry.jobs.job_filter import States, check_filter
from blobferry.jobs.job_ids import JobId, JobIds
from blobferry.jobs.job_options import JobOptions, Labels, StreamOptions, WriteOptions
from blobferry.jobs.job_reader import JobReader
from blobferry.jobs.listening import INTERVAL, listen
from blobferry.jobs.new_job import NewJob, file_url
from blobferry.jobs.option_signatures import with_listed_options
from blobferry.jobs.replaced_source import ReplacedSource
from blobferry.jobs.submission import Transaction, submit
from blobferry.messages.broker import Broker
from blobferry.messages.broker_address import BrokerOptions
from blobferry.sealing import Sealer
from blobferry.signing.blob_urls import BlobUrls
from blobferry.signing.signed_url import SignedUrl
from blobferry.spooling import AnyUpload, SpoolDirectory, Spooled
from blobferry.sql.database import chosen_engine
from blobferry.values import Attempt, Delivery, FileInfo, Job, Situation, Upload

READ_TIMEOUT: Final = 10.0  #: seconds
PATIENCE: Final = 60.0  #: seconds that the database may be away during a wait


@with_listed_options
class Client(AbstractContextManager["Client"]):
    """Submits jobs, reads their state, cancels, pauses, resumes and retries them, and reads blobs. Thread-safe.

    May be made before a fork; connects on first use. A job is durable from its COMMIT. Raises InvalidRequestError that
    names the argument, with no row written; UnreachableError; JobNotFoundError.

    Args:
        database_url: the database that holds the jobs; or pass the app's own ``engine``.
        broker_url: where to publish. Without it, or while it is away, the caretaker publishes within seconds.
        result_backend: where the answers of reads are; the broker unless given. ``broker_options`` is for both URLs.
        encryption_keys: the worker's Fernet keys; the first one seals source URLs that hold a secret.
        keys: "any" where a storage has ``keys = "any"``: paths may then hold more than ASCII letters and digits.
        spool_dir: the directory for ``spool``, which the workers see under the same path.
        storages: parameters of storages by name, as the workers have them, whose URLs are then signed in this process;
            of ``from_env``, where botocore is installed: those of the workers' variables and of their file.
    """

    def __init__(
        self,
        *,
        database_url: str | None = None,
        engine: Engine | None = None,
        broker_url: str | None = None,
        result_backend: str | None = None,
        encryption_keys: str | Sequence[str] = (),
        keys: str = "registry",
        broker_options: BrokerOptions | None = None,
        spool_dir: str | Path | None = None,
        storages: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._keys = check_keys(keys)
        self._owns_engine = engine is None
        self._engine = chosen_engine(database_url, engine)
        self._reader = JobReader(self._engine)
        self._broker = Broker(broker_url, result_backend, broker_options)
        self._announcement = Announcement(self._engine, self._broker)
        self._sealer = Sealer(encryption_keys)
        self._spool = SpoolDirectory(spool_dir)
        self._handlers = EndHandlers()
        self._urls = BlobUrls(storages, self._keys, lambda *asked: self._read(*asked))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """A client from the variables BLOBFERRY_DATABASE_URL, which is needed, and those of the other arguments."""
        return from_variables(cls, os.environ if environ is None else environ)

    def close(self) -> None:
        """Close the connections that this client opened, not the app's own engine. It may be used again afterwards."""
        if self._owns_engine:
            self._engine.dispose()
        self._broker.close()

    def __exit__(self, *error: object) -> None:
        self.close()

    def put_content(self, path: str, contents: bytes | bytearray | memoryview, **options: Unpack[WriteOptions]) -> Job:
        """Submit a job that makes these bytes the whole blob. At most 1 MiB: the row of the job holds them."""
        return self._submit("put_content", {"path": path, "contents": contents, **options})

    def spool(self, upload: AnyUpload, *, size: int | None = None, digest: bool = True, move: bool = False) -> Spooled:
        """Bring an upload from its beginning into ``spool_dir`` and onto the disk: a source for ``write_stream``.

        Renames a temporary file on the same file system, with ``move`` any; copies all else. ``size``: bytes that it
        must have. Without ``digest`` no SHA-256 is computed. Raises InvalidRequestError, OSError.
        """
        return self._spool.take(upload, size=size, digest=digest, move=move)

    def write_stream(
        self, path: str, source: str | Path | Spooled, offset: int = 0, **options: Unpack[StreamOptions]
    ) -> Job:
        """Submit a job that writes the source, spooled or a URL or file as the **worker** sees it, to the path.

        With an ``offset``, in bytes, the blob keeps what lies before it, padded with zeros, and loses what lies after.
        """
        return self._submit("write_stream", {"path": path, "source": file_url(source), "offset": offset, **options})

    def read_stream(
        self, path: str, dest: str | Path, offset: int = 0, *, overwrite: bool = True, **options: Unpack[JobOptions]
    ) -> Job:
        """Submit a job that writes the blob, from byte ``offset`` on, to a file as the **worker** sees it."""
        own = {"path": path, "dest": file_url(dest), "offset": offset, "overwrite": overwrite}
        return self._submit("read_stream", {**own, **options})

    def move(
        self, source_path: str, dest_path: str, *,
        dest_storage: str | None = None, overwrite: bool = True, **options: Unpack[JobOptions],
    ) -> Job:  # fmt: skip
        """Submit a job that moves a blob, from ``storage`` to ``dest_storage`` if that is given."""
        own = {"source_path": source_path, "dest_path": dest_path, "dest_storage": dest_storage, "overwrite": overwrite}
        return self._submit("move", {**own, **options})

    def delete(self, path: str, **options: Unpack[JobOptions]) -> Job:
        """Submit a job that deletes the blob and everything under the path."""
        return self._submit("delete", {"path": path, **options})

    def _submit(self, operation: str, arguments: dict[str, Any]) -> Job:
        session = arguments.pop("session", None)
        request = check_request(operation, arguments, keys=self._keys)
        return Job.from_row(submit(request, session, self._announcement, self._sealer))

    def submit_many(self, requests: Iterable[NewJob], *, session: Transaction | None = None) -> JobIds:
        """Submit any number of jobs, all or none of them; return their ids, in order.

        ``requests`` may be a generator of any length: it is read to its end first, partly into a temporary file. A key
        counts as in a single submit, also among the requests. Safe to repeat if each request has one. Raises
        InvalidRequestError or ConflictError that says which request it is about, ``requests[17]``, and what the
        iterable raises. Nothing is written then, and ``session`` may go on.
        """
        return submit_many(requests, session, self._announcement, self._sealer, self._keys)

    def cancel(self, job_id: JobId) -> Job:
        """End the job, within one part, and remove what it has sent; a failed job gives up the upload that it kept.
        Raises TooLateError for a job that has succeeded or whose outcome readers may see.
        """
        return self._control(control.cancel, job_id)

    def pause(self, job_id: JobId) -> Job:
        """Stop the job, within one part, and keep its upload for the worker's retention. Raises TooLateError for a job
        that is final, is being cancelled, or whose outcome readers may see.
        """
        return self._control(control.pause, job_id)

    def resume(self, job_id: JobId) -> Job:
        """Let a paused job continue where it was; any other is left unchanged. Raises TooLateError for a job that is
        final or is being cancelled.
        """
        return self._control(control.resume, job_id)

    def retry(self, job_id: JobId, *, source: str | Path | Spooled | None = None) -> Job:
        """Let a failed job continue with the parts that are still kept and with all its tries; others are unchanged.
        Raises TooLateError for a job that has succeeded, was cancelled, or is past its deadline: submit it again.
        ``source`` is another URL or file of the same content, with which the worker compares what was sent.
        """
        replaced = None if source is None else ReplacedSource.of(file_url(source), self._sealer, self._keys)
        return self._control(lambda engine, job: control.retry(engine, job, source=replaced), job_id)

    def _control(self, change: control.Change, job_id: JobId) -> Job:
        row = change(self._engine, job_id)
        self._broker.publish_controlled(row)
        return Job.from_row(row)

    def get(self, job_id: JobId) -> Job:
        """The job as it is now."""
        return self._reader.get(job_id)

    def get_many(self, job_ids: Iterable[JobId]) -> dict[str, Job]:
        """Those of the jobs that exist, by id, in the order of the ids: one query for up to 5,000 of them."""
        return self._reader.get_many(job_ids)

    def wait(self, job_id: JobId, timeout: float | None = None, *, patience: float = PATIENCE) -> Job:
        """The job once it is final, in any final state. Raises TimeoutError after ``timeout`` seconds, and
        UnreachableError if the database is away at the call, or later for ``patience`` seconds.
        """
        return next(job for job in self.watch(job_id, timeout, patience=patience) if job.is_final)

    def watch(
        self, job_id: JobId, timeout: float | None = None, *, patience: float = PATIENCE, heartbeat: float | None = None
    ) -> Iterator[Job]:
        """The job now, at each change until it is final, and each ``heartbeat`` seconds without. Raises as ``wait``."""
        return self._reader.watch(job_id, timeout, patience=patience, heartbeat=heartbeat)

    def jobs(
        self, *,
        state: States | None = None, since: datetime | str | None = None, until: datetime | str | None = None,
        operation: str | None = None, storage: str | None = None, under: str | None = None,
        labels: Labels | None = None, limit: int = 100,
    ) -> builtins.list[Job]:  # fmt: skip
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
        wanted = {"state": state, "since": since, "until": until, "operation": operation, "storage": storage}
        return self._reader.jobs(check_filter(wanted | {"under": under, "labels": labels, "limit": limit}, self._keys))

    def uploads(
        self, job_id: JobId | None = None, *, finished: bool = False, limit: int = 1000
    ) -> builtins.list[Upload]:
        """The unfinished uploads, or with ``finished`` all, the oldest first; of one job if its id is given."""
        return self._reader.uploads(job_id, finished=finished, limit=limit)

    def attempts(self, job_id: JobId) -> builtins.list[Attempt]:
        """The attempts of the job with worker, times, outcome and bytes, the oldest first."""
        return self._reader.attempts(job_id)

    def situation(self, job_id: JobId) -> Situation:
        """The job with everything that explains its state."""
        return self._reader.situation(job_id)

    def deliveries(
        self, job_id: JobId | None = None, *, failed: bool = False, limit: int = 100
    ) -> builtins.list[Delivery]:
        """Who was, or is to be, told of ends, the newest first; of one job if its id is given. ``failed``: those that
        were given up, or whose endpoint is gone.
        """
        return self._reader.deliveries(job_id, failed=failed, limit=limit)

    def redeliver(self, which: JobId | int) -> builtins.list[Delivery]:
        """Tell the receivers of the last end of a job again, or those of one delivery by its number. Safe to repeat:
        the event keeps its id. Raises InvalidRequestError if there is none.
        """
        return redeliver(self._engine, which)

    def finished(self, *, after: str | None = None, labels: Labels | None = None, limit: int = 100) -> Ends:
        """The jobs that have ended since ``after``, the ``cursor`` of an earlier answer, or "now": see docs/ends.md."""
        return read_ends(self._engine, after, labels, limit)

    def listen(self, name: str, *, labels: Labels | None = None, interval: float = INTERVAL) -> Iterator[Job]:
        """Each job that ends, for ever and at least once; the database keeps the place under ``name``. docs/ends.md.

        ``labels``: the job has these labels. ``interval``: seconds between two looks. Raises UnreachableError if the
        database is away at the call, or later for ten minutes.
        """
        return listen(self, name, labels, interval)

    def on(self, *states: str) -> Callable[[Function], Function]:
        """A decorator for a function that ``handle`` calls with each job that ends so; without states, with each."""
        return self._handlers.on(*states)

    def handle(self, name: str, *, labels: Labels | None = None, interval: float = INTERVAL) -> None:
        """Call the functions added by ``on`` for each job that ends, as ``listen``, until one raises an error.

        The next call, under the same name, then begins with that job or up to 99 before it.
        """
        self._handlers.check()
        for job in self.listen(name, labels=labels, interval=interval):
            self._handlers.call(job)

    def get_content(self, path: str, *, storage: str = "default", timeout: float = READ_TIMEOUT) -> bytes:
        """The whole blob, of at most 1 MiB. Use ``read_stream`` for larger ones."""
        return bytes(self._read("get_content", {"path": path, "storage": storage}, timeout))

    def stat(self, path: str, *, storage: str = "default", timeout: float = READ_TIMEOUT) -> FileInfo:
        """The blob at the path, or else the directory. Raises PathNotFoundError."""
        return FileInfo.from_json(self._read("stat", {"path": path, "storage": storage}, timeout))

    def list(
        self, path: str, *, after: str | None = None, limit: int | None = None, recursive: bool = False,
        storage: str = "default", timeout: float = READ_TIMEOUT,
    ) -> builtins.list[str]:  # fmt: skip
        """Up to 10,000 absolute paths directly under the path, in byte order; with ``after``, those that follow it.
        ``recursive``: the paths of all blobs at any depth, and of no directory.
        """
        asked = {"path": path, "after": after, "limit": limit, "recursive": recursive or None, "storage": storage}
        return builtins.list(self._read("list", asked, timeout))

    def url_for(
        self, path: str, options: Mapping[str, Any] | None = None, *,
        storage: str = "default", timeout: float = READ_TIMEOUT,
    ) -> SignedUrl:  # fmt: skip
        """A URL that needs no credentials, signed here if this client has the storage's parameters, else by a worker.

        ``options``: ``method`` (GET, HEAD, PUT), ``expiry`` (an aware datetime, a timedelta or seconds, up to 7 days);
        of a GET ``download-as`` (a name), ``response-content-disposition``, ``response-content-type``; of a PUT
        ``content-type``. A PUT has to send the URL's ``headers``. Raises UnsupportedMethodError, CredentialsError.
        """
        return self.urls_for([path], options, storage=storage, timeout=timeout)[0]

    def urls_for(
        self, paths: Iterable[str], options: Mapping[str, Any] | None = None, *,
        storage: str = "default", timeout: float = READ_TIMEOUT,
    ) -> builtins.list[SignedUrl]:  # fmt: skip
        """The same for many paths, in their order, repeated ones too. A worker answers 1,000 at a time."""
        return self._urls.of(paths, options, storage, timeout)

    def _read(self, operation: str, arguments: Mapping[str, Any], timeout: float) -> Any:
        return self._broker.read(check_request(operation, arguments, keys=self._keys), timeout)
