"""Claims and leases: who gets a job, what its owner may write, and what a heartbeat does."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from blobferry.contract import JobState, Phase
from blobferry.errors import InvalidPartError, LeaseLostError, StoreUnavailableError
from models import ClaimedJob
from tests.models.rows import LEASE, Rows, ago, at_once

PAST = datetime(2020, 1, 1, tzinfo=UTC)
FUTURE = datetime(2100, 1, 1, tzinfo=UTC)


def test_a_claim_gives_the_job_to_one_worker_with_a_lease(rows: Rows) -> None:
    job = rows.claim(rows.submit(), worker="host:7")
    assert (job.state, job.token, job.attempt, job.worker) == (JobState.RUNNING, 1, 1, "host:7")
    row = rows.job_row(job.id)
    assert abs((row.lease_expires_at - row.started_at).total_seconds() - LEASE) < 1
    (attempt,) = rows.attempts(job.id)
    assert (attempt.attempt, attempt.worker, attempt.outcome, attempt.finished_at) == (1, "host:7", None, None)


def test_a_job_that_does_not_exist_cannot_be_claimed(rows: Rows) -> None:
    assert rows.try_claim("no-such-job") is None


@pytest.mark.parametrize("expired", [False, True], ids=["a fresh job", "a dead worker's job"])
def test_of_many_claimers_at_once_exactly_one_gets_the_job(rows: Rows, expired: bool) -> None:
    for _ in range(5):
        job_id, got = rows.submit(), list[ClaimedJob | None]()
        if expired:
            rows.abandon(job_id)
        at_once(8, lambda number: got.append(rows.try_claim(job_id, worker=f"host:{number}")))  # noqa: B023
        assert len(got) == 8
        (winner,) = (job for job in got if job is not None)
        row = rows.job_row(job_id)
        assert (row.worker, row.token, row.attempt) == (winner.worker, 3 if expired else 1, 1 + expired)
        assert row.crashes == expired, "one death is counted once"
        assert rows.outcomes(job_id) == ["died"] * expired + [None]


def test_the_token_rises_with_every_change_of_owner(rows: Rows) -> None:
    job_id, tokens = rows.submit(), []
    for _ in range(3):
        job = rows.claim(job_id)
        tokens.append(job.token)
        rows.release_job(job, JobState.QUEUED)
    assert tokens == sorted(set(tokens))


def test_slices_and_looks_share_an_attempt_and_errors_do_not(rows: Rows) -> None:
    job_id = rows.submit()
    rows.release_job(rows.claim(job_id, worker="host:1"), JobState.QUEUED)
    rows.release_job(rows.claim(job_id, worker="host:1"), JobState.VERIFYING)
    job = rows.claim(job_id, worker="host:2")
    assert (job.state, job.attempt) == (JobState.VERIFYING, 1)
    rows.retry_job(job, StoreUnavailableError("down"), delay=0, failures=1, max_attempts=8)
    assert rows.claim(job_id).attempt == 2
    history = [(row.worker, row.outcome) for row in rows.attempts(job_id)]
    assert history == [("host:2", "retrying"), ("host:1", None)]


def test_an_old_message_claims_nothing(rows: Rows) -> None:
    job_id = rows.submit(publish_seq=3)
    for stale in (0, 2, 4):
        assert rows.try_claim(job_id, publish_seq=stale) is None
    job = rows.claim(job_id, publish_seq=3)
    assert job.token == 1
    rows.release_job(job, JobState.QUEUED)
    assert rows.try_claim(job_id, publish_seq=3) is None, "it was sent before the claim"
    assert rows.claim(job_id, publish_seq=4)


def test_a_claim_takes_the_job_out_of_the_published_ones(rows: Rows) -> None:
    assert rows.job_row(rows.claim(rows.submit(published_at=datetime.now(UTC))).id).published_at is None


def test_a_job_is_not_claimed_before_its_time(rows: Rows) -> None:
    job_id = rows.submit(run_at=ago(-60))
    assert rows.try_claim(job_id) is None
    rows.change(job_id, run_at=ago(0.001))
    assert rows.job_row(rows.claim(job_id).id).run_at is None


def test_not_before_is_the_first_run_at(rows: Rows) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    job_id = rows.submit(arguments={"not_before": soon})
    assert rows.job_row(job_id).run_at == soon
    assert rows.try_claim(job_id) is None


@pytest.mark.parametrize(
    ("values", "claimable"),
    [
        ({"state": "queued"}, True),
        ({"state": "retrying"}, True),
        ({"state": "verifying"}, True),
        ({"state": "queued", "run_at": PAST}, True),
        ({"state": "retrying", "run_at": PAST}, True),
        ({"state": "verifying", "run_at": PAST}, True),
        ({"state": "retrying", "run_at": FUTURE}, False),
        ({"state": "running"}, False),
        ({"state": "running", "lease_expires_at": FUTURE}, False),
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
def test_a_job_is_claimable_and_published_or_neither(rows: Rows, values: dict[str, Any], claimable: bool) -> None:
    job_id = rows.submit(**values)
    assert [job.id for job in rows.jobs_to_publish(limit=10)] == [job_id] * claimable
    assert (rows.try_claim(job_id) is not None) == claimable


OWNER_ONLY: dict[str, Callable[[Rows, ClaimedJob], Any]] = {
    "update_owned": lambda rows, job: rows.update_owned(job.id, job.token, bytes_done=5),
    "release_job": lambda rows, job: rows.release_job(job, JobState.QUEUED),
    "retry_job": lambda rows, job: rows.retry_job(job, StoreUnavailableError("x"), delay=1, failures=1, max_attempts=8),
    "finish_job": lambda rows, job: rows.finish_job(job, {"size": 1}),
    "fail_job": lambda rows, job: rows.fail_job(job, InvalidPartError("x")),
    "cancel_job": lambda rows, job: rows.cancel_job(job),
    "poll_again": lambda rows, job: rows.poll_again(job, 60),
    "pass_point_of_no_return": lambda rows, job: rows.pass_point_of_no_return(job, phase=Phase.COMPLETING),
}


@pytest.mark.parametrize("name", OWNER_ONLY)
def test_a_run_that_lost_its_lease_writes_nothing(rows: Rows, name: str) -> None:
    old = rows.claim(rows.submit())
    upload = rows.add_upload(old.id)
    rows.expire_lease(old.id)
    rows.claim(old.id, worker="host:2")
    before, history = rows.job_row(old.id).as_row(), rows.outcomes(old.id)
    with pytest.raises(LeaseLostError, match=old.id):
        OWNER_ONLY[name](rows, old)
    assert (rows.job_row(old.id).as_row(), rows.outcomes(old.id)) == (before, history)
    assert [(row.id, row.state) for row in rows.uploads(old.id)] == [(upload, "open")]


@pytest.mark.parametrize("name", OWNER_ONLY)
def test_an_owner_may_write_even_when_its_lease_is_late(rows: Rows, name: str) -> None:
    """The token decides, not the clock."""
    job = rows.claim(rows.submit())
    rows.expire_lease(job.id)
    OWNER_ONLY[name](rows, job)


def test_an_update_of_the_owner_moves_updated_at(rows: Rows) -> None:
    job = rows.claim(rows.submit())
    rows.change(job.id, updated_at=ago(60))
    rows.update_owned(job.id, job.token, bytes_done=5)
    row = rows.job_row(job.id)
    assert row.bytes_done == 5
    assert datetime.now(UTC) - row.updated_at < timedelta(seconds=30)


def test_a_heartbeat_renews_the_lease_and_brings_back_cancel_and_pause(rows: Rows) -> None:
    job = rows.claim(rows.submit())
    claimed_until = rows.job_row(job.id).lease_expires_at
    assert rows.extend_lease(job.id, job.token, 90) == (False, False, False)
    assert rows.job_row(job.id).lease_expires_at - claimed_until > timedelta(seconds=50)
    rows.change(job.id, cancel_requested=True)
    assert rows.extend_lease(job.id, job.token, LEASE) == (True, False, False)
    rows.change(job.id, cancel_requested=False, pause_requested=True)
    assert rows.extend_lease(job.id, job.token, LEASE) == (False, True, False)


def test_a_late_heartbeat_works_as_long_as_no_other_run_has_the_job(rows: Rows) -> None:
    job = rows.claim(rows.submit())
    rows.expire_lease(job.id)
    assert rows.extend_lease(job.id, job.token, LEASE) == (False, False, False)
    assert rows.requeue() == []


def test_a_heartbeat_after_the_job_was_taken_away_does_not_work(rows: Rows) -> None:
    job = rows.claim(rows.submit())
    rows.take_away(job.id)
    assert rows.extend_lease(job.id, job.token, LEASE) is None
    assert rows.job_row(job.id).lease_expires_at is None


@pytest.mark.parametrize("name", ["release_job", "retry_job", "finish_job", "fail_job", "cancel_job"])
def test_a_heartbeat_that_comes_after_the_run_has_ended_brings_no_lease_back(rows: Rows, name: str) -> None:
    """The thread may be in the middle of one. A lease on an ended job would run out, and start the job again."""
    job = rows.claim(rows.submit())
    OWNER_ONLY[name](rows, job)
    rows.extend_lease(job.id, job.token, LEASE)
    assert rows.job_row(job.id).lease_expires_at is None
