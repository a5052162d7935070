"""Reads jobs from the database. It needs no broker and no worker, changes nothing, and is safe to repeat."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

from blobferry.checks.arguments import check_job_id
from blobferry.errors import InvalidRequestError, JobNotFoundError
from blobferry.jobs.delivery_log import find_deliveries
from blobferry.jobs.job_filter import JobFilter, check_limit
from blobferry.jobs.job_ids import JobId
from blobferry.jobs.job_queries import find_attempts, find_job, find_many, find_situation, find_uploads
from blobferry.jobs.job_search import find_jobs
from blobferry.jobs.job_watch import JobWatch, check_limits
from blobferry.jobs.shared_reading import SharedReading
from blobferry.redaction import short_repr
from blobferry.sql.database import reachable
from blobferry.values import Attempt, Delivery, Job, Situation, Upload


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
        self._sleep = sleep
        self.clock = clock
        self.shared = SharedReading(self.get_many, clock)

    def get(self, job_id: JobId) -> Job:
        """The job as it is now."""
        job_id = check_job_id(job_id)
        with self._connection() as connection:
            row = find_job(connection, job_id)
        if row is None:
            raise JobNotFoundError(job_id)
        return Job.from_row(row)

    def get_many(self, job_ids: Iterable[JobId]) -> dict[str, Job]:
        """Those of the jobs that exist, by id, in the order of the ids."""
        if isinstance(job_ids, str | bytes):
            raise InvalidRequestError(f"job ids: needs several ids, such as a list, got {short_repr(job_ids)}")
        asked = list(dict.fromkeys(check_job_id(job_id) for job_id in job_ids))
        with self._connection() as connection:
            found = find_many(connection, asked)
        return {job_id: found[job_id] for job_id in asked if job_id in found}

    def watch(
        self, job_id: JobId, timeout: float | None, *, patience: float, heartbeat: float | None = None
    ) -> Iterator[Job]:
        """The job now, then after each change until it is final, and after ``heartbeat`` seconds without a change."""
        limits = check_limits(timeout, patience, heartbeat)
        began = self.clock()
        job = self.get(job_id)  # not retried: an unknown job or an unreachable database is reported at once
        read_at = self.clock()
        yield job
        watch = JobWatch(job, limits, began=began, read_at=read_at, clock=self.clock)
        with self.shared.watched(job.id):
            while not watch.is_over:
                alone = watch.interval_alone()
                self._sleep(min(watch.due_in(), self.shared.due_in() if alone is None else alone))
                found = watch.look(self.shared.latest() if alone is None else self.shared.alone(job.id))
                if found is not None:
                    yield found

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

    def deliveries(self, job_id: JobId | None, *, failed: bool, limit: int) -> list[Delivery]:
        """The newest deliveries, the newest first, or those that failed; of one job if its id is given."""
        check_limit("limit", limit)
        if job_id is not None:
            job_id = self.get(job_id).id
        with self._connection() as connection:
            return find_deliveries(connection, job_id=job_id, failed=failed, limit=limit)

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
