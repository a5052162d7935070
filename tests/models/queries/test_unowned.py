"""Jobs that no run owns: crashes of their workers, and control requests that the caretaker applies."""

from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest

from blobferry.contract import JobState
from blobferry.errors import StoreUnavailableError
from models.queries import MAX_CRASH_STREAK, MAX_CRASHES
from tests.models.rows import RETENTION, Rows, ago

PAST, FUTURE = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


def test_a_dead_workers_job_is_queued_again_with_its_attempt_closed(rows: Rows) -> None:
    job_id = rows.submit()
    old = rows.claim(job_id, worker="host:9")
    rows.change(job_id, published_at=ago(0))
    rows.expire_lease(job_id)
    rows.requeue()
    row = rows.job_row(job_id)
    assert (row.state, row.worker, row.lease_expires_at, row.run_at) == ("retrying", None, None, None)
    assert row.published_at is None  # to be published at once
    assert row.token > old.token
    assert (row.crashes, row.crash_streak, row.failures, row.error_code) == (1, 1, 0, "worker_died")
    (attempt,) = rows.attempts(job_id)
    assert (attempt.outcome, attempt.error_code) == ("died", "worker_died")
    assert attempt.finished_at is not None
    assert "host:9" in str(attempt.error_message)
    assert rows.claim(job_id).attempt == 2


def test_a_live_lease_and_an_ended_job_are_left_alone(rows: Rows) -> None:
    running, queued = rows.claim(rows.submit()), rows.submit()
    rows.finish_job(rows.claim(rows.submit()), {})
    assert rows.requeue() == []
    assert [rows.job_row(job_id).state for job_id in (running.id, queued)] == ["running", "queued"]


def test_only_so_many_leases_are_settled_at_a_time_the_oldest_first(rows: Rows) -> None:
    jobs = {age: rows.claim(rows.submit()).id for age in (5, 40, 20, 10)}
    for age, job_id in jobs.items():
        rows.change(job_id, lease_expires_at=ago(age))
    assert rows.requeue(limit=2) == [jobs[40], jobs[20]]


def test_a_job_that_kills_its_worker_six_times_in_a_row_fails(rows: Rows) -> None:
    job_id = rows.submit()
    upload = rows.add_upload(job_id)
    for deaths in range(1, MAX_CRASH_STREAK + 1):
        rows.die(job_id)
        assert (rows.job_row(job_id).state, rows.job_row(job_id).crashes) == ("retrying", deaths)
    rows.die(job_id)
    row = rows.job_row(job_id)
    assert (row.state, row.error_code, row.crashes) == ("failed", "worker_died", 6)
    assert "6" in str(row.error_message)
    assert row.finished_at is not None
    assert rows.outcomes(job_id) == ["died"] * 6
    (kept,) = rows.uploads(job_id)
    assert (kept.id, kept.state) == (upload, "open")
    assert kept.recheck_at is not None, "kept for a retry"
    assert rows.try_claim(job_id) is None


def test_a_slice_that_ends_well_ends_the_streak_of_deaths_but_not_their_sum(rows: Rows) -> None:
    job_id = rows.submit()
    for _ in range(MAX_CRASH_STREAK):
        rows.die(job_id)
    rows.release_job(rows.claim(job_id), JobState.QUEUED)
    rows.die(job_id)
    row = rows.job_row(job_id)
    assert (row.state, row.crashes, row.crash_streak) == ("retrying", MAX_CRASH_STREAK + 1, 1)


def test_a_job_that_kills_its_21st_worker_fails_however_well_it_ran_in_between(rows: Rows) -> None:
    job_id = rows.submit()
    for _ in range(MAX_CRASHES):
        rows.die(job_id)
        rows.change(job_id, crash_streak=0)
        assert rows.job_row(job_id).state == "retrying"
    rows.die(job_id)
    assert (rows.job_row(job_id).state, rows.job_row(job_id).crashes) == ("failed", 21)


