"""Pruning: which finished jobs are deleted, and what their tombstones keep."""

from typing import Any

import pytest
from sqlalchemy import update

from models import Database, TombstoneRow, queries
from tests.models.rows import (
    add_upload,
    ago,
    change,
    claim,
    count_rows,
    in_transaction,
    job_row,
    part_rows,
    submit,
    tombstones,
)
from worker.settings import RetentionSettings


def prune(database: Database, *, keep: float = 3600, tombstone: float = 7200, limit: int = 100) -> int:
    return in_transaction(database, queries.prune, job_seconds=keep, tombstone_seconds=tombstone, limit=limit)


def finished(database: Database, seconds_ago: float, state: str = "succeeded") -> str:
    job_id = submit(database)
    claim(database, job_id)
    change(database, job_id, state=state, lease_expires_at=None, finished_at=ago(seconds_ago))
    return job_id


def test_old_finished_jobs_go_with_all_their_rows_and_leave_a_tombstone(database: Database) -> None:
    old = [finished(database, 4000, state) for state in ("succeeded", "failed", "cancelled")]
    young, running = finished(database, 3000), submit(database)
    upload = add_upload(database, old[0], state="completed")
    in_transaction(database, queries.record_parts, upload, [{"part_number": 1, "offset": 0, "size": 1, "etag": '"1"'}])
    assert prune(database) == 3
    assert tombstones(database) == set(old)
    assert count_rows(database, "blobferry_jobs") == 2
    assert count_rows(database, "blobferry_attempts") == 1
    assert count_rows(database, "blobferry_uploads") == 0
    assert part_rows(database, upload) == []
    with database.begin() as session:
        assert queries.is_pruned(session, old[0])
        assert not queries.is_pruned(session, young)
        assert not queries.is_pruned(session, running)
    assert prune(database) == 0


DAY = 24 * 3600.0


@pytest.mark.parametrize("age", [31 * DAY, 90 * DAY], ids=["just over its retention", "of a worker that was away"])
def test_a_tombstone_lasts_its_time_from_the_pruning_on_however_old_the_job(database: Database, age: float) -> None:
    """Counted from the job's end, it would be gone with the next sweep, and a replayed message would run again."""
    job_id = finished(database, age)
    keep, kept = RetentionSettings().job_seconds, RetentionSettings().tombstone_seconds
    assert prune(database, keep=keep, tombstone=kept) == 1
    for pruned_ago in (0, 29 * DAY):
        change_tombstone(database, job_id, pruned_at=ago(pruned_ago))
        prune(database, keep=keep, tombstone=kept)
        assert tombstones(database) == {job_id}
    change_tombstone(database, job_id, pruned_at=ago(31 * DAY))
    prune(database, keep=keep, tombstone=kept)
    assert tombstones(database) == set()


def change_tombstone(database: Database, job_id: str, **values: Any) -> None:
    with database.begin() as session:
        session.execute(update(TombstoneRow).where(TombstoneRow.id == job_id).values(**values))


@pytest.mark.parametrize("state", ["opening", "open", "completing", "aborting"])
def test_a_job_whose_upload_may_still_be_in_the_store_is_kept(database: Database, state: str) -> None:
    """Its rows are the only trace of it."""
    job_id = finished(database, 4000)
    add_upload(database, job_id, state=state)
    assert prune(database) == 0
    assert job_row(database, job_id)


def test_a_job_whose_uploads_are_known_to_be_over_goes(database: Database) -> None:
    job_id = finished(database, 4000)
    add_upload(database, job_id, state="completed")
    add_upload(database, job_id, state="gone")
    assert prune(database) == 1


def test_pruning_takes_the_oldest_first_and_no_more_than_it_was_told(database: Database) -> None:
    jobs = {age: finished(database, age) for age in (5000, 7000, 6000)}
    assert prune(database, limit=2) == 2
    assert tombstones(database) == {jobs[7000], jobs[6000]}


def old(database: Database, job_id: str) -> None:
    change(database, job_id, state="succeeded", finished_at=ago(600))
