"""Client: how a web app asks. Submitting needs the database only; the broker makes it fast, not safe."""

import builtins
import os
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self, TypedDict, Unpack

from celery import Celery
from sqlalchemy import Engine, select

from blobferry import messages
from blobferry.asking import Asker
from blobferry.checks import check_job_id
from blobferry.contract import JobState, check_request
from blobferry.database import open_engine, reachable
from blobferry.errors import ConfigurationError, JobNotFoundError
from blobferry.submission import Transaction, submit
from blobferry.tables import jobs
from blobferry.values import FileInfo, Job

POLL_INTERVAL: Final = 0.2  #: seconds between two looks at the row in ``wait`` and ``watch``
READ_TIMEOUT: Final = 10.0  #: seconds


class JobOptions(TypedDict, total=False):
    """What every job may be submitted with."""

    storage: str  #: the name of a storage that the worker knows; "default"
    priority: int  #: 0 to 9, higher first; 0
    not_before: datetime | None
    deadline: datetime | None  #: a job that is not done by then fails
    labels: Mapping[str, str] | None  #: the app's own
    idempotency_key: str | None  #: the same request again returns the first job, another raises ConflictError
    session: Transaction | None  #: the row joins this transaction


class WriteOptions(JobOptions, total=False):
    """What a job that writes a blob may be submitted with."""

    overwrite: bool  #: False: it fails if there is a blob already
    metadata: Mapping[str, str] | None  #: the blob's; None, of a write at an offset: as it was
    content_type: str | None  #: the same


