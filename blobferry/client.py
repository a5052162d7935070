"""Client: how a web app asks. Submitting needs the database only; the broker makes it fast, not safe."""

import builtins
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self, Unpack

from celery import Celery
from sqlalchemy import Engine

from blobferry.contract import FINAL_STATES, JobState, check_request
from blobferry.errors import ConfigurationError
from blobferry.jobs import control
from blobferry.jobs.job_options import JobOptions, WriteOptions
from blobferry.jobs.job_reader import JobReader
from blobferry.jobs.submission import submit
from blobferry.messages import job_messages as messages
from blobferry.messages.read_messages import ReadRequester
from blobferry.sealing import Sealer
from blobferry.sql.database import open_engine
from blobferry.values import FileInfo, Job

READ_TIMEOUT: Final = 10.0  #: seconds


class Client(JobReader):
    """Submits jobs, looks at them, stops them and lets them go on, and reads.

    Thread-safe; may be made before a fork. It connects on first use.

    A submitted job is durable from the commit of its row. Submitting raises InvalidRequestError, with no row written,
    for an argument that cannot be used, and UnreachableError if the database is away. A read raises the worker's
    error, and UnreachableError if no worker answers.

    Args:
        database_url: where the jobs are; or pass the app's own ``engine``.
        broker_url: where to publish. Without it, or while it is away, the caretaker publishes within seconds.
        result_backend: where the worker puts the answers of reads; the broker unless given.
        encryption_keys: Fernet keys, those of the worker; the first seals a source URL that holds a user part or a
            query before its job's row is written. Needs ``blobferry[encryption]``. Without, it is written as it is.
    """

    def __init__(
        self,
        *,
        database_url: str | None = None,
        engine: Engine | None = None,
        broker_url: str | None = None,
        result_backend: str | None = None,
        encryption_keys: str | Sequence[str] = (),
    ) -> None:
        if (database_url is None) == (engine is None):
            raise ConfigurationError("database_url", "give either database_url or engine")
        self._owns_engine = engine is None
        super().__init__(engine if engine is not None else open_engine(str(database_url)))
        self._app: Celery | None = messages.client_app(broker_url) if broker_url else None
        self._asker = ReadRequester(self._app, result_backend) if self._app is not None and result_backend else None
        self._broker_url = broker_url
        self._sealer = Sealer(encryption_keys)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """A client from BLOBFERRY_DATABASE_URL, BLOBFERRY_BROKER_URL and, where they are set,
        BLOBFERRY_RESULT_BACKEND and BLOBFERRY_ENCRYPTION_KEYS (a JSON list, or keys with commas between).
        """
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
                encryption_keys=environ.get("BLOBFERRY_ENCRYPTION_KEYS", ""),
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

    # --- changing one's mind; looking at jobs is JobReader's ----------------------------------------------------------

    def cancel(self, job_id: str) -> Job:
        """Ask for the end of the job; what it has sent is removed from the store. Safe to repeat.

        A running job hears of it within one part. A job that has failed stays so and gives up the upload that it
        kept. Raises JobNotFoundError, and TooLateError for a job that has succeeded or whose outcome readers may see.
        """
        return self._nudged(control.cancel(self._engine, job_id))

    def pause(self, job_id: str) -> Job:
        """Ask the job to stop, within one part, and to keep its upload for the worker's retention. Safe to repeat.

        Raises JobNotFoundError, and TooLateError for a job that is final, is being cancelled, or whose outcome readers
        may see.
        """
        return self._nudged(control.pause(self._engine, job_id))

    def resume(self, job_id: str) -> Job:
        """Let a paused job go on where it was; any other stays as it is, so this is safe to repeat.

        Raises JobNotFoundError, and TooLateError for a job that is final or is being cancelled.
        """
        return self._nudged(control.resume(self._engine, job_id))

    def retry(self, job_id: str) -> Job:
        """Let a failed job go on, with the parts that are still kept, and all its tries before it once more.

        A job that goes on already stays as it is, so this is safe to repeat. Raises JobNotFoundError, and TooLateError
        for a job that has succeeded, was cancelled, or whose deadline is over: submit that anew.
        """
        return self._nudged(control.retry(self._engine, job_id))

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
        request = check_request(operation, arguments)
        return Job.from_row(submit(self._engine, request, session, self._publish, self._sealer))

    def _nudged(self, row: Mapping[str, Any]) -> Job:
        """The job; a message has a worker look at its row at once, unless a run does anyway or it is not yet to."""
        paused = row["state"] == JobState.PAUSED
        wished = row["cancel_requested"] or (row["pause_requested"] and not paused)
        due = not paused and (row["run_at"] is None or row["run_at"] <= row["seen_at"])
        idle = row["lease_expires_at"] is None and row["state"] not in FINAL_STATES
        if self._app is not None and idle and (wished or due):
            messages.publish(self._app, messages.Message.from_row(row))
        return Job.from_row(row)

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
            self._asker = ReadRequester(self._app, self._broker_url)
        return self._asker.ask(request, timeout)


def _url(file: str | Path) -> str:
    return file.absolute().as_uri() if isinstance(file, Path) else file
