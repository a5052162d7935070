"""Makes, changes and reads rows for tests: by the client's and the worker's own statements, or by plain SQL."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from typing import Any, TypeVar

from sqlalchemy import select, text, update

from blobferry.contract import check_request
from blobferry.jobs.submission import insert_job
from blobferry.sql.clock import db_now
from models import AttemptRow, ClaimedJob, Database, DeliveryRow, JobRow, PartRow, TombstoneRow, UploadRow, queries
from models.claimed_job import CLAIMED
from worker.jobs.lease import Lease, lease_clock
from worker.settings import LeaseSettings

LEASE = 30.0
RETENTION = 24 * 3600.0  #: seconds for which the uploads of failed and paused jobs are kept

Answer = TypeVar("Answer")

_numbers = count(1)


def submit(
    database: Database,
    *,
    operation: str = "write_stream",
    arguments: Mapping[str, Any] | None = None,
    **columns: Any,
) -> str:
    """Submit a job as a client does, of 30 bytes, with these columns of its row. Returns its id."""
    columns = {"size": 30} | columns
    usual = {"path": "/a", "source": "file:///srv/a"} if operation == "write_stream" else {}
    request = check_request(operation, {**usual, **(arguments or {})})
    job_id = str(columns.pop("job_id", f"job-{next(_numbers)}"))
    with database.begin() as session:
        insert_job(session.connection(), request, job_id=job_id, **columns)
    return job_id


def claim(database: Database, job_id: str, **how: Any) -> ClaimedJob:
    """The job, claimed."""
    job = try_claim(database, job_id, **how)
    assert job is not None, f"{job_id} cannot be claimed"
    return job


def try_claim(database: Database, job_id: str, **how: Any) -> ClaimedJob | None:
    """The job, or None if it cannot be claimed. ``how`` are arguments of queries.claim_job."""
    usual = {"worker": "host:1", "lease_seconds": LEASE, "failed_upload_seconds": RETENTION}
    return in_transaction(database, queries.claim_job, job_id, **usual | how)


def lease_of(database: Database, job: ClaimedJob) -> Lease:
    """The lease of the run that claimed the job, without a heartbeat."""
    return Lease(database, job, LeaseSettings(), taken_at=lease_clock())


def in_transaction(database: Database, query: Callable[..., Answer], *args: Any, **kwargs: Any) -> Answer:
    """The query's answer, in a transaction of its own."""
    with database.begin() as session:
        return query(session, *args, **kwargs)


def requeue(database: Database, *, limit: int = 10) -> list[str]:
    """The ids of the jobs that are re-queued because their leases have expired."""
    jobs = in_transaction(database, queries.requeue_expired, limit=limit, failed_upload_seconds=RETENTION)
    return [job.id for job in jobs]


def die(database: Database, job_id: str) -> None:
    """A worker claims the job and dies; the job is re-queued."""
    abandon(database, job_id)
    assert requeue(database) == [job_id]


def at_once(number: int, work: Callable[[int], object]) -> None:
    """Call ``work`` from that many threads, which begin together; return when all have ended."""
    barrier = threading.Barrier(number)

    def run(position: int) -> None:
        barrier.wait(10)
        work(position)

    with ThreadPoolExecutor(number) as threads:
        for ended in [threads.submit(run, position) for position in range(number)]:
            ended.result(timeout=60)


def job_row(database: Database, job_id: str) -> JobRow:
    with database.begin() as session:
        return session.scalars(select(JobRow).where(JobRow.id == job_id)).one()


def owned(database: Database, job_id: str) -> ClaimedJob:
    """The job as the run that owns it knows it."""
    with database.begin() as session:
        return ClaimedJob(**session.execute(select(*CLAIMED).where(JobRow.id == job_id)).one()._mapping)


def attempts(database: Database, job_id: str) -> list[AttemptRow]:
    with database.begin() as session:
        return list(session.scalars(select(AttemptRow).where(AttemptRow.job_id == job_id).order_by(AttemptRow.attempt)))


def outcomes(database: Database, job_id: str) -> list[str | None]:
    return [attempt.outcome for attempt in attempts(database, job_id)]


def uploads(database: Database, job_id: str) -> list[UploadRow]:
    with database.begin() as session:
        return list(session.scalars(select(UploadRow).where(UploadRow.job_id == job_id).order_by(UploadRow.id)))


def part_rows(database: Database, upload: int) -> list[PartRow]:
    with database.begin() as session:
        return list(queries.parts_of(session, upload))


def deliveries(database: Database, job_id: str) -> list[DeliveryRow]:
    with database.begin() as session:
        return list(session.scalars(select(DeliveryRow).where(DeliveryRow.job_id == job_id).order_by(DeliveryRow.id)))


def tombstones(database: Database) -> set[str]:
    with database.begin() as session:
        return set(session.scalars(select(TombstoneRow.id)))


def change(database: Database, job_id: str, **values: Any) -> None:
    """Set columns of the job's row directly."""
    with database.begin() as session:
        session.execute(update(JobRow).where(JobRow.id == job_id).values(**values))


def ago(seconds: float) -> Any:
    """The database's time that many seconds ago."""
    return db_now(-seconds)


def expire_lease(database: Database, job_id: str) -> None:
    """Let the lease of the run have expired a second ago."""
    change(database, job_id, lease_expires_at=ago(1))


def abandon(database: Database, job_id: str) -> None:
    """A worker claims the job and dies; its lease runs out."""
    claim(database, job_id)
    expire_lease(database, job_id)


def take_away(database: Database, job_id: str) -> None:
    """Expire the lease and re-queue the job in one transaction, so that the heartbeat cannot renew it in between."""
    with database.begin() as session:
        session.execute(update(JobRow).where(JobRow.id == job_id).values(lease_expires_at=ago(1)))
        queries.requeue_expired(session, limit=1, job_id=job_id, failed_upload_seconds=RETENTION)


def add_upload(database: Database, job_id: str, **columns: Any) -> int:
    upload = UploadRow(
        **{"job_id": job_id, "bucket": "memory", "key": "a", "size": 30, "part_size": 10, "state": "open"} | columns
    )
    with database.begin() as session:
        session.add(upload)
    return upload.id


def change_upload(database: Database, upload: int, **values: Any) -> None:
    with database.begin() as session:
        session.execute(update(UploadRow).where(UploadRow.id == upload).values(**values))


def count_rows(database: Database, table: str) -> int:
    with database.begin() as session:
        return int(session.scalar(text(f"SELECT count(*) FROM {table}")) or 0)


class Rows:
    """The functions above and models.queries, for one database: ``rows.claim(job_id)``, ``rows.finish_job(job, {})``.

    Each query is a transaction of its own.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def __getattr__(self, name: str) -> Any:
        if name in globals():
            return partial(globals()[name], self.database)
        return partial(in_transaction, self.database, getattr(queries, name))
