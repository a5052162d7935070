"""Looking at jobs: get, wait and watch see what the worker has written."""

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from blobferry import Client, Job
from blobferry.contract import check_request
from blobferry.errors import InvalidRequestError, JobNotFoundError
from blobferry.jobs.job_reader import JobReader
from blobferry.jobs.submission import insert_job
from tests.client.conftest import SOURCE, Site, counted_selects


def test_an_unknown_job_is_not_found_nor_waited_for(ferry: Client) -> None:
    for look in (ferry.get, partial(ferry.wait, timeout=60)):
        with pytest.raises(JobNotFoundError, match="nobody"):
            look("nobody")


@pytest.mark.parametrize("job_id", ["", "a" * 156, None])
def test_an_id_that_no_job_can_have_is_refused(ferry: Client, job_id: Any) -> None:
    with pytest.raises(InvalidRequestError, match="job id"):
        ferry.get(job_id)


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_wait_returns_the_job_in_any_final_state(ferry: Client, site: Site, state: str) -> None:
    job = ferry.write_stream("/a", SOURCE)
    site.change(job, state=state)
    assert ferry.wait(job.id, timeout=60).state == state


def test_wait_gives_up_in_time_and_says_where_the_job_is(ferry: Client) -> None:
    job = ferry.write_stream("/a", SOURCE)
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=f"{job.id} is still queued"):
        ferry.wait(job.id, timeout=0.3)
    assert 0.3 <= time.monotonic() - started < 2


def test_wait_says_why_a_job_that_is_retried_has_not_ended(ferry: Client, site: Site) -> None:
    job = ferry.write_stream("/a", SOURCE)
    site.change(job, state="retrying", error_code="source_not_allowed", error_message="below no root")
    with pytest.raises(TimeoutError, match=r"is still retrying after 0 s: source_not_allowed: below no root"):
        ferry.wait(job.id, timeout=0)


def test_wait_with_no_time_looks_once(ferry: Client, site: Site) -> None:
    job = ferry.write_stream("/a", SOURCE)
    with pytest.raises(TimeoutError):
        ferry.wait(job.id, timeout=0)
    site.change(job, state="succeeded")
    assert ferry.wait(job.id, timeout=0).is_final


class Waiting:
    """A clock that only sleeping advances; the job ends at a time of it."""

    def __init__(self, site: Site, job: Job, ends_at: float) -> None:
        self.now, self.reads = 0.0, 0
        self._site, self._job, self._ends_at = site, job, ends_at

    def sleep(self, seconds: float) -> None:
        before, self.now, self.reads = self.now, self.now + seconds, self.reads + 1
        if before < self._ends_at <= self.now:
            self._site.change(self._job, state="succeeded")

    def end_of_wait(self) -> float:
        """The time at which a wait for the job returns."""
        reader = JobReader(self._site.database.engine, clock=lambda: self.now, sleep=self.sleep)
        (*_, last) = reader.watch(self._job.id, None, patience=60)
        assert last.is_final
        return self.now


@pytest.mark.parametrize("ends_at", [0.001, 0.03, 0.1, 0.5, 3.0])
def test_an_end_is_seen_soon_by_the_time_that_the_job_took(ferry: Client, site: Site, ends_at: float) -> None:
    late = Waiting(site, ferry.write_stream("/a", SOURCE), ends_at).end_of_wait() - ends_at
    assert late <= min(0.2, max(0.01, ends_at / 4)) + 1e-9


def test_a_wait_of_a_minute_reads_the_row_five_times_a_second(ferry: Client, site: Site) -> None:
    waiting = Waiting(site, ferry.write_stream("/a", SOURCE), 60.0)
    waiting.end_of_wait()
    assert waiting.reads <= 5 * 60 + 20


def test_watch_shows_each_change_once_and_ends_with_the_job(ferry: Client, site: Site) -> None:
    job = ferry.write_stream("/a", SOURCE)
    steps: Iterator[dict[str, Any]] = iter(
        [{"state": "running", "size": 10, "attempt": 1}, {"bytes_done": 5}, {"state": "succeeded", "bytes_done": 10}]
    )
    seen = []
    for now in ferry.watch(job.id, timeout=30):
        seen.append((str(now.state), now.bytes_done))
        if not now.is_final:
            site.change(job, **next(steps))
    assert seen == [("queued", 0), ("running", 0), ("running", 5), ("succeeded", 10)]


def test_many_jobs_are_read_at_once_in_the_order_of_their_ids(ferry: Client, site: Site) -> None:
    ids = [ferry.write_stream(f"/{number}", SOURCE).id for number in range(3)]
    with counted_selects(ferry) as selects:
        found = ferry.get_many([ids[2], "nobody", ids[0], ids[2]])
    assert (list(found), len(selects)) == ([ids[2], ids[0]], 1)
    assert found[ids[0]] == ferry.get(ids[0])
    assert ferry.get_many(()) == {}


@pytest.mark.parametrize("ids", ["one", [""], [7]])
def test_what_are_no_ids_is_refused_before_a_query(ferry: Client, ids: Any) -> None:
    with counted_selects(ferry) as selects, pytest.raises(InvalidRequestError, match="job id"):
        ferry.get_many(ids)
    assert selects == []


def test_a_job_says_all_of_itself_in_json(ferry: Client) -> None:
    job = ferry.write_stream("/a", SOURCE, labels={"a": "b"})
    said = json.loads(json.dumps(job.as_json()))
    expected = {"id": job.id, "labels": {"a": "b"}, "created_at": job.created_at.isoformat()}
    assert {name: said[name] for name in expected} == expected
    assert job.created_at.utcoffset() == timedelta()


def test_an_id_met_again_finds_its_own_row_among_others_without_a_key(site: Site) -> None:
    """A bare message that is delivered twice inserts twice; other jobs have no key either."""
    request = check_request("write_stream", {"path": "/a", "source": SOURCE})
    with site.database.begin() as session:
        for job_id in ("1", "2", "3"):
            insert_job(session.connection(), request, job_id=job_id)
        assert insert_job(session.connection(), request, job_id="3")["id"] == "3"
    assert len(site.rows()) == 3
