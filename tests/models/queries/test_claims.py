"""Claims and leases: who gets a job, what its owner may write, and what a heartbeat does."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from blobferry.contract import JobState
from blobferry.errors import InvalidPartError, LeaseLostError, StoreUnavailableError
from models import Database, JobRow, queries
from tests.models.rows import (
    LEASE,
    add_upload,
    ago,
    at_once,
    attempts,
    change,
    claim,
    expire_lease,
    in_transaction,
    job_row,
    outcomes,
    requeue,
    submit,
    try_claim,
    uploads,
)

PAST = datetime(2020, 1, 1, tzinfo=UTC)


FUTURE = datetime(2100, 1, 1, tzinfo=UTC)


def test_a_claim_gives_the_job_to_one_worker_with_a_lease(database: Database) -> None:
    job = claim(database, submit(database), worker="host:7")
    assert (job.state, job.token, job.attempt, job.worker) == (JobState.RUNNING, 1, 1, "host:7")
    assert job.lease_expires_at is not None
    assert job.started_at is not None
    assert abs((job.lease_expires_at - job.started_at).total_seconds() - LEASE) < 1
    (attempt,) = attempts(database, job.id)
    assert (attempt.attempt, attempt.worker, attempt.outcome, attempt.finished_at) == (1, "host:7", None, None)


def test_a_second_claimer_gets_nothing(database: Database) -> None:
    job = claim(database, submit(database))
    assert try_claim(database, job.id, worker="host:2") is None
    row = job_row(database, job.id)
    assert (row.token, row.attempt, row.worker) == (1, 1, "host:1")


def test_a_job_that_does_not_exist_cannot_be_claimed(database: Database) -> None:
    assert try_claim(database, "no-such-job") is None


def test_of_many_claimers_at_once_exactly_one_gets_the_job(database: Database) -> None:
    for _ in range(5):
        job_id = submit(database)
        got: list[JobRow | None] = []
        at_once(8, lambda number: got.append(try_claim(database, job_id, worker=f"host:{number}")))  # noqa: B023
        assert len(got) == 8
        (winner,) = (job for job in got if job is not None)
        row = job_row(database, job_id)
        assert (row.worker, row.token) == (winner.worker, 1)


def test_of_many_claimers_of_an_expired_lease_one_gets_the_job_and_counts_one_death(database: Database) -> None:
    job_id = submit(database)
    claim(database, job_id)
    expire_lease(database, job_id)
    got: list[JobRow | None] = []
    at_once(6, lambda number: got.append(try_claim(database, job_id)))
    assert len([job for job in got if job is not None]) == 1
    row = job_row(database, job_id)
    assert (row.crashes, row.attempt) == (1, 2)
    assert outcomes(database, job_id) == ["died", None]


def test_the_token_rises_with_every_change_of_owner(database: Database) -> None:
    job_id, tokens = submit(database), []
    for _ in range(3):
        job = claim(database, job_id)
        tokens.append(job.token)
        in_transaction(database, queries.release_job, job, JobState.QUEUED)
    assert tokens == sorted(set(tokens))


def test_slices_share_an_attempt_and_errors_do_not(database: Database) -> None:
    job_id = submit(database)
    job = claim(database, job_id, worker="host:1")
    in_transaction(database, queries.release_job, job, JobState.QUEUED)
    job = claim(database, job_id, worker="host:2")
    assert job.attempt == 1
    in_transaction(database, queries.retry_job, job, StoreUnavailableError("down"), delay=0, failures=1, max_attempts=8)
    assert claim(database, job_id).attempt == 2
    assert [(row.worker, row.outcome) for row in attempts(database, job_id)] == [
        ("host:2", "retrying"),
        ("host:1", None),
    ]


def test_a_stat_poll_is_no_new_attempt_and_stays_verifying(database: Database) -> None:
    job_id = submit(database)
    job = claim(database, job_id)
    in_transaction(database, queries.release_job, job, JobState.VERIFYING)
    job = claim(database, job_id)
    assert (job.state, job.attempt) == (JobState.VERIFYING, 1)


def test_an_old_message_claims_nothing(database: Database) -> None:
    job_id = submit(database)
    change(database, job_id, publish_seq=3)
    for stale in (0, 2, 4):
        assert try_claim(database, job_id, publish_seq=stale) is None
    assert claim(database, job_id, publish_seq=3).token == 1


def test_messages_that_were_sent_before_a_claim_are_old_after_it(database: Database) -> None:
    job_id = submit(database)
    job = claim(database, job_id, publish_seq=0)
    in_transaction(database, queries.release_job, job, JobState.QUEUED)
    assert try_claim(database, job_id, publish_seq=0) is None
    assert claim(database, job_id, publish_seq=1)


def test_a_claim_takes_the_job_out_of_the_published_ones(database: Database) -> None:
    job_id = submit(database, published_at=datetime.now(UTC))
    assert claim(database, job_id).published_at is None


def test_a_job_is_not_claimed_before_its_time(database: Database) -> None:
    job_id = submit(database)
    change(database, job_id, run_at=ago(-0.3))
    assert try_claim(database, job_id) is None
    change(database, job_id, run_at=ago(0.001))
    assert claim(database, job_id).run_at is None


def test_not_before_is_the_first_run_at(database: Database) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    job_id = submit(database, arguments={"not_before": soon})
    assert job_row(database, job_id).run_at == soon
    assert try_claim(database, job_id) is None


@pytest.mark.parametrize(
    ("values", "claimable"),
    [
        ({"state": "queued"}, True),
        ({"state": "retrying"}, True),
        ({"state": "verifying"}, True),
        ({"state": "running"}, False),
        ({"state": "paused"}, False),
        ({"state": "succeeded"}, False),
        ({"state": "failed"}, False),
        ({"state": "cancelled"}, False),
        ({"cancel_requested": True}, False),
        ({"pause_requested": True}, False),
        ({"cancel_requested": True, "phase": "uploading"}, False),
        ({"cancel_requested": True, "phase": "completing"}, True),  # past the point of no return
        ({"cancel_requested": True, "phase": "verifying", "state": "verifying"}, True),
        ({"deadline": PAST}, False),
        ({"deadline": FUTURE}, True),
        ({"deadline": PAST, "phase": "completing", "state": "retrying"}, True),  # a run has to look at the store
        ({"deadline": PAST, "phase": "verifying", "state": "verifying"}, True),
    ],
    ids=str,
)
def test_a_job_is_claimable_or_not(database: Database, values: dict[str, Any], claimable: bool) -> None:
    job_id = submit(database)
    change(database, job_id, **values)
    assert (try_claim(database, job_id) is not None) == claimable


OWNER_ONLY: dict[str, Callable[[Any, JobRow], Any]] = {
    "update_owned": lambda session, job: queries.update_owned(session, job.id, job.token, bytes_done=5),
    "release_job": lambda session, job: queries.release_job(session, job, JobState.QUEUED),
    "retry_job": lambda session, job: queries.retry_job(
        session, job, StoreUnavailableError("x"), delay=1, failures=1, max_attempts=8
    ),
    "finish_job": lambda session, job: queries.finish_job(session, job, {"size": 1}),
    "fail_job": lambda session, job: queries.fail_job(session, job, InvalidPartError("x")),
    "cancel_job": lambda session, job: queries.cancel_job(session, job),
    "poll_again": lambda session, job: queries.poll_again(session, job, 60),
    "begin_completing": lambda session, job: queries.begin_completing(session, job, base_etag=""),
}


@pytest.mark.parametrize("name", OWNER_ONLY)
def test_a_run_that_lost_its_lease_writes_nothing(database: Database, name: str) -> None:
    job_id = submit(database)
    old = claim(database, job_id)
    upload = add_upload(database, job_id)
    expire_lease(database, job_id)
    claim(database, job_id, worker="host:2")
    before, history = job_row(database, job_id).as_row(), outcomes(database, job_id)
    with pytest.raises(LeaseLostError, match=job_id), database.begin() as session:
        OWNER_ONLY[name](session, old)
    assert job_row(database, job_id).as_row() == before
    assert outcomes(database, job_id) == history
    assert [(row.id, row.state) for row in uploads(database, job_id)] == [(upload, "open")]


@pytest.mark.parametrize("name", OWNER_ONLY)
def test_an_owner_may_write_even_when_its_lease_is_late(database: Database, name: str) -> None:
    """The token decides, not the clock."""
    job = claim(database, submit(database))
    expire_lease(database, job.id)
    with database.begin() as session:
        OWNER_ONLY[name](session, job)


def test_an_update_of_the_owner_moves_updated_at(database: Database) -> None:
    job = claim(database, submit(database))
    change(database, job.id, updated_at=ago(60))
    in_transaction(database, queries.update_owned, job.id, job.token, bytes_done=5)
    row = job_row(database, job.id)
    assert row.bytes_done == 5
    assert datetime.now(UTC) - row.updated_at < timedelta(seconds=30)


def extend(database: Database, job: JobRow, seconds: float = LEASE) -> tuple[bool, bool, bool] | None:
    return in_transaction(database, queries.extend_lease, job.id, job.token, seconds)


def test_a_heartbeat_renews_the_lease_and_brings_back_cancel_and_pause(database: Database) -> None:
    job = claim(database, submit(database))
    assert job.lease_expires_at is not None
    assert extend(database, job, 90) == (False, False, False)
    renewed = job_row(database, job.id).lease_expires_at
    assert renewed is not None
    assert renewed - job.lease_expires_at > timedelta(seconds=50)
    change(database, job.id, cancel_requested=True)
    assert extend(database, job) == (True, False, False)
    change(database, job.id, cancel_requested=False, pause_requested=True)
    assert extend(database, job) == (False, True, False)


def test_a_late_heartbeat_works_as_long_as_no_other_run_has_the_job(database: Database) -> None:
    job = claim(database, submit(database))
    expire_lease(database, job.id)
    assert extend(database, job) == (False, False, False)
    assert requeue(database) == []


def test_a_heartbeat_after_the_job_was_taken_away_does_not_work(database: Database) -> None:
    job = claim(database, submit(database))
    expire_lease(database, job.id)
    requeue(database)
    assert extend(database, job) is None
    assert job_row(database, job.id).lease_expires_at is None


@pytest.mark.parametrize("name", ["release_job", "retry_job", "finish_job", "fail_job", "cancel_job"])
def test_a_heartbeat_that_comes_after_the_run_has_ended_brings_no_lease_back(database: Database, name: str) -> None:
    """The thread may be in the middle of one. A lease on an ended job would run out, and start the job again."""
    job = claim(database, submit(database))
    with database.begin() as session:
        OWNER_ONLY[name](session, job)
    extend(database, job)
    assert job_row(database, job.id).lease_expires_at is None
