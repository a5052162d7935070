"""Which jobs are sent a message next."""

from models import JobRow
from models.queries import REPUBLISH_AFTER
from models.queries.due_messages import DUE_AT_ONCE, pick_fairly
from tests.models.rows import Rows, ago, at_once


def publish(rows: Rows, limit: int = 100, turn: int = 0) -> list[str]:
    """Ids of what one sweep publishes, in order."""
    return [job.id for job in rows.jobs_to_publish(limit=limit, turn=turn)]


def test_an_unpublished_job_is_published_under_the_rows_number(rows: Rows) -> None:
    job_id = rows.submit(publish_seq=4)
    (job,) = rows.jobs_to_publish(limit=10)
    assert job.publish_seq == 4
    assert rows.job_row(job_id).published_at is not None
    assert rows.claim(job_id, publish_seq=4)


def test_a_message_that_was_not_claimed_for_30_seconds_is_sent_again(rows: Rows) -> None:
    job_id = rows.submit()
    assert publish(rows) == [job_id]
    assert publish(rows) == [], "it was just published"
    rows.change(job_id, published_at=ago(REPUBLISH_AFTER - 2))
    assert publish(rows) == []
    rows.change(job_id, published_at=ago(REPUBLISH_AFTER + 1))
    assert publish(rows) == [job_id]
    assert publish(rows) == []
    assert rows.claim(job_id, publish_seq=0)  # whichever of the two messages comes first is good
    assert rows.try_claim(job_id, publish_seq=0) is None


def test_no_more_are_on_their_way_than_the_limit(rows: Rows) -> None:
    jobs = [rows.submit() for _ in range(6)]
    assert publish(rows, limit=4) == jobs[:4]
    assert publish(rows, limit=4) == []
    for job_id in jobs[:2]:
        rows.claim(job_id)
    assert publish(rows, limit=4) == jobs[4:]


def test_a_flushed_broker_does_not_multiply_the_messages(rows: Rows) -> None:
    """Everything in the broker is lost, twice: the same few are sent again, not those plus as many more."""
    jobs = [rows.submit() for _ in range(20)]
    assert publish(rows, limit=4) == jobs[:4]
    for _ in range(2):
        for job_id in jobs[:4]:
            rows.change(job_id, published_at=ago(REPUBLISH_AFTER + 1))
        assert publish(rows, limit=4) == jobs[:4]
    assert [rows.job_row(job_id).published_at is None for job_id in jobs] == [False] * 4 + [True] * 16


def test_a_higher_priority_goes_first_and_then_the_older_job(rows: Rows) -> None:
    low, high, middle, high_later = (rows.submit(arguments={"priority": p}) for p in (0, 9, 5, 9))
    assert publish(rows, limit=4) == [high, high_later, middle, low]


def test_every_fifth_pick_is_the_oldest_of_any_priority(rows: Rows) -> None:
    old = [rows.submit() for _ in range(3)]
    urgent = [rows.submit(arguments={"priority": 9}) for _ in range(12)]
    assert publish(rows, limit=10) == [*urgent[:4], old[0], *urgent[4:8], old[1]]


def test_the_turn_goes_on_from_sweep_to_sweep(rows: Rows) -> None:
    old = rows.submit()
    urgent = [rows.submit(arguments={"priority": 9}) for _ in range(5)]
    assert publish(rows, limit=1, turn=3) == [urgent[0]]
    rows.claim(urgent[0])
    assert publish(rows, limit=1, turn=4) == [old]


def test_a_job_is_picked_once_even_if_it_is_both_the_best_and_the_oldest() -> None:
    jobs = [JobRow(id=str(number)) for number in range(3)]
    picked = pick_fairly(jobs, jobs, limit=10, turn=0)
    assert [job.id for job in picked] == ["0", "1", "2"]


def test_sweeps_at_the_same_moment_publish_each_job_once(rows: Rows) -> None:
    jobs, found = [rows.submit() for _ in range(20)], list[str]()
    at_once(4, lambda number: found.extend(publish(rows, limit=20)))
    assert sorted(found) == sorted(jobs)


def test_the_next_run_is_the_earliest_that_is_still_to_come(rows: Rows) -> None:
    assert rows.seconds_to_next_run() is None
    for seconds in (60, 20, -5):
        rows.submit(state="retrying", run_at=ago(-seconds))
    rows.submit(state="succeeded", run_at=ago(-3))
    assert 15 < rows.seconds_to_next_run() <= 20


def test_a_job_that_became_due_during_a_sweep_counts_as_well(rows: Rows) -> None:
    """The sweep's own statement came too early for it, and the next sweep may be an hour away."""
    rows.submit(run_at=ago(5))
    assert rows.seconds_to_next_run(since=4) is None
    assert -60 < rows.seconds_to_next_run(since=30) <= 0


def test_scheduled_jobs_become_due_in_the_order_of_their_times_so_many_at_once(rows: Rows) -> None:
    jobs = [rows.submit(run_at=ago(seconds)) for seconds in range(1, DUE_AT_ONCE + 3)]
    assert set(publish(rows, limit=1000)) == set(jobs[2:]), "the last two come last"
    assert rows.job_row(jobs[-1]).run_at is None
    assert publish(rows, limit=1000) == jobs[:2]
