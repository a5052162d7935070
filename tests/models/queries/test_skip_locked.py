"""A row that another transaction has locked keeps no sweep from the other rows."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from sqlalchemy import select

from models import Database, JobRow
from tests.models.rows import RETENTION, Rows, ago


@contextmanager
def held(database: Database, job_id: str) -> Iterator[None]:
    """Another transaction, perhaps of a host that was cut off, has locked the row."""
    with database.begin() as session:
        session.execute(select(JobRow).where(JobRow.id == job_id).with_for_update())
        yield


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a sweep: what makes it a job's turn, and how the row tells that it has been taken."""

    sweep: Callable[[Rows], object]
    prepare: Callable[[Rows, str], object]
    is_done: Callable[[Rows, str], bool]


STEPS = {
    "leases": Step(
        lambda rows: rows.requeue(),
        lambda rows, job_id: rows.abandon(job_id),
        lambda rows, job_id: rows.job_row(job_id).state == "retrying",
    ),
    "control requests": Step(
        lambda rows: rows.apply_requests(limit=10, paused_upload_seconds=RETENTION),
        lambda rows, job_id: rows.change(job_id, cancel_requested=True),
        lambda rows, job_id: rows.job_row(job_id).state == "cancelled",
    ),
    "messages": Step(
        lambda rows: rows.jobs_to_publish(limit=10),
        lambda *job: None,
        lambda rows, job_id: rows.job_row(job_id).published_at is not None,
    ),
    "pruning": Step(
        lambda rows: rows.prune(job_seconds=60, tombstone_seconds=3600, limit=10),
        lambda rows, job_id: rows.change(job_id, state="succeeded", finished_at=ago(600)),
        lambda rows, job_id: job_id in rows.tombstones(),
    ),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_locked_row_keeps_no_sweep_from_the_other_rows(step: Step, postgres_database: Database) -> None:
    rows = Rows(postgres_database)
    stuck, free = (rows.submit(arguments={"path": path}) for path in ("/a", "/b"))
    for job_id in (stuck, free):
        step.prepare(rows, job_id)
    with ThreadPoolExecutor(1) as caretaker:
        with held(postgres_database, stuck):
            caretaker.submit(step.sweep, rows).result(timeout=20)
            assert step.is_done(rows, free)
        assert not step.is_done(rows, stuck)
        caretaker.submit(step.sweep, rows).result(timeout=20)
        assert step.is_done(rows, stuck)