def test_a_claim_settles_a_death_by_itself_however_soon_the_message_comes(rows: Rows) -> None:
    job_id = rows.submit()
    rows.abandon(job_id)
    job = rows.claim(job_id)
    assert (job.attempt, job.crashes, job.token) == (2, 1, 3)
    assert rows.outcomes(job_id) == ["died", None]


def test_a_claim_does_not_touch_other_jobs_whose_workers_died(rows: Rows) -> None:
    dead, other = rows.submit(), rows.submit()
    rows.abandon(dead)
    rows.claim(other)
    assert rows.job_row(dead).crashes == 0


def apply_requests(rows: Rows) -> list[str]:
    return [job.id for job in rows.apply_requests(limit=100, paused_upload_seconds=RETENTION)]


@pytest.mark.parametrize("state", ["queued", "retrying", "paused"])
def test_an_unowned_job_that_is_cancelled_ends_with_its_upload_given_up(rows: Rows, state: str) -> None:
    job_id = rows.submit(state=state, cancel_requested=True, run_at=ago(-60), phase="uploading")
    upload = rows.add_upload(job_id)
    assert apply_requests(rows) == [job_id]
    row = rows.job_row(job_id)
    assert (row.state, row.phase, row.run_at, row.error_code) == ("cancelled", None, None, None)
    assert row.finished_at is not None
    assert [(found.id, found.state) for found in rows.uploads(job_id)] == [(upload, "aborting")]
    assert apply_requests(rows) == []


def test_an_unowned_job_past_its_deadline_fails_and_says_so(rows: Rows) -> None:
    job_id = rows.submit(deadline=PAST)
    assert apply_requests(rows) == [job_id]
    row = rows.job_row(job_id)
    assert (row.state, row.error_code) == ("failed", "deadline")
    assert "2020-01-01" in str(row.error_message)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"deadline": FUTURE},
        {"pause_requested": True, "state": "paused"},
        {"pause_requested": True, "phase": "completing", "state": "retrying"},
        {"cancel_requested": True, "state": "succeeded"},
        {"cancel_requested": True, "lease_expires_at": FUTURE, "state": "running"},
        {"cancel_requested": True, "phase": "completing", "state": "retrying"},
        {"cancel_requested": True, "phase": "verifying", "state": "verifying"},
        {"deadline": PAST, "phase": "completing", "state": "retrying"},
    ],
    ids=str,
)
def test_jobs_that_go_on_by_themselves_are_not_ended(rows: Rows, values: dict[str, Any]) -> None:
    rows.submit(**values)
    assert apply_requests(rows) == []


def test_a_job_that_is_ended_between_two_slices_ends_its_attempt_too(rows: Rows) -> None:
    """The attempt that its slices shared is over, and the history must not show it running for ever."""
    job = rows.claim(rows.submit())
    rows.release_job(job, JobState.QUEUED)
    rows.change(job.id, cancel_requested=True)
    apply_requests(rows)
    (attempt,) = rows.attempts(job.id)
    assert attempt.outcome == "cancelled"
    assert attempt.finished_at is not None


def test_a_job_that_is_ended_while_it_waits_for_a_retry_keeps_its_history(rows: Rows) -> None:
    job = rows.claim(rows.submit())
    rows.retry_job(job, StoreUnavailableError("down"), delay=60, failures=1, max_attempts=8)
    rows.change(job.id, cancel_requested=True)
    apply_requests(rows)
    assert rows.outcomes(job.id) == ["retrying"]


def test_every_unowned_job_is_either_published_or_ended(rows: Rows) -> None:
    """No combination of state, phase, control requests and deadline may leave a job that is never looked at again."""
    names = ("state", "phase", "cancel_requested", "deadline")
    made = {
        rows.submit(**dict(zip(names, values, strict=True))): values
        for values in product(
            ("queued", "retrying", "verifying"),
            (None, "uploading", "completing", "verifying"),
            (False, True),
            (None, PAST, FUTURE),
        )
    }
    ended, published = set(apply_requests(rows)), {job.id for job in rows.jobs_to_publish(limit=1000)}
    assert not ended & published
    assert [made[job_id] for job_id in made if job_id not in ended | published] == []
