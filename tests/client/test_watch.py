"""Watching: heartbeats while nothing changes, and one query for all who watch."""

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import pytest

from blobferry import Client, Job
from blobferry.errors import InvalidRequestError, JobNotFoundError, UnreachableError
from blobferry.jobs.job_reader import JobReader
from blobferry.jobs.job_watch import JobWatch, check_limits
from blobferry.jobs.shared_reading import POLL_INTERVAL, Reading, SharedReading
from tests.client.conftest import SOURCE, Site, counted_selects, run_python


def test_a_heartbeat_shows_the_unchanged_job(ferry: Client, site: Site) -> None:
    job = ferry.write_stream("/a", SOURCE)
    seen = list(islice(ferry.watch(job.id, heartbeat=0.05), 4))
    assert seen == [job] * 4


def test_a_change_is_shown_between_heartbeats(ferry: Client, site: Site) -> None:
    job = ferry.write_stream("/a", SOURCE)
    watch = ferry.watch(job.id, heartbeat=600)
    next(watch)
    site.change(job, state="succeeded")
    assert [each.state for each in watch] == ["succeeded"]


@pytest.mark.parametrize("heartbeat", [0, -1, float("nan")])
def test_a_heartbeat_takes_time(ferry: Client, heartbeat: float) -> None:
    with pytest.raises(InvalidRequestError, match="heartbeat"):
        next(ferry.watch("nobody", heartbeat=heartbeat))


def test_threads_that_watch_share_their_queries(ferry: Client, site: Site) -> None:
    jobs = [ferry.write_stream(f"/{number}", SOURCE) for number in range(12)]
    begun = threading.Barrier(len(jobs) + 1)

    def watch(job: Job) -> Job:
        watching = ferry.watch(job.id, 60, heartbeat=600)
        next(watching)
        begun.wait()
        return list(watching)[-1]

    with ThreadPoolExecutor(len(jobs)) as threads:
        watching = [threads.submit(watch, job) for job in jobs]
        begun.wait()
        with counted_selects(ferry) as selects:
            began = time.monotonic()
            while len(selects) < 5:
                time.sleep(0.01)
            took, count = time.monotonic() - began, len(selects)
        for job in jobs:
            site.change(job, state="succeeded")
        assert [each.result().state for each in watching] == ["succeeded"] * len(jobs)
    assert count <= took / POLL_INTERVAL + 1, "a query for each of them would be twelve times as many"


FORK = """
    import os
    from blobferry import Client

    with Client.from_env() as client:
        job = client.delete("/a")
        shared = client._reader.shared
        with shared.watched("of the parent"), shared._lock, shared._one_reads:
            child = os.fork()
            if not child:
                with shared.watched(job.id):
                    reading = shared.latest()
                os._exit(set(reading.asked) != {job.id} or set(reading.jobs) != {job.id})
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def test_a_child_of_a_fork_reads_for_itself(site: Site) -> None:
    """Other threads of the parent watch, and hold the locks, at the fork."""
    run_python(FORK, site.environment())


def test_who_begins_to_watch_does_not_wait_for_a_reading() -> None:
    """An event loop would stand still for as long as the database does not answer."""
    begun, released = threading.Event(), threading.Event()

    def hang(ids: Any) -> Mapping[str, Job]:
        begun.set()
        released.wait(30)
        return {}

    shared = SharedReading(hang)
    reading = threading.Thread(target=shared.latest)
    reading.start()
    assert begun.wait(10)

    def watch() -> None:
        with shared.watched("7"):
            shared.due_in()

    watching = threading.Thread(target=watch)
    watching.start()
    watching.join(10)
    is_done = not watching.is_alive()
    released.set()
    reading.join()
    watching.join()
    assert is_done


def test_watching_many_jobs_takes_a_tenth_of_a_core() -> None:
    def slow(ids: Any) -> Mapping[str, Job]:
        ends = time.thread_time() + 0.1
        while time.thread_time() < ends:
            pass
        return {}

    shared = SharedReading(slow)
    shared.latest()
    assert shared.due_in() > 0.8


def test_a_job_that_is_gone_ends_the_watch(ferry: Client, site: Site) -> None:
    job = ferry.write_stream("/a", SOURCE)
    watch = ferry.watch(job.id, 60)
    next(watch)
    with site.database.begin() as session:
        session.connection().exec_driver_sql("DELETE FROM blobferry_jobs")
    with pytest.raises(JobNotFoundError):
        next(watch)


class TestOneWatch:
    """Its rules, with readings made by hand."""

    @pytest.fixture
    def job(self, client: Client) -> Job:
        return client.write_stream("/a", SOURCE)

    def watch(self, job: Job, **limits: Any) -> JobWatch:
        checked = check_limits(**{"timeout": None, "patience": 10.0, "heartbeat": None} | limits)
        return JobWatch(job, checked, began=0.0, read_at=time.monotonic())

    def test_only_a_young_watch_of_few_reads_for_itself(self, job: Job) -> None:
        limits, now = check_limits(None, 10.0, None), 0.0
        watch = JobWatch(job, limits, began=0.0, read_at=0.0, clock=lambda: now)
        intervals = []
        for now in (0.01, 0.5, 0.99, 1.0):  # noqa: B007
            intervals.append(watch.interval_alone())
        assert intervals == pytest.approx([0.01, 0.1, 0.198, None])
        assert self.watch(job, heartbeat=1.0).interval_alone() is None

    def reading(self, job: Job, **values: Any) -> Reading:
        now = time.monotonic()
        read: dict[str, Any] = {"began": now, "ended": now, "asked": {job.id}, "jobs": {job.id: job}}
        return Reading(**read | values)

    def test_a_reading_from_before_it_began_goes_back_in_no_ones_time(self, job: Job, client: Client) -> None:
        old = self.reading(client.pause(job.id))
        watch = self.watch(client.resume(job.id))
        assert watch.look(old) is None

    def test_a_reading_that_did_not_ask_for_it_says_nothing(self, job: Job) -> None:
        assert self.watch(job).look(self.reading(job, asked=(), jobs={})) is None

    def test_patience_begins_with_the_outage_and_ends_with_an_answer(self, job: Job) -> None:
        watch, away, now = self.watch(job), UnreachableError("away"), time.monotonic()
        for began, ended in ((100.0, 100.0), (105.0, 109.9)):
            assert watch.look(self.reading(job, began=now + began, ended=now + ended, away=away)) is None
        assert watch.look(self.reading(job)) is None
        assert watch.look(self.reading(job, began=now + 111, ended=now + 111, away=away)) is None
        with pytest.raises(UnreachableError, match="away"):
            watch.look(self.reading(job, began=now + 116, ended=now + 121, away=away))

    def test_heartbeats_go_on_while_the_database_is_away(self, job: Job) -> None:
        watch = self.watch(job, heartbeat=1e-9)
        assert watch.look(self.reading(job, away=UnreachableError("away"))) == job


def test_a_reader_without_watches_reads_nothing(sqlite_site: Site) -> None:
    reader = JobReader(sqlite_site.database.engine)
    assert reader.shared.latest().jobs == {}
