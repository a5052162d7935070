"""Client: how a web app asks. Submitting needs the database only; the broker makes it fast, not safe."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

from celery import Celery
from sqlalchemy import Connection, Engine, select
from sqlalchemy.orm import Session, scoped_session

from blobferry import messages, submission
from blobferry.checks import check_job_id
from blobferry.contract import JobState, check_request
from blobferry.database import open_engine, reachable
from blobferry.errors import ConfigurationError, InvalidRequestError, JobNotFoundError
from blobferry.tables import jobs
from blobferry.values import Job

#: What a job may be submitted in: the app's own transaction.
Transaction = Session | scoped_session[Session] | Connection

POLL_INTERVAL: Final = 0.2  #: seconds between two looks at the row in ``wait`` and ``watch``


class Client:
    """Submits jobs and looks at them. Thread-safe; may be made before a fork. The constructor opens no connection.

    Args:
        database_url: where the jobs are; or pass the app's own ``engine``.
        broker_url: where to publish. Without it, or while it is away, the caretaker publishes within seconds.
    """

    def __init__(
        self, *, database_url: str | None = None, engine: Engine | None = None, broker_url: str | None = None
    ) -> None:
        if (database_url is None) == (engine is None):
            raise ConfigurationError("database_url", "give either database_url or engine")
        self._owns_engine = engine is None
        self._engine = engine if engine is not None else open_engine(str(database_url))
        self._app: Celery | None = messages.client_app(broker_url) if broker_url else None

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """A client from BLOBFERRY_DATABASE_URL and BLOBFERRY_BROKER_URL."""
        url = environ.get("BLOBFERRY_DATABASE_URL")
        if not url:
            raise ConfigurationError(
                "BLOBFERRY_DATABASE_URL", "is not set: the URL of the database that holds the jobs"
            )
        try:
            return cls(database_url=url, broker_url=environ.get("BLOBFERRY_BROKER_URL") or None)
        except ConfigurationError as error:
            raise ConfigurationError(f"BLOBFERRY_{error.name.upper()}", error.problem) from None

    def close(self) -> None:
        """Close the connections that this client opened, not the app's own engine. It may be used again afterwards."""
        if self._owns_engine:
            self._engine.dispose()
        if self._app is not None:
            self._app.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write_stream(
        self,
        path: str,
        source: str | Path,
        *,
        storage: str = "default",
        overwrite: bool = True,
        metadata: Mapping[str, str] | None = None,
        content_type: str | None = None,
        priority: int = 0,
        not_before: datetime | None = None,
        deadline: datetime | None = None,
        labels: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        session: Transaction | None = None,
    ) -> Job:
        """Submit a job that writes the source, a URL as the **worker** sees it, to the path of the storage.

        With ``session``, the row joins the caller's transaction. With ``idempotency_key``, submitting the same request
        again returns the first job, and another request raises ConflictError. Raises InvalidRequestError with no row
        written, UnreachableError if the database is away.
        """
        arguments = {
            "path": path,
            "source": source.absolute().as_uri() if isinstance(source, Path) else source,
            "storage": storage,
            "overwrite": overwrite,
            "metadata": metadata,
            "content_type": content_type,
            "priority": priority,
            "not_before": not_before,
            "deadline": deadline,
            "labels": labels,
            "idempotency_key": idempotency_key,
        }
        return self._submit("write_stream", arguments, session)

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

    def _submit(self, operation: str, arguments: Mapping[str, Any], session: Transaction | None) -> Job:
        request = check_request(operation, arguments)
        if isinstance(session, scoped_session):
            session = session()
        if session is None:
            with reachable(), self._engine.begin() as connection:
                row = submission.insert_job(connection, request)
            self._publisher(row)()
        elif isinstance(session, Session):
            connection = session.connection()
            row = submission.insert_job(connection, request)
            submission.after_commit(session, connection, self._publisher(row))
        elif isinstance(session, Connection):  # it tells nobody of its commit: the caretaker publishes
            row = submission.insert_job(session, request)
        else:
            raise InvalidRequestError(f"session: needs a Session or a Connection, got {type(session).__name__}")
        return Job.from_row(row)

    def _publisher(self, row: Mapping[str, Any]) -> Callable[[], None]:
        def publish() -> None:
            if (
                self._app is not None
                and row["publish_seq"] == 0
                and row["published_at"] is None
                and row["run_at"] is None
                and row["state"] == JobState.QUEUED
            ):
                messages.publish(self._app, messages.Message.from_row(row))

        return publish
