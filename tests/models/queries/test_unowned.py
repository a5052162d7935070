"""Jobs that no run owns: crashes of their workers, and control requests that the caretaker applies."""

from datetime import UTC, datetime
from typing import Any

import pytest

from blobferry.contract import JobState
from blobferry.errors import StoreUnavailableError
from models import Database, queries
from models.queries import MAX_CRASH_STREAK, MAX_CRASHES
from tests.models.rows import (
    RETENTION,
    add_upload,
    ago,
    attempts,
    change,
    claim,
    die,
    expire_lease,
    in_transaction,
    job_row,
    outcomes,
    requeue,
    submit,
    try_claim,
    uploads,
)


def test_a_dead_workers_job_is_queued_again_with_its_attempt_closed(database: Database) -> None:
    job_id = submit(database)
    old = claim(database, job_id, worker="host:9")
    change(database, job_id, published_at=ago(0))
    expire_lease(database, job_id)
    requeue(database)
    row = job_row(database, job_id)
    assert (row.state, row.worker, row.lease_expires_at, row.run_at) == ("retrying", None, None, None)
    assert row.published_at is None  # to be published at once
    assert row.token > old.token
    assert (row.crashes, row.crash_streak, row.failures) == (1, 1, 0)
    assert row.error_code == "worker_died"
    (attempt,) = attempts(database, job_id)
    assert (attempt.outcome, attempt.error_code) == ("died", "worker_died")
    assert attempt.finished_at is not None
    assert "host:9" in str(attempt.error_message)
    assert claim(database, job_id).attempt == 2


def test_a_live_lease_and_an_ended_job_are_left_alone(database: Database) -> None:
    running, queued, ended = (submit(database) for _ in range(3))
    claim(database, running)
    job = claim(database, ended)
    in_transaction(database, queries.finish_job, job, {})
    assert requeue(database) == []
    assert job_row(database, running).state == "running"
    assert job_row(database, queued).state == "queued"


def test_only_so_many_leases_are_settled_at_a_time_the_oldest_first(database: Database) -> None:
    jobs = [submit(database) for _ in range(4)]
    for age, job_id in zip((5, 40, 20, 10), jobs, strict=True):
        claim(database, job_id)
        change(database, job_id, lease_expires_at=ago(age))
    with database.begin() as session:
        assert [job.id for job in queries.requeue_expired(session, limit=2, failed_upload_seconds=RETENTION)] == [
            jobs[1],
            jobs[2],
        ]


def test_a_job_that_kills_its_worker_six_times_in_a_row_fails(database: Database) -> None:
    job_id = submit(database)
    upload = add_upload(database, job_id)
    for deaths in range(1, MAX_CRASH_STREAK + 1):
        die(database, job_id)
        assert (job_row(database, job_id).state, job_row(database, job_id).crashes) == ("retrying", deaths)
    die(database, job_id)
    row = job_row(database, job_id)
    assert (row.state, row.error_code, row.crashes) == ("failed", "worker_died", 6)
    assert "6" in str(row.error_message)
    assert row.finished_at is not None
    assert outcomes(database, job_id) == ["died"] * 6
    assert [(found.id, found.state) for found in uploads(database, job_id)] == [(upload, "open")]
    assert uploads(database, job_id)[0].recheck_at is not None, "kept for a retry"
    assert try_claim(database, job_id) is None


def test_a_slice_that_ends_well_ends_the_streak_of_deaths_but_not_their_sum(database: Database) -> None:
    job_id = submit(database)
    for _ in range(MAX_CRASH_STREAK):
        die(database, job_id)
    job = claim(database, job_id)
    in_transaction(database, queries.release_job, job, JobState.QUEUED)
    die(database, job_id)
    row = job_row(database, job_id)
    assert (row.state, row.crashes, row.crash_streak) == ("retrying", MAX_CRASH_STREAK + 1, 1)


def test_a_job_that_kills_its_21st_worker_fails_however_well_it_ran_in_between(database: Database) -> None:
    job_id = submit(database)
    for _ in range(MAX_CRASHES):
        die(database, job_id)
        change(database, job_id, crash_streak=0)
        assert job_row(database, job_id).state == "retrying"
    die(database, job_id)
    assert (job_row(database, job_id).state, job_row(database, job_id).crashes) == ("failed", 21)


def test_a_claim_settles_a_death_by_itself_however_soon_the_message_comes(database: Database) -> None:
    job_id = submit(database)
    claim(database, job_id)
    expire_lease(database, job_id)
    job = claim(database, job_id)
    assert (job.attempt, job.crashes, job.token) == (2, 1, 3)
    assert outcomes(database, job_id) == ["died", None]