class Client:
    """Submits jobs, looks at them, and reads. Thread-safe; may be made before a fork. It connects on first use.

    A submitted job is durable from the commit of its row. Submitting raises InvalidRequestError, with no row written,
    for an argument that cannot be used, and UnreachableError if the database is away. A read raises the worker's
    error, and UnreachableError if no worker answers.

    Args:
        database_url: where the jobs are; or pass the app's own ``engine``.
        broker_url: where to publish. Without it, or while it is away, the caretaker publishes within seconds.
        result_backend: where the worker puts the answers of reads; the broker unless given.
    """

    def __init__(
        self,
        *,
        database_url: str | None = None,
        engine: Engine | None = None,
        broker_url: str | None = None,
        result_backend: str | None = None,
    ) -> None:
        if (database_url is None) == (engine is None):
            raise ConfigurationError("database_url", "give either database_url or engine")
        self._owns_engine = engine is None
        self._engine = engine if engine is not None else open_engine(str(database_url))
        self._app: Celery | None = messages.client_app(broker_url) if broker_url else None
        self._asker = Asker(self._app, result_backend) if self._app is not None and result_backend else None
        self._broker_url = broker_url

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """A client from BLOBFERRY_DATABASE_URL, BLOBFERRY_BROKER_URL and, where it is set, BLOBFERRY_RESULT_BACKEND."""
        url = environ.get("BLOBFERRY_DATABASE_URL")
        if not url:
            raise ConfigurationError(
                "BLOBFERRY_DATABASE_URL", "is not set: the URL of the database that holds the jobs"
            )
        try:
            return cls(
                database_url=url,
                broker_url=environ.get("BLOBFERRY_BROKER_URL") or None,
                result_backend=environ.get("BLOBFERRY_RESULT_BACKEND") or None,
            )
        except ConfigurationError as error:
            raise ConfigurationError(f"BLOBFERRY_{error.name.upper()}", error.problem) from None

    def close(self) -> None:
        """Close the connections that this client opened, not the app's own engine. It may be used again afterwards."""
        if self._owns_engine:
            self._engine.dispose()
        if self._app is not None:
            self._app.close()
        if self._asker is not None:
            self._asker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- jobs ------------------------------------------------------------------------------------------------------

    def put_content(self, path: str, contents: bytes | bytearray | memoryview, **options: Unpack[WriteOptions]) -> Job:
        """Submit a job that makes these bytes the whole blob. At most 1 MiB: they lie in its row until it is pruned."""
        return self._submit("put_content", {"path": path, "contents": contents, **options})

    def write_stream(self, path: str, source: str | Path, offset: int = 0, **options: Unpack[WriteOptions]) -> Job:
        """Submit a job that writes the source, a URL or file as the **worker** sees it, to the path of the storage.

        With an ``offset``, what the blob holds before stays, up to zeros if it is shorter, and what lay after goes.
        """
        return self._submit("write_stream", {"path": path, "source": _url(source), "offset": offset, **options})

    def read_stream(
        self, path: str, dest: str | Path, offset: int = 0, *, overwrite: bool = True, **options: Unpack[JobOptions]
    ) -> Job:
        """Submit a job that writes the blob, from ``offset`` on, to a file as the **worker** sees it."""
        own = {"path": path, "dest": _url(dest), "offset": offset, "overwrite": overwrite}
        return self._submit("read_stream", {**own, **options})

    def move(
        self,
        source_path: str,
        dest_path: str,
        *,
        dest_storage: str | None = None,
        overwrite: bool = True,
        **options: Unpack[JobOptions],
    ) -> Job:
        """Submit a job that moves a blob, from ``storage`` to ``dest_storage`` if that is given."""
        own = {"source_path": source_path, "dest_path": dest_path, "dest_storage": dest_storage, "overwrite": overwrite}
        return self._submit("move", {**own, **options})

    def delete(self, path: str, **options: Unpack[JobOptions]) -> Job:
        """Submit a job that deletes the blob and everything under the path."""
        return self._submit("delete", {"path": path, **options})

    # --- looking at jobs -------------------------------------------------------------------------------------------

    def get(self, job_id: str) -> Job:
        """The job as it is now. Raises JobNotFoundError."""
        check_job_id(job_id)
        with reachable(), self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == job_id)).mappings().one_or_none()
        if row is None:
            raise JobNotFoundError(job_id)
        return Job.from_row(dict(row))

    def wait(self, job_id: str, timeout: float | None = None) -> Job:
        """The job once it is final, in whichever final state. Raises TimeoutError after ``timeout`` seconds."""
        for job in self.watch(job_id, timeout=timeout):
            if job.is_final:
                return job
        raise AssertionError("watch ends with a final job or raises")

    def watch(self, job_id: str, timeout: float | None = None) -> Iterator[Job]:
        """The job now, then after each change until it is final. Raises TimeoutError after ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        seen: Job | None = None
        while True:
            job = self.get(job_id)
            if job != seen:
                yield job
            if job.is_final:
                return
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"job {job_id} is still {job.state} after {timeout:g} s")
            seen = job
            time.sleep(POLL_INTERVAL)

    # --- reads -----------------------------------------------------------------------------------------------------

    def get_content(self, path: str, *, storage: str = "default", timeout: float = READ_TIMEOUT) -> bytes:
        """The whole blob, of at most 1 MiB. Larger ones are for ``read_stream``."""
        contents: bytes = self._ask("get_content", {"path": path, "storage": storage}, timeout)
        return contents

    def stat(self, path: str, *, storage: str = "default", timeout: float = READ_TIMEOUT) -> FileInfo:
        """What is at the path, a blob or else a directory. Raises PathNotFoundError."""
        return FileInfo.from_json(self._ask("stat", {"path": path, "storage": storage}, timeout))

    def list(self, path: str, *, storage: str = "default", timeout: float = READ_TIMEOUT) -> builtins.list[str]:
        """The absolute paths of what lies directly under the path."""
        children: builtins.list[str] = self._ask("list", {"path": path, "storage": storage}, timeout)
        return children

    def url_for(
        self,
        path: str,
        options: Mapping[str, Any] | None = None,
        *,
        storage: str = "default",
        timeout: float = READ_TIMEOUT,
    ) -> str:
        """A URL that needs no credentials. ``options``: ``method`` (GET, HEAD), ``expiry`` (an aware datetime)."""
        url: str = self._ask("url_for", {"path": path, "options": options, "storage": storage}, timeout)
        return url

    def _submit(self, operation: str, arguments: Mapping[str, Any]) -> Job:
        arguments = dict(arguments)
        session = arguments.pop("session", None)
        return Job.from_row(submit(self._engine, check_request(operation, arguments), session, self._publish))

    def _publish(self, row: Mapping[str, Any]) -> None:
        if (
            self._app is not None
            and row["publish_seq"] == 0
            and row["published_at"] is None
            and row["run_at"] is None
            and row["state"] == JobState.QUEUED
        ):
            messages.publish(self._app, messages.Message.from_row(row))

    def _ask(self, operation: str, arguments: Mapping[str, Any], timeout: float) -> Any:
        request = check_request(operation, arguments)
        if self._app is None or self._broker_url is None:
            raise ConfigurationError("broker_url", f"is not set, and {operation} is asked through the broker")
        if self._asker is None:  # twice at once does no harm
            self._asker = Asker(self._app, self._broker_url)
        return self._asker.ask(request, timeout)


def _url(file: str | Path) -> str:
    return file.absolute().as_uri() if isinstance(file, Path) else file
