"""Reads jobs from the database. It needs no broker and no worker, changes nothing, and is safe to repeat."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection, Engine

from blobferry.checks.arguments import check_job_id
from blobferry.errors import JobNotFoundError, UnreachableError
from blobferry.jobs.job_filter import JobFilter, check_limit
from blobferry.jobs.job_ids import JobId
from blobferry.jobs.job_queries import find_attempts, find_job, find_jobs, find_situation, find_uploads
from blobferry.sql.database import reachable
from blobferry.values import Attempt, Job, Situation, Upload

SHORTEST_INTERVAL: Final = 0.01  #: seconds between two reads of the row
LONGEST_INTERVAL: Final = 0.2
AWAY_INTERVAL: Final = 1.0  #: seconds between two tries while the database is away


class JobReader:
    """Reads jobs through an engine; the methods of ``Client`` with these names say what each returns.

    Every method raises UnreachableError if the database is away, and JobNotFoundError for the id of no job.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._sleep = sleep

    def get(self, job_id: JobId) -> Job:
        """The job as it is now."""
        job_id = check_job_id(job_id)
        with self._connection() as connection:
            row = find_job(connection, job_id)
        if row is None:
            raise JobNotFoundError(job_id)
        return Job.from_row(row)

    def watch(self, job_id: JobId, timeout: float | None, *, patience: float) -> Iterator[Job]:
        """The job now, then after each change until it is final."""
        started = self._clock()
        seen = self.get(job_id)  # not retried: an unknown job or an unreachable database is reported at once
        yield seen
        answered = self._clock()
        away: UnreachableError | None = None
        while not seen.is_final:
            if timeout is not None and self._clock() - started >= timeout:
                last = f", or was when the database last answered ({away})" if away else ""
                raise TimeoutError(f"job {job_id} is still {seen.state} after {timeout:g} s{last}")
            self._sleep(AWAY_INTERVAL if away else _interval(self._clock() - started))
            try:
                job = self.get(job_id)
            except UnreachableError as error:
                away = error
                if self._clock() - answered >= patience:
                    raise
                continue
            answered, away = self._clock(), None
            if job != seen:
                seen = job
                yield job

    def jobs(self, wanted: JobFilter) -> list[Job]:
        """The newest jobs that match, the newest first."""
        with self._connection() as connection:
            return find_jobs(connection, wanted)

    def uploads(self, job_id: JobId | None, *, finished: bool, limit: int) -> list[Upload]:
        """The unfinished uploads, or all, the oldest first; of one job if its id is given."""
        check_limit("limit", limit)
        if job_id is not None:
            job_id = self.get(job_id).id
        with self._connection() as connection:
            return find_uploads(connection, job_id=job_id, finished=finished, limit=limit)

    def attempts(self, job_id: JobId) -> list[Attempt]:
        """The attempts of the job, the oldest first."""
        job_id = self.get(job_id).id
        with self._connection() as connection:
            return find_attempts(connection, job_id)

    def situation(self, job_id: JobId) -> Situation:
        """The job with everything that explains its state."""
        job_id = check_job_id(job_id)
        with self._connection() as connection:
            found = find_situation(connection, job_id)
        if found is None:
            raise JobNotFoundError(job_id)
        return found

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        # AUTOCOMMIT: on SQLite a transaction would begin with BEGIN IMMEDIATE and wait for the writer.
        with reachable(), self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            yield connection


def _interval(waited: float) -> float:
    """Seconds to the next read of a job that has been watched for ``waited`` seconds.

    In proportion, so that a small job is seen soon after its end, and a long one does not read its row all the time.
    """
    return min(LONGEST_INTERVAL, max(SHORTEST_INTERVAL, waited / 5))