def test_a_claim_does_not_touch_other_jobs_whose_workers_died(database: Database) -> None:
    dead, other = submit(database), submit(database)
    claim(database, dead)
    expire_lease(database, dead)
    claim(database, other)
    assert job_row(database, dead).crashes == 0


def publish(database: Database, limit: int = 100, turn: int = 0) -> list[str]:
    """Ids of what one sweep publishes, in order."""
    with database.begin() as session:
        return [job.id for job in queries.jobs_to_publish(session, limit=limit, turn=turn)]


def apply_requests(database: Database) -> list[str]:
    with database.begin() as session:
        return [job.id for job in queries.apply_requests(session, limit=100, paused_upload_seconds=RETENTION)]


@pytest.mark.parametrize("state", ["queued", "retrying", "paused"])
def test_an_unowned_job_that_is_cancelled_ends_with_its_upload_given_up(database: Database, state: str) -> None:
    job_id = submit(database)
    change(database, job_id, state=state, cancel_requested=True, run_at=ago(-60), phase="uploading")
    upload = add_upload(database, job_id)
    assert apply_requests(database) == [job_id]
    row = job_row(database, job_id)
    assert (row.state, row.phase, row.run_at, row.error_code) == ("cancelled", None, None, None)
    assert row.finished_at is not None
    assert [(found.id, found.state) for found in uploads(database, job_id)] == [(upload, "aborting")]
    assert apply_requests(database) == []


def test_an_unowned_job_past_its_deadline_fails_and_says_so(database: Database) -> None:
    job_id = submit(database)
    change(database, job_id, deadline=datetime(2020, 1, 1, tzinfo=UTC))
    assert apply_requests(database) == [job_id]
    row = job_row(database, job_id)
    assert (row.state, row.error_code) == ("failed", "deadline")
    assert "2020-01-01" in str(row.error_message)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"deadline": datetime(2100, 1, 1, tzinfo=UTC)},
        {"pause_requested": True, "state": "paused"},
        {"pause_requested": True, "phase": "completing", "state": "retrying"},
        {"cancel_requested": True, "state": "succeeded"},
        {"cancel_requested": True, "lease_expires_at": datetime(2100, 1, 1, tzinfo=UTC), "state": "running"},
        {"cancel_requested": True, "phase": "completing", "state": "retrying"},
        {"cancel_requested": True, "phase": "verifying", "state": "verifying"},
        {"deadline": datetime(2020, 1, 1, tzinfo=UTC), "phase": "completing", "state": "retrying"},
    ],
    ids=str,
)
def test_jobs_that_go_on_by_themselves_are_not_ended(database: Database, values: dict[str, Any]) -> None:
    job_id = submit(database)
    if values:
        change(database, job_id, **values)
    assert apply_requests(database) == []


def test_a_job_that_is_ended_between_two_slices_ends_its_attempt_too(database: Database) -> None:
    """The attempt that its slices shared is over, and the history must not show it running for ever."""
    job_id = submit(database)
    job = claim(database, job_id)
    in_transaction(database, queries.release_job, job, JobState.QUEUED)
    change(database, job_id, cancel_requested=True)
    apply_requests(database)
    (attempt,) = attempts(database, job_id)
    assert attempt.outcome == "cancelled"
    assert attempt.finished_at is not None


def test_a_job_that_is_ended_while_it_waits_for_a_retry_keeps_its_history(database: Database) -> None:
    job_id = submit(database)
    job = claim(database, job_id)
    in_transaction(
        database, queries.retry_job, job, StoreUnavailableError("down"), delay=60, failures=1, max_attempts=8
    )
    change(database, job_id, cancel_requested=True)
    apply_requests(database)
    assert outcomes(database, job_id) == ["retrying"]


def test_every_unowned_job_is_either_published_or_ended(database: Database) -> None:
    """No combination of state, phase, control requests and deadline may leave a job that is never looked at again."""
    past, future = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
    made: dict[str, tuple[Any, ...]] = {}
    for state in ("queued", "retrying", "verifying"):
        for phase in (None, "uploading", "completing", "verifying"):
            for cancel in (False, True):
                for deadline in (None, past, future):
                    job_id = submit(database)
                    change(database, job_id, state=state, phase=phase, cancel_requested=cancel, deadline=deadline)
                    made[job_id] = (state, phase, cancel, deadline)
    ended = set(apply_requests(database))
    published = set(publish(database, limit=1000))
    assert not ended & published
    assert [made[job_id] for job_id in made if job_id not in ended | published] == []
