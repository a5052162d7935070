"""A row that another transaction has locked keeps no sweep from the other rows."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from models import Database, JobRow, queries
from tests.models.rows import (
    RETENTION,
    ago,
    change,
    claim,
    expire_lease,
    job_row,
    submit,
    tombstones,
)


@contextmanager
def held(database: Database, job_id: str) -> Iterator[None]:
    """Another transaction, perhaps of a host that was cut off, has locked the row."""
    with database.begin() as session:
        session.execute(select(JobRow).where(JobRow.id == job_id).with_for_update())
        yield


def requeue(session: Session) -> object:
    return queries.requeue_expired(session, limit=10, failed_upload_seconds=RETENTION)


def apply_requests(session: Session) -> object:
    return queries.apply_requests(session, limit=10, paused_upload_seconds=RETENTION)


def publish_ten(session: Session) -> object:
    return queries.jobs_to_publish(session, limit=10)


def prune_ten(session: Session) -> object:
    return queries.prune(session, job_seconds=60, tombstone_seconds=3600, limit=10)


def dead(database: Database, job_id: str) -> None:
    claim(database, job_id)
    expire_lease(database, job_id)


def cancelled(database: Database, job_id: str) -> None:
    change(database, job_id, cancel_requested=True)


def old(database: Database, job_id: str) -> None:
    change(database, job_id, state="succeeded", finished_at=ago(600))


STEPS: dict[
    str, tuple[Callable[[Session], object], Callable[[Database, str], None], Callable[[Database, str], bool]]
] = {
    "leases": (requeue, dead, lambda database, job_id: job_row(database, job_id).state == "retrying"),
    "control requests": (
        apply_requests,
        cancelled,
        lambda database, job_id: job_row(database, job_id).state == "cancelled",
    ),
    "messages": (
        publish_ten,
        lambda *job: None,
        lambda database, job_id: job_row(database, job_id).published_at is not None,
    ),
    "pruning": (prune_ten, old, lambda database, job_id: job_id in tombstones(database)),
}


@pytest.mark.parametrize("what", STEPS)
def test_a_locked_row_keeps_no_sweep_from_the_other_rows(what: str, postgres_database: Database) -> None:
    step, prepare, is_done = STEPS[what]
    stuck, free = (submit(postgres_database, arguments={"path": path}) for path in ("/a", "/b"))
    for job_id in (stuck, free):
        prepare(postgres_database, job_id)

    def sweep() -> None:
        with postgres_database.begin() as session:
            step(session)

    with ThreadPoolExecutor(1) as caretaker:
        with held(postgres_database, stuck):
            caretaker.submit(sweep).result(timeout=20)
            assert is_done(postgres_database, free)
        assert not is_done(postgres_database, stuck)
        caretaker.submit(sweep).result(timeout=20)
        assert is_done(postgres_database, stuck)
