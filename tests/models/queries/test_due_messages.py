"""Which jobs are sent a message next."""

from datetime import UTC, datetime
from typing import Any

import pytest

from models import Database, JobRow, queries
from models.queries import REPUBLISH_AFTER
from models.queries.due_messages import pick_fairly
from tests.models.rows import (
    ago,
    at_once,
    change,
    claim,
    in_transaction,
    job_row,
    submit,
    try_claim,
)


def publish(database: Database, limit: int = 100, turn: int = 0) -> list[str]:
    """Ids of what one sweep publishes, in order."""
    with database.begin() as session:
        return [job.id for job in queries.jobs_to_publish(session, limit=limit, turn=turn)]


def test_an_unpublished_job_is_published_under_the_rows_number(database: Database) -> None:
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


def test_a_message_that_was_not_claimed_for_30_seconds_is_sent_again(database: Database) -> None:
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


def test_every_fifth_pick_is_the_oldest_of_any_priority(database: Database) -> None:
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
    jobs, found = [submit(database) for _ in range(20)], list[str]()
    at_once(4, lambda number: found.extend(publish(database, limit=20)))
    assert sorted(found) == sorted(jobs)


def seconds_to_next_run(database: Database) -> float | None:
    return in_transaction(database, queries.seconds_to_next_run)


def test_the_next_run_is_the_earliest_that_is_still_to_come(database: Database) -> None:
    assert seconds_to_next_run(database) is None
    for seconds in (60, 20, -5):
        change(database, submit(database), state="retrying", run_at=ago(-seconds))
    change(database, submit(database), state="succeeded", run_at=ago(-3))
    due = seconds_to_next_run(database)
    assert due is not None
    assert 15 < due <= 20


def old(database: Database, job_id: str) -> None:
    change(database, job_id, state="succeeded", finished_at=ago(600))
