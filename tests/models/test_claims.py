"""Claims, leases and what happens to them, on SQLite and on PostgreSQL."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet

from blobferry.contract import JobState, Phase, check_request
from blobferry.errors import InvalidPartError, LeaseLostError, StoreUnavailableError
from blobferry.jobs.submission import insert_job
from blobferry.sealing import Sealer
from models import AttemptRow, Database, JobRow, queries
from models.queries import MAX_CRASH_STREAK, MAX_CRASHES
from tests.models.rows import (
    LEASE,
    add_upload,
    ago,
    attempts,
    change,
    claim,
    expire_lease,
    job_row,
    outcomes,
    submit,
    try_claim,
    uploads,
)

PAST = datetime(2020, 1, 1, tzinfo=UTC)
FUTURE = datetime(2100, 1, 1, tzinfo=UTC)

# --- claim ---------------------------------------------------------------------------------------------------------


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
    assert try_claim(database, "nobody") is None


def test_of_many_claimers_at_once_exactly_one_gets_the_job(database: Database) -> None:
    for _ in range(5):
        job_id, barrier = submit(database), threading.Barrier(8)
        got: list[JobRow | None] = []

        def race(number: int, job_id: str = job_id, barrier: threading.Barrier = barrier, got: list[Any] = got) -> None:
            barrier.wait()
            got.append(try_claim(database, job_id, worker=f"host:{number}"))

        threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winners = [job for job in got if job is not None]
        assert len(got) == 8
        assert len(winners) == 1
        assert job_row(database, job_id).worker == winners[0].worker
        assert job_row(database, job_id).token == 1


def test_of_many_claimers_of_an_expired_lease_exactly_one_gets_the_job_and_one_death_is_counted(
    database: Database,
) -> None:
    job_id, barrier = submit(database), threading.Barrier(6)
    claim(database, job_id)
    expire_lease(database, job_id)
    got: list[JobRow | None] = []

    def race() -> None:
        barrier.wait()
        got.append(try_claim(database, job_id))

    threads = [threading.Thread(target=race) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([job for job in got if job is not None]) == 1
    row = job_row(database, job_id)
    assert (row.crashes, row.attempt) == (1, 2)
    assert outcomes(database, job_id) == ["died", None]


def test_the_token_rises_with_every_change_of_owner(database: Database) -> None:
    job_id, tokens = submit(database), []
    for _ in range(3):
        job = claim(database, job_id)
        tokens.append(job.token)
        with database.begin() as session:
            queries.release_job(session, job, JobState.QUEUED)
    assert tokens == sorted(set(tokens))


def test_slices_share_an_attempt_and_errors_do_not(database: Database) -> None:
    job_id = submit(database)
    job = claim(database, job_id, worker="host:1")
    with database.begin() as session:
        queries.release_job(session, job, JobState.QUEUED)
    job = claim(database, job_id, worker="host:2")
    assert job.attempt == 1
    with database.begin() as session:
        queries.retry_job(session, job, StoreUnavailableError("down"), delay=0, failures=1, max_attempts=8)
    assert claim(database, job_id).attempt == 2
    assert [(row.worker, row.outcome) for row in attempts(database, job_id)] == [
        ("host:2", "retrying"),
        ("host:1", None),
    ]


def test_a_stat_poll_is_no_new_attempt_and_stays_verifying(database: Database) -> None:
    job_id = submit(database)
    job = claim(database, job_id)
    with database.begin() as session:
        queries.release_job(session, job, JobState.VERIFYING)
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
    with database.begin() as session:
        queries.release_job(session, job, JobState.QUEUED)
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
        ({"deadline": PAST, "phase": "completing", "state": "retrying"}, True),  # somebody has to look
        ({"deadline": PAST, "phase": "verifying", "state": "verifying"}, True),
    ],
    ids=str,
)
def test_a_job_is_claimable_or_not(database: Database, values: dict[str, Any], claimable: bool) -> None:
    job_id = submit(database)
    change(database, job_id, **values)
    assert (try_claim(database, job_id) is not None) == claimable


# --- what an owner may do, and who is none any more -----------------------------------------------------------------


def upload_of(job: JobRow) -> dict[str, Any]:
    return {"job_id": job.id, "key": "a", "state": "open"}


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
    with database.begin() as session:
        queries.update_owned(session, job.id, job.token, bytes_done=5)
    row = job_row(database, job.id)
    assert row.bytes_done == 5
    assert datetime.now(UTC) - row.updated_at < timedelta(seconds=30)


def extend(database: Database, job: JobRow, seconds: float = LEASE) -> tuple[bool, bool, bool] | None:
    with database.begin() as session:
        return queries.extend_lease(session, job.id, job.token, seconds)


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


def test_a_late_heartbeat_works_as_long_as_nobody_has_taken_the_job(database: Database) -> None:
    job = claim(database, submit(database))
    expire_lease(database, job.id)
    assert extend(database, job) == (False, False, False)
    with database.begin() as session:
        assert queries.requeue_expired(session, limit=10) == []


def test_a_heartbeat_after_the_job_was_taken_away_does_not_work(database: Database) -> None:
    job = claim(database, submit(database))
    expire_lease(database, job.id)
    with database.begin() as session:
        queries.requeue_expired(session, limit=10)
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


# --- dead workers ---------------------------------------------------------------------------------------------------


def die(database: Database, job_id: str) -> None:
    claim(database, job_id)
    expire_lease(database, job_id)
    with database.begin() as session:
        assert [job.id for job in queries.requeue_expired(session, limit=10)] == [job_id]


def test_a_dead_workers_job_is_queued_again_with_its_attempt_closed(database: Database) -> None:
    job_id = submit(database)
    old = claim(database, job_id, worker="host:9")
    change(database, job_id, published_at=ago(0))
    expire_lease(database, job_id)
    with database.begin() as session:
        queries.requeue_expired(session, limit=10)
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
    with database.begin() as session:
        queries.finish_job(session, job, {})
    with database.begin() as session:
        assert queries.requeue_expired(session, limit=10) == []
    assert job_row(database, running).state == "running"
    assert job_row(database, queued).state == "queued"


def test_only_so_many_leases_are_settled_at_a_time_the_oldest_first(database: Database) -> None:
    jobs = [submit(database) for _ in range(4)]
    for age, job_id in zip((5, 40, 20, 10), jobs, strict=True):
        claim(database, job_id)
        change(database, job_id, lease_expires_at=ago(age))
    with database.begin() as session:
        assert [job.id for job in queries.requeue_expired(session, limit=2)] == [jobs[1], jobs[2]]


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
    with database.begin() as session:
        queries.release_job(session, job, JobState.QUEUED)
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


# --- how a run ends ---------------------------------------------------------------------------------------------------


def assert_nobody_has(row: JobRow) -> None:
    assert (row.worker, row.lease_expires_at, row.published_at) == (None, None, None)


def test_a_released_job_may_be_claimed_after_the_delay(database: Database) -> None:
    job = claim(database, submit(database))
    with database.begin() as session:
        queries.release_job(session, job, JobState.VERIFYING, delay=60, polls=3)
    row = job_row(database, job.id)
    assert (row.state, row.polls) == ("verifying", 3)
    assert row.run_at is not None
    assert timedelta(seconds=50) < row.run_at - datetime.now(UTC) < timedelta(seconds=70)
    assert_nobody_has(row)
    assert try_claim(database, job.id) is None


def test_a_retried_job_says_why_and_when(database: Database) -> None:
    job = claim(database, submit(database))
    with database.begin() as session:
        queries.retry_job(
            session, job, StoreUnavailableError("503 from the store"), delay=60, failures=4, max_attempts=8
        )
    row = job_row(database, job.id)
    assert (row.state, row.failures, row.error_code, row.error_message) == (
        "retrying",
        4,
        "store_unavailable",
        "503 from the store",
    )
    assert_nobody_has(row)
    (attempt,) = attempts(database, job.id)
    assert (attempt.outcome, attempt.error_code) == ("retrying", "store_unavailable")
    assert attempt.finished_at is not None


def test_a_finished_job_has_a_result_and_no_error_of_earlier_attempts(database: Database) -> None:
    job_id = submit(database)
    die(database, job_id)
    job = claim(database, job_id)
    change(database, job_id, size=30, bytes_done=10)
    job = job_row(database, job_id)
    with database.begin() as session:
        queries.finish_job(session, job, {"etag": '"1"'})
    row = job_row(database, job_id)
    assert (row.state, row.phase, row.run_at) == ("succeeded", None, None)
    assert (row.error_code, row.error_message) == (None, None)
    assert (row.result, row.bytes_done) == ({"etag": '"1"'}, 30)
    assert row.finished_at is not None
    assert_nobody_has(row)
    assert outcomes(database, job_id) == ["died", "succeeded"]


@pytest.mark.parametrize("keep", [0.0, 3600.0])
def test_a_failed_job_gives_its_upload_up_at_once_or_later(database: Database, keep: float) -> None:
    job = claim(database, submit(database))
    open_, done = add_upload(database, job.id), add_upload(database, job.id, state="completed")
    with database.begin() as session:
        queries.fail_job(session, job, InvalidPartError("bad part"), keep_upload_seconds=keep)
    row = job_row(database, job.id)
    assert (row.state, row.error_code, row.error_message) == ("failed", "invalid_part", "bad part")
    assert_nobody_has(row)
    found = {upload.id: upload for upload in uploads(database, job.id)}
    assert found[done].state == "completed"
    assert found[open_].state == ("open" if keep else "aborting")
    assert (found[open_].recheck_at is not None) == bool(keep)
    assert outcomes(database, job.id) == ["failed"]


def test_a_cancelled_job_gives_its_upload_up_at_once(database: Database) -> None:
    job = claim(database, submit(database))
    add_upload(database, job.id)
    with database.begin() as session:
        queries.cancel_job(session, job)
    row = job_row(database, job.id)
    assert (row.state, row.error_code) == ("cancelled", None)
    assert [upload.state for upload in uploads(database, job.id)] == ["aborting"]
    assert outcomes(database, job.id) == ["cancelled"]


def test_the_stat_poll_counts_its_looks_until_its_time_is_over(database: Database) -> None:
    job_id = submit(database)
    for _ in range(2):
        job = claim(database, job_id)
        with database.begin() as session:
            assert queries.poll_again(session, job, 60)
            queries.release_job(session, job, JobState.VERIFYING)
    job = claim(database, job_id)
    until = job_row(database, job.id).verify_until
    assert until is not None
    with database.begin() as session:
        queries.poll_again(session, job, 6000)
    assert job_row(database, job.id).verify_until == until  # counted from the first look
    change(database, job.id, verify_until=ago(0.001))
    with database.begin() as session:
        assert not queries.poll_again(session, job, 60)
    assert job_row(database, job.id).polls == 3, "of three runs"


# --- the point of no return -----------------------------------------------------------------------------------------


def begin_completing(database: Database, job: JobRow, base_etag: str = '"old"') -> bool:
    with database.begin() as session:
        return queries.begin_completing(session, job, base_etag=base_etag)


def test_a_cancel_before_the_point_of_no_return_wins(database: Database) -> None:
    job = claim(database, submit(database))
    change(database, job.id, cancel_requested=True)
    assert not begin_completing(database, job)
    assert job_row(database, job.id).phase != Phase.COMPLETING


def test_a_cancel_after_the_point_of_no_return_is_too_late(database: Database) -> None:
    job = claim(database, submit(database))
    assert begin_completing(database, job)
    change(database, job.id, cancel_requested=True)
    assert begin_completing(database, job, '"newer"')  # a repeated commit call
    row = job_row(database, job.id)
    assert (row.phase, row.base_etag) == ("completing", '"newer"')


def test_an_attempt_counts_its_own_bytes(database: Database) -> None:
    job_id = submit(database)
    die(database, job_id)
    job = claim(database, job_id)
    for total in (10, 15, 15):  # the last one is repeated: the answer to its COMMIT was lost
        with database.begin() as session:
            queries.count_bytes_sent(session, job, total)
    assert [row.bytes_sent for row in attempts(database, job_id)] == [0, 15]


def test_attempts_are_mapped_onto_their_table(database: Database) -> None:
    job = claim(database, submit(database))
    with database.begin() as session:
        assert session.get(AttemptRow, (job.id, 1)) is not None


def test_a_job_that_is_resumed_after_its_attempt_ended_begins_another(database: Database) -> None:
    job_id = submit(database)
    job = claim(database, job_id)
    with database.begin() as session:
        queries.retry_job(session, job, StoreUnavailableError("503"), delay=0, failures=1, max_attempts=8)
    change(database, job_id, state="queued", run_at=None)  # paused meanwhile, and resumed
    assert claim(database, job_id).attempt == 2
    assert outcomes(database, job_id) == ["retrying", None]


def test_a_sealed_request_is_left_to_workers_that_know_what_that_is(database: Database) -> None:
    signed = check_request("write_stream", {"path": "/a", "source": "https://host/a?signature=1"})
    with database.begin() as session:
        plain = insert_job(session.connection(), signed)
        sealed = insert_job(session.connection(), signed, sealer=Sealer([Fernet.generate_key().decode()]))
    assert (plain["request_version"], sealed["request_version"]) == (1, 2)
