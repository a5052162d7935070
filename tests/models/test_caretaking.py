"""The statements of the caretaker: what is published, ended, aborted and pruned. On SQLite and on PostgreSQL."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from blobferry.contract import JobState
from models import Database, JobRow, queries
from models.queries import REPUBLISH_AFTER, pick_fairly
from tests.models.rows import (
    add_upload,
    ago,
    attempts,
    change,
    change_upload,
    claim,
    count_rows,
    expire_lease,
    job_row,
    outcomes,
    part_rows,
    submit,
    tombstones,
    try_claim,
    uploads,
)
from worker.errors import InvalidPartError, StoreUnavailableError

# --- publishing -----------------------------------------------------------------------------------------------------


def publish(database: Database, limit: int = 100, turn: int = 0) -> list[str]:
    """Ids of what one sweep publishes, in order."""
    with database.begin() as session:
        return [job.id for job in queries.jobs_to_publish(session, limit=limit, turn=turn)]


def test_what_nobody_published_is_published_under_the_rows_number(database: Database) -> None:
    job_id = submit(database)
    change(database, job_id, publish_seq=4)
    with database.begin() as session:
        (job,) = queries.jobs_to_publish(session, limit=10)
        assert job.publish_seq == 4
    assert job_row(database, job_id).published_at is not None
    assert claim(database, job_id, publish_seq=4)


def test_what_was_just_published_is_not_published_again(database: Database) -> None:
    submit(database)
    assert len(publish(database)) == 1
    assert publish(database) == []


def test_a_message_that_nobody_claimed_for_30_seconds_is_sent_again(database: Database) -> None:
    job_id = submit(database)
    publish(database)
    change(database, job_id, published_at=ago(REPUBLISH_AFTER - 2))
    assert publish(database) == []
    change(database, job_id, published_at=ago(REPUBLISH_AFTER + 1))
    assert publish(database) == [job_id]
    assert publish(database) == []
    assert claim(database, job_id, publish_seq=0)  # whichever of the two messages comes first is good
    assert try_claim(database, job_id, publish_seq=0) is None


@pytest.mark.parametrize(
    "values",
    [
        {"state": "succeeded"},
        {"state": "paused"},
        {"state": "running", "lease_expires_at": datetime(2100, 1, 1, tzinfo=UTC)},
        {"state": "retrying", "run_at": datetime(2100, 1, 1, tzinfo=UTC)},
        {"cancel_requested": True},
        {"deadline": datetime(2020, 1, 1, tzinfo=UTC)},
    ],
    ids=str,
)
def test_what_cannot_be_claimed_is_not_published(database: Database, values: dict[str, Any]) -> None:
    change(database, submit(database), **values)
    assert publish(database) == []


@pytest.mark.parametrize("state", ["queued", "retrying", "verifying"])
def test_every_claimable_state_is_published_once_due(database: Database, state: str) -> None:
    job_id = submit(database)
    change(database, job_id, state=state, run_at=ago(1))
    assert publish(database) == [job_id]


def test_no_more_are_on_their_way_than_the_limit(database: Database) -> None:
    jobs = [submit(database) for _ in range(6)]
    assert publish(database, limit=4) == jobs[:4]
    assert publish(database, limit=4) == []
    claim(database, jobs[0])
    claim(database, jobs[1])
    assert publish(database, limit=4) == jobs[4:]


def test_a_flushed_broker_does_not_multiply_the_messages(database: Database) -> None:
    """Everything in the broker is lost, twice: the same few are sent again, not those plus as many more."""
    jobs = [submit(database) for _ in range(20)]
    assert publish(database, limit=4) == jobs[:4]
    for _ in range(2):
        for job_id in jobs[:4]:
            change(database, job_id, published_at=ago(REPUBLISH_AFTER + 1))
        assert publish(database, limit=4) == jobs[:4]
    assert [job_row(database, job_id).published_at is None for job_id in jobs] == [False] * 4 + [True] * 16


def test_a_higher_priority_goes_first_and_then_the_older_job(database: Database) -> None:
    low, high, middle, high_later = (submit(database, arguments={"priority": p}) for p in (0, 9, 5, 9))
    assert publish(database, limit=4) == [high, high_later, middle, low]


def test_every_fifth_pick_is_the_oldest_whatever_its_priority(database: Database) -> None:
    old = [submit(database) for _ in range(3)]
    urgent = [submit(database, arguments={"priority": 9}) for _ in range(12)]
    assert publish(database, limit=10) == [*urgent[:4], old[0], *urgent[4:8], old[1]]


def test_the_turn_goes_on_from_sweep_to_sweep(database: Database) -> None:
    old = submit(database)
    urgent = [submit(database, arguments={"priority": 9}) for _ in range(5)]
    assert publish(database, limit=1, turn=3) == [urgent[0]]
    claim(database, urgent[0])
    assert publish(database, limit=1, turn=4) == [old]


def test_a_job_is_picked_once_even_if_it_is_both_the_best_and_the_oldest() -> None:
    jobs = [JobRow(id=str(number)) for number in range(3)]
    picked = pick_fairly(jobs, jobs, limit=10, turn=0)
    assert [job.id for job in picked] == ["0", "1", "2"]


def test_sweeps_at_the_same_moment_publish_each_job_once(database: Database) -> None:
    jobs, barrier = [submit(database) for _ in range(20)], threading.Barrier(4)
    found: list[str] = []

    def sweep() -> None:
        barrier.wait()
        found.extend(publish(database, limit=20))

    threads = [threading.Thread(target=sweep) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(jobs)


# --- the next moment that matters ----------------------------------------------------------------------------------


def seconds_to_next_run(database: Database) -> float | None:
    with database.begin() as session:
        return queries.seconds_to_next_run(session)


def test_the_next_run_is_the_earliest_that_is_still_to_come(database: Database) -> None:
    assert seconds_to_next_run(database) is None
    for seconds in (60, 20, -5):
        change(database, submit(database), state="retrying", run_at=ago(-seconds))
    change(database, submit(database), state="succeeded", run_at=ago(-3))
    due = seconds_to_next_run(database)
    assert due is not None
    assert 15 < due <= 20


# --- cancel and deadline of jobs that nobody runs ------------------------------------------------------------------


def end_idle(database: Database) -> list[str]:
    with database.begin() as session:
        return [job.id for job in queries.apply_requests(session, limit=100)]


@pytest.mark.parametrize("state", ["queued", "retrying", "paused"])
def test_an_idle_job_that_is_cancelled_ends_with_its_upload_given_up(database: Database, state: str) -> None:
    job_id = submit(database)
    change(database, job_id, state=state, cancel_requested=True, run_at=ago(-60), phase="uploading")
    upload = add_upload(database, job_id)
    assert end_idle(database) == [job_id]
    row = job_row(database, job_id)
    assert (row.state, row.phase, row.run_at, row.error_code) == ("cancelled", None, None, None)
    assert row.finished_at is not None
    assert [(found.id, found.state) for found in uploads(database, job_id)] == [(upload, "aborting")]
    assert end_idle(database) == []


def test_an_idle_job_past_its_deadline_fails_and_says_so(database: Database) -> None:
    job_id = submit(database)
    change(database, job_id, deadline=datetime(2020, 1, 1, tzinfo=UTC))
    assert end_idle(database) == [job_id]
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
    assert end_idle(database) == []


def test_a_job_that_is_ended_between_two_slices_ends_its_attempt_too(database: Database) -> None:
    """The attempt that its slices shared is over, and the history must not show it running for ever."""
    job_id = submit(database)
    job = claim(database, job_id)
    with database.begin() as session:
        queries.release_job(session, job, JobState.QUEUED)
    change(database, job_id, cancel_requested=True)
    end_idle(database)
    (attempt,) = attempts(database, job_id)
    assert attempt.outcome == "cancelled"
    assert attempt.finished_at is not None


def test_a_job_that_is_ended_while_it_waits_for_a_retry_keeps_its_history(database: Database) -> None:
    job_id = submit(database)
    job = claim(database, job_id)
    with database.begin() as session:
        queries.retry_job(session, job, StoreUnavailableError("down"), delay=60, failures=1, max_attempts=8)
    change(database, job_id, cancel_requested=True)
    end_idle(database)
    assert outcomes(database, job_id) == ["retrying"]


def test_every_job_that_is_not_final_is_claimable_later_running_paused_or_ended_by_the_caretaker(
    database: Database,
) -> None:
    """No combination of state, phase, wishes and deadline may leave a job that nobody will ever look at again."""
    past, future = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
    made: dict[str, tuple[Any, ...]] = {}
    for state in ("queued", "retrying", "verifying"):
        for phase in (None, "uploading", "completing", "verifying"):
            for cancel in (False, True):
                for deadline in (None, past, future):
                    job_id = submit(database)
                    change(database, job_id, state=state, phase=phase, cancel_requested=cancel, deadline=deadline)
                    made[job_id] = (state, phase, cancel, deadline)
    ended = set(end_idle(database))
    published = set(publish(database, limit=1000))
    assert not ended & published
    assert [made[job_id] for job_id in made if job_id not in ended | published] == []


# --- uploads that were given up --------------------------------------------------------------------------------------


def to_abort(database: Database) -> list[int]:
    with database.begin() as session:
        return [upload.id for upload in queries.uploads_to_abort(session, limit=100, files_of="file://here")]


def gone(database: Database, upload: int, recheck_seconds: float | None) -> None:
    with database.begin() as session:
        queries.upload_is_gone(session, upload, recheck_seconds=recheck_seconds)


def test_only_what_was_given_up_is_aborted(database: Database) -> None:
    job_id = submit(database)
    states = ("opening", "open", "completing", "completed", "aborting", "gone")
    made = {state: add_upload(database, job_id, state=state) for state in states}
    assert to_abort(database) == [made["aborting"]]


def test_a_failed_jobs_upload_is_kept_for_its_retention_and_then_aborted(database: Database) -> None:
    job = claim(database, submit(database))
    upload = add_upload(database, job.id)
    with database.begin() as session:
        queries.fail_job(session, job, InvalidPartError("x"), keep_upload_seconds=3600)
    assert to_abort(database) == []
    change_upload(database, upload, recheck_at=ago(1))
    assert to_abort(database) == [upload]
    (row,) = uploads(database, job.id)
    assert (row.state, row.recheck_at) == ("aborting", None)


def test_an_aborted_upload_is_looked_at_once_more_and_then_never_again(database: Database) -> None:
    upload = add_upload(database, submit(database), state="aborting")
    gone(database, upload, recheck_seconds=3600)
    assert to_abort(database) == []
    change_upload(database, upload, recheck_at=ago(1))
    assert to_abort(database) == [upload]
    gone(database, upload, recheck_seconds=None)
    assert to_abort(database) == []


# --- pruning -------------------------------------------------------------------------------------------------------


def prune(database: Database, *, keep: float = 3600, tombstone: float = 7200, limit: int = 100) -> int:
    with database.begin() as session:
        return queries.prune(session, keep_seconds=keep, tombstone_seconds=tombstone, limit=limit)


def finished(database: Database, seconds_ago: float, state: str = "succeeded") -> str:
    job_id = submit(database)
    claim(database, job_id)
    change(database, job_id, state=state, lease_expires_at=None, finished_at=ago(seconds_ago))
    return job_id


def test_old_finished_jobs_go_with_all_their_rows_and_leave_a_tombstone(database: Database) -> None:
    old = [finished(database, 4000, state) for state in ("succeeded", "failed", "cancelled")]
    young, running = finished(database, 3000), submit(database)
    upload = add_upload(database, old[0], state="completed")
    with database.begin() as session:
        queries.record_parts(session, upload, [{"part_number": 1, "offset": 0, "size": 1, "etag": '"1"'}])
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


def test_a_tombstone_remembers_when_the_job_ended_and_goes_in_its_time(database: Database) -> None:
    finished(database, 4000)
    prune(database)
    prune(database, tombstone=4100)
    assert count_rows(database, "blobferry_tombstones") == 1
    prune(database, tombstone=3900)
    assert count_rows(database, "blobferry_tombstones") == 0


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


def test_times_are_the_databases_and_not_this_machines(database: Database) -> None:
    """Both are this machine's here, so a claim's times lie within the call."""
    before = datetime.now(UTC) - timedelta(milliseconds=5)
    job = claim(database, submit(database))
    assert job.started_at is not None
    assert before <= job.started_at <= datetime.now(UTC) + timedelta(milliseconds=5)


@contextmanager
def held(database: Database, job_id: str) -> Iterator[None]:
    """Somebody else, perhaps a host that was cut off, has a transaction open that changes the row."""
    with database.begin() as session:
        session.execute(select(JobRow).where(JobRow.id == job_id).with_for_update())
        yield


def requeue(session: Session) -> object:
    return queries.requeue_expired(session, limit=10)


def apply_requests(session: Session) -> object:
    return queries.apply_requests(session, limit=10)


def publish_ten(session: Session) -> object:
    return queries.jobs_to_publish(session, limit=10)


def prune_ten(session: Session) -> object:
    return queries.prune(session, keep_seconds=60, tombstone_seconds=3600, limit=10)


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
    "wishes": (apply_requests, cancelled, lambda database, job_id: job_row(database, job_id).state == "cancelled"),
    "messages": (
        publish_ten,
        lambda *job: None,
        lambda database, job_id: job_row(database, job_id).published_at is not None,
    ),
    "pruning": (prune_ten, old, lambda database, job_id: job_id in tombstones(database)),
}


@pytest.mark.parametrize("what", STEPS)
def test_a_row_that_somebody_holds_keeps_no_sweep_from_the_others(what: str, postgres_database: Database) -> None:
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
