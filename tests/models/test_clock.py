"""Times: the database's clock, and aware UTC values, alike on SQLite and on PostgreSQL."""

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import select
from sqlalchemy.exc import StatementError

from blobferry.sql.clock import db_now
from models import Database, JobRow
from tests.models.rows import change, claim, job_row, submit

TOLERANCE = timedelta(milliseconds=50)


def test_the_databases_clock_is_aware_and_utc(database: Database) -> None:
    with database.begin() as session:
        now = session.scalar(select(db_now()))
    assert now is not None
    assert now.utcoffset() == timedelta(0)
    assert abs(now - datetime.now(UTC)) < timedelta(seconds=2)


@pytest.mark.parametrize("seconds", [0.5, -0.5, 30, -30, 86_400 * 30, 0.001, 1e-07, 1e8])
def test_the_clock_takes_an_offset_in_seconds(database: Database, seconds: float) -> None:
    with database.begin() as session:
        now, then = session.execute(select(db_now(), db_now(seconds))).one()
    assert abs(then - now - timedelta(seconds=seconds)) < TOLERANCE


def test_the_clock_moves_on_within_a_transaction(database: Database) -> None:
    """A lease that is taken late in a long transaction must not be old already."""
    with database.begin() as session:
        first = session.scalar(select(db_now()))
        time.sleep(0.02)
        second = session.scalar(select(db_now()))
    assert first is not None
    assert second is not None
    assert second - first >= timedelta(milliseconds=15)


def test_stored_times_compare_with_the_clock_and_with_bound_values(database: Database) -> None:
    job_id = submit(database)
    change(database, job_id, run_at=db_now(0.5))
    row = job_row(database, job_id)
    assert row.run_at is not None
    with database.begin() as session:
        for moment in (db_now(), datetime.now(UTC), row.run_at - timedelta(microseconds=1)):
            assert session.scalar(select(JobRow.id).where(JobRow.run_at > moment)) == job_id
        for moment in (db_now(1), datetime.now(UTC) + timedelta(seconds=1), row.run_at + timedelta(microseconds=1)):
            assert session.scalar(select(JobRow.id).where(JobRow.run_at < moment)) == job_id
        assert session.scalar(select(JobRow.id).where(JobRow.run_at == row.run_at)) == job_id


def test_a_time_of_any_zone_comes_back_as_the_same_moment_in_utc(database: Database) -> None:
    moment = datetime(2026, 3, 29, 2, 30, 0, 123456, tzinfo=timezone(timedelta(hours=5, minutes=45)))
    job_id = submit(database)
    change(database, job_id, deadline=moment)
    found = job_row(database, job_id).deadline
    assert found == moment
    assert found is not None
    assert found.utcoffset() == timedelta(0)


def test_a_naive_time_is_refused(database: Database) -> None:
    job_id = submit(database)
    with pytest.raises(StatementError, match="a time needs a zone"):
        change(database, job_id, deadline=datetime(2026, 1, 1))  # noqa: DTZ001  the point of the test


def test_server_defaults_give_aware_times(database: Database) -> None:
    row = job_row(database, submit(database))
    assert row.created_at.utcoffset() == timedelta(0)
    assert abs(row.created_at - datetime.now(UTC)) < timedelta(seconds=5)


def test_times_are_the_databases_and_not_this_machines(database: Database) -> None:
    """Both are this machine's here, so a claim's times lie within the call."""
    before = datetime.now(UTC) - timedelta(milliseconds=5)
    job = job_row(database, claim(database, submit(database)).id)
    assert job.started_at is not None
    assert before <= job.started_at <= datetime.now(UTC) + timedelta(milliseconds=5)
