"""The lease: kept by a heartbeat, lost to another owner, and not trusted near its end."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from sqlalchemy.orm import Session

from dev.services import wait_until
from models import ClaimedJob, Database
from tests.models.rows import ago, change, claim, expire_lease, job_row, submit, try_claim
from worker.errors import LeaseLostError, UnreachableError
from worker.jobs.heartbeat import PROCESS_HEARTBEAT
from worker.jobs.lease import Lease, lease_clock
from worker.settings import LeaseSettings


class FlakyDatabase:
    """The database, while it can be reached."""

    def __init__(self, database: Database) -> None:
        self.away = False
        self.asked = threading.Event()
        self._database = database

    @contextmanager
    def begin(self) -> Iterator[Session]:
        self.asked.set()
        if self.away:
            raise UnreachableError("database: away")
        with self._database.begin() as session:
            yield session


@pytest.fixture
def job(sqlite_database: Database) -> ClaimedJob:
    return claim(sqlite_database, submit(sqlite_database))


def lease(database: Any, job: ClaimedJob, *, age: float = 0.0, **settings: float) -> Lease:
    values = {"seconds": 30, "heartbeat_seconds": 0.02, "margin_seconds": 5} | settings
    return Lease(database, job, LeaseSettings(**values), taken_at=lease_clock() - age)


def expiry(database: Database, job: ClaimedJob) -> Any:
    return job_row(database, job.id).lease_expires_at


def lost(lease: Lease) -> bool:
    try:
        lease.check()
    except LeaseLostError:
        return True
    return False


def test_the_heartbeat_renews_the_lease(sqlite_database: Database, job: ClaimedJob) -> None:
    change(sqlite_database, job.id, lease_expires_at=ago(-1))
    before = expiry(sqlite_database, job)
    with lease(sqlite_database, job) as held:
        wait_until(lambda: (expiry(sqlite_database, job) - before).total_seconds() > 20, 5, "the lease is renewed")
        held.check()


def test_the_heartbeat_ends_with_its_run(sqlite_database: Database, job: ClaimedJob) -> None:
    with lease(sqlite_database, job) as held:
        assert held in PROCESS_HEARTBEAT._due
    assert held not in PROCESS_HEARTBEAT._due
    change(sqlite_database, job.id, lease_expires_at=ago(-1))
    before = expiry(sqlite_database, job)
    with lease(sqlite_database, claim(sqlite_database, submit(sqlite_database))) as other:
        wait_until(lambda: other._renewed_at > held._renewed_at, 5, "the heartbeat renews another one")
    assert expiry(sqlite_database, job) == before


def test_the_runs_of_a_process_share_one_thread(sqlite_database: Database) -> None:
    jobs = [claim(sqlite_database, submit(sqlite_database)) for _ in range(3)]
    for job in jobs:
        change(sqlite_database, job.id, lease_expires_at=ago(-1))
    with ExitStack() as leases:
        for job in jobs:
            leases.enter_context(lease(sqlite_database, job))
        for job in jobs:
            before = expiry(sqlite_database, job)
            wait_until(lambda: expiry(sqlite_database, job) > before, 5, "its lease is renewed")  # noqa: B023
        assert [thread.name for thread in threading.enumerate()].count("heartbeat") == 1


def test_a_lease_whose_renewal_fails_oddly_costs_the_others_nothing(sqlite_database: Database, job: ClaimedJob) -> None:
    class Odd:
        """A lease that cannot be renewed."""

        beats = 0

        def beat(self) -> float:
            self.beats += 1
            raise ValueError("odd")

    odd = Odd()
    PROCESS_HEARTBEAT.keep(odd, 0)
    wait_until(lambda: odd.beats > 0, 5, "it is asked")
    change(sqlite_database, job.id, lease_expires_at=ago(-1))
    before = expiry(sqlite_database, job)
    with lease(sqlite_database, job):
        wait_until(lambda: expiry(sqlite_database, job) > before, 5, "the lease is renewed")
    PROCESS_HEARTBEAT.drop(odd)


def test_the_heartbeat_brings_back_cancel_and_pause(sqlite_database: Database, job: ClaimedJob) -> None:
    with lease(sqlite_database, job) as held:
        assert held.requests == (False, False, False)
        change(sqlite_database, job.id, cancel_requested=True)
        wait_until(lambda: held.requests.cancel, 5, "the cancel is seen")
        change(sqlite_database, job.id, pause_requested=True)
        wait_until(lambda: held.requests.pause, 5, "the pause is seen")


def test_a_heartbeat_that_is_hurried_comes_long_before_it_is_due(sqlite_database: Database, job: ClaimedJob) -> None:
    with lease(sqlite_database, job, heartbeat_seconds=20) as held:
        change(sqlite_database, job.id, cancel_requested=True)
        held.hurry()
        wait_until(lambda: held.requests.cancel, 15, "the cancel is seen")


def test_a_wish_that_was_there_at_the_claim_is_seen_at_once(sqlite_database: Database) -> None:
    job_id = submit(sqlite_database)
    change(sqlite_database, job_id, cancel_requested=True, phase="completing")
    assert lease(sqlite_database, claim(sqlite_database, job_id)).requests.cancel


def test_a_lease_is_lost_once_another_run_has_the_job(sqlite_database: Database, job: ClaimedJob) -> None:
    with lease(sqlite_database, job) as held:
        held.check()
        # A heartbeat may renew it in between, and then it expires once more.
        wait_until(lambda: _is_taken_by_another(sqlite_database, job), 30, "another run has the job")
        taken = expiry(sqlite_database, job)
        wait_until(lambda: lost(held), 30, "the loss is seen")
        wait_until(lambda: held not in PROCESS_HEARTBEAT._due, 30, "it is renewed no more")
        assert expiry(sqlite_database, job) == taken  # the other one's lease is not touched


def _is_taken_by_another(database: Database, job: ClaimedJob) -> bool:
    expire_lease(database, job.id)
    return try_claim(database, job.id, worker="host:2") is not None


@pytest.mark.parametrize(("age", "is_lost"), [(0, False), (24, False), (25.5, True), (1000, True)])
def test_a_lease_that_was_not_renewed_is_not_trusted_near_its_end(
    age: float, is_lost: bool, sqlite_database: Database, job: ClaimedJob
) -> None:
    """The machine was suspended, or the database was away; nothing new is begun then."""
    assert lost(lease(sqlite_database, job, age=age)) == is_lost


def test_a_database_that_is_away_costs_the_lease_only_near_its_end(sqlite_database: Database, job: ClaimedJob) -> None:
    flaky = FlakyDatabase(sqlite_database)
    flaky.away = True
    with lease(flaky, job, seconds=2, margin_seconds=1.5) as held:
        assert flaky.asked.wait(5)
        held.check()
        wait_until(lambda: lost(held), 5, "the lease is not trusted any more")
        flaky.away = False
        wait_until(lambda: not lost(held), 5, "the late heartbeat got through")  # the token decides


def test_the_clock_of_a_lease_only_goes_forward() -> None:
    first = lease_clock()
    assert lease_clock() >= first


SUSPENDED = 5 * 3600


def test_the_clock_of_a_lease_counts_while_the_machine_is_suspended() -> None:
    """In a namespace of its own, whose machine has been suspended for hours."""
    asks = "import time; from worker.jobs.lease import lease_clock; print(lease_clock() - time.monotonic())"
    unshare = ["unshare", "--time", "--boottime", str(SUSPENDED)]
    environment = {"PATH": os.environ["PATH"], "BLOBFERRY_DATABASE_URL": "sqlite://"}
    try:
        subprocess.run([*unshare, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no namespace of time is to be had here")
    asked = subprocess.run([*unshare, sys.executable, "-c", asks], env=environment, capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr
    assert float(asked.stdout) >= SUSPENDED - 1
