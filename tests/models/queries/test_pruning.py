"""Pruning: which finished jobs are deleted, and what their tombstones keep."""

from typing import Any

import pytest
from sqlalchemy import update

from models import TombstoneRow
from models.queries.pruning import PARTS_AT_ONCE
from tests.models.rows import Rows, ago
from worker.settings import RetentionSettings


def prune(rows: Rows, *, keep: float = 3600, tombstone: float = 7200, limit: int = 100) -> Any:
    return rows.prune(job_seconds=keep, tombstone_seconds=tombstone, limit=limit)


def finished(rows: Rows, seconds_ago: float, state: str = "succeeded") -> Any:
    job_id = rows.submit()
    rows.claim(job_id)
    rows.change(job_id, state=state, lease_expires_at=None, finished_at=ago(seconds_ago))
    return job_id


def test_old_finished_jobs_go_with_all_their_rows_and_leave_a_tombstone(rows: Rows) -> None:
    old = [finished(rows, 4000, state) for state in ("succeeded", "failed", "cancelled")]
    young, running = finished(rows, 3000), rows.submit()
    upload = rows.add_upload(old[0], state="completed")
    rows.record_parts(upload, [{"part_number": 1, "offset": 0, "size": 1, "etag": '"1"'}])
    assert prune(rows) == 3
    assert rows.tombstones() == set(old)
    assert [rows.count_rows(f"blobferry_{table}") for table in ("jobs", "attempts", "uploads")] == [2, 1, 0]
    assert rows.part_rows(upload) == []
    assert [rows.is_pruned(job_id) for job_id in (old[0], young, running)] == [True, False, False]
    assert prune(rows) == 0


DAY = 24 * 3600.0


@pytest.mark.parametrize("age", [31 * DAY, 90 * DAY], ids=["just over its retention", "of a worker that was away"])
def test_a_tombstone_lasts_its_time_from_the_pruning_on_however_old_the_job(rows: Rows, age: float) -> None:
    """Counted from the job's end, it would be gone with the next sweep, and a replayed message would run again."""
    job_id = finished(rows, age)
    keep, kept = RetentionSettings().job_seconds, RetentionSettings().tombstone_seconds
    assert prune(rows, keep=keep, tombstone=kept) == 1
    for pruned_ago in (0, 29 * DAY):
        change_tombstone(rows, job_id, pruned_at=ago(pruned_ago))
        prune(rows, keep=keep, tombstone=kept)
        assert rows.tombstones() == {job_id}
    change_tombstone(rows, job_id, pruned_at=ago(31 * DAY))
    prune(rows, keep=keep, tombstone=kept)
    assert rows.tombstones() == set()


def change_tombstone(rows: Rows, job_id: str, **values: Any) -> None:
    with rows.database.begin() as session:
        session.execute(update(TombstoneRow).where(TombstoneRow.id == job_id).values(**values))


@pytest.mark.parametrize("state", ["opening", "open", "completing", "aborting"])
def test_a_job_whose_upload_may_still_be_in_the_store_is_kept(rows: Rows, state: str) -> None:
    """Its rows are the only trace of it."""
    job_id = finished(rows, 4000)
    rows.add_upload(job_id, state=state)
    assert prune(rows) == 0
    assert rows.job_row(job_id)


def test_a_job_whose_uploads_are_known_to_be_over_goes(rows: Rows) -> None:
    job_id = finished(rows, 4000)
    rows.add_upload(job_id, state="completed")
    rows.add_upload(job_id, state="gone")
    assert prune(rows) == 1


def test_pruning_takes_the_oldest_first_and_no_more_than_it_was_told(rows: Rows) -> None:
    jobs = {age: finished(rows, age) for age in (5000, 7000, 6000)}
    assert prune(rows, limit=2) == 2
    assert rows.tombstones() == {jobs[7000], jobs[6000]}


def test_a_job_of_many_parts_is_deleted_over_several_calls(rows: Rows) -> None:
    job_id = finished(rows, 4000)
    upload = rows.add_upload(job_id, state="completed")
    number = PARTS_AT_ONCE + 3
    rows.record_parts(upload, [{"part_number": n, "offset": n, "size": 1, "etag": ""} for n in range(1, number + 1)])
    assert prune(rows) == 0
    assert [part.part_number for part in rows.part_rows(upload)] == [number - 2, number - 1, number]
    assert prune(rows) == 1
    assert rows.part_rows(upload) == []
