"""Looking at jobs. A look needs the database only, changes nothing, and may be repeated at will."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Engine

from blobferry.checks.arguments import check_job_id
from blobferry.errors import JobNotFoundError, UnreachableError
from blobferry.jobs.filters import States, check_limit, check_wanted
from blobferry.jobs.job_queries import find_attempts, find_job, find_jobs, find_situation, find_uploads
from blobferry.sql.database import reachable
from blobferry.values import Attempt, Job, Situation, Upload

POLL_INTERVAL: Final = 0.2  #: seconds between two looks at the row in ``wait`` and ``watch``
AWAY_INTERVAL: Final = 1.0  #: seconds, while the database is away
PATIENCE: Final = 60.0  #: seconds that the database may be away while somebody waits for a job


class JobReader:
    """Looks at jobs through an engine. Every method raises UnreachableError if the database is away."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def get(self, job_id: str) -> Job:
        """The job as it is now. Raises JobNotFoundError."""
        check_job_id(job_id)
        with self._look() as connection:
            row = find_job(connection, job_id)
        if row is None:
            raise JobNotFoundError(job_id)
        return Job.from_row(row)

    def wait(self, job_id: str, timeout: float | None = None, *, patience: float = PATIENCE) -> Job:
        """The job once it is final, in whichever final state. Raises TimeoutError after ``timeout`` seconds.

        A database that goes away meanwhile is waited for, too, for ``patience`` seconds since it last answered; then
        it raises UnreachableError. The first look raises that at once.
        """
        for job in self.watch(job_id, timeout, patience=patience):
            if job.is_final:
                return job
        raise AssertionError("watch ends with a final job or raises")

    def watch(self, job_id: str, timeout: float | None = None, *, patience: float = PATIENCE) -> Iterator[Job]:
        """The job now, then after each change until it is final. Raises, and waits for the database, as ``wait``."""
        started = time.monotonic()
        seen = self.get(job_id)  # this look is not repeated: who cannot begin should know
        yield seen
        looked = time.monotonic()
        away: UnreachableError | None = None
        while not seen.is_final:
            if timeout is not None and time.monotonic() - started >= timeout:
                unknown = f", as far as is known: {away}" if away else ""
                raise TimeoutError(f"job {job_id} is still {seen.state} after {timeout:g} s{unknown}")
            time.sleep(AWAY_INTERVAL if away else POLL_INTERVAL)
            try:
                job = self.get(job_id)
            except UnreachableError as error:
                away = error
                if time.monotonic() - looked >= patience:
                    raise
                continue
            looked, away = time.monotonic(), None
            if job != seen:
                seen = job
                yield job

    def jobs(
        self,
        *,
        state: States | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        operation: str | None = None,
        storage: str | None = None,
        under: str | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int = 100,
    ) -> list[Job]:
        """The newest jobs that fit all that is given, the newest first.

        Args:
            state: one state, or several.
            since: submitted then or later: an aware datetime, or ISO 8601 with a zone.
            until: submitted before.
            operation: such as ``write_stream``.
            storage: the one that the job was submitted for.
            under: the job's path is this or lies below it.
            labels: the job has these; it may have others.
            limit: at most 10,000.

        Raises InvalidRequestError naming the argument that cannot be used.
        """
        wanted = check_wanted(
            state=state,
            since=since,
            until=until,
            operation=operation,
            storage=storage,
            under=under,
            labels=labels,
            limit=limit,
        )
        with self._look() as connection:
            return find_jobs(connection, wanted)

    def uploads(self, job_id: str | None = None, *, finished: bool = False, limit: int = 1000) -> list[Upload]:
        """The uploads that are not known to be finished or gone, the oldest first; with ``finished``, all.

        Of one job, if its id is given: that raises JobNotFoundError for an unknown one.
        """
        check_limit(limit)
        if job_id is not None:
            self.get(job_id)
        with self._look() as connection:
            return find_uploads(connection, job_id=job_id, finished=finished, limit=limit)

    def attempts(self, job_id: str) -> list[Attempt]:
        """The history of the job: each try with its worker, times, outcome and bytes, the oldest first."""
        self.get(job_id)
        with self._look() as connection:
            return find_attempts(connection, job_id)

    def situation(self, job_id: str) -> Situation:
        """The job and all that explains why it is where it is. Raises JobNotFoundError."""
        check_job_id(job_id)
        with self._look() as connection:
            found = find_situation(connection, job_id)
        if found is None:
            raise JobNotFoundError(job_id)
        return found

    @contextmanager
    def _look(self) -> Iterator[Connection]:
        # No transaction: on SQLite it would wait for whoever writes.
        with reachable(), self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            yield connection
