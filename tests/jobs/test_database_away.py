"""The database goes away for a moment, at every transaction of a run: before it, or right after its COMMIT.

In the second case the run cannot know whether its COMMIT worked. Either way the same run goes on, and what it leaves in
rows and store is what it leaves when nothing happens.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from models import Database
from tests.doubles import FaultyStore, When, blob, do_not_wait_for_the_disk, tiny_store, unfinished
from tests.jobs.job_world import KEY, OLD, PATH, QUICK, World, on_each_database
from tests.models.rows import claim, submit
from worker.errors import LeaseLostError, StoreUnavailableError, UnreachableError
from worker.jobs.lease import Lease, lease_clock
from worker.jobs.outcome import Cancelled, Finished, NotClaimed, Outcome, Rescheduled
from worker.jobs.runner import run_job
from worker.maintenance.caretaker import Swept
from worker.settings import LeaseSettings
from worker.stores.store import Store

pytestmark = pytest.mark.no_cover

PATIENT = {"seconds": 30, "heartbeat_seconds": 0.05, "margin_seconds": 1}


class AwayDatabase(Database):
    """Away at the ``away_at``-th transaction of the run's own thread, and at so many that follow."""

    def __init__(self, url: str, away_at: int, when: When, *, times: int = 1) -> None:
        super().__init__(url)
        if self.engine.dialect.name == "sqlite":
            event.listen(self.engine, "connect", do_not_wait_for_the_disk)
        self.transactions = 0
        self._away = range(away_at, away_at + times)
        self._when = when

    def go_away_next(self) -> None:
        """At the next transaction."""
        self._away = range(self.transactions + 1, self.transactions + 2)

    @contextmanager
    def begin(self) -> Iterator[Session]:
        if threading.current_thread().name == "heartbeat":  # which comes when it comes
            with super().begin() as session:
                yield session
            return
        self.transactions += 1
        is_away = self.transactions in self._away
        if is_away and self._when == "before":
            raise UnreachableError("database: connection refused")
        with super().begin() as session:
            yield session
        if is_away:
            raise UnreachableError("database: the connection was lost in the middle of COMMIT")


def run(world: World, job_id: str, away_at: int, when: When, store: Any = None) -> tuple[Outcome, int]:
    """How a run ended, and after how many transactions."""
    database = AwayDatabase(str(world.database.engine.url), away_at, when)
    try:
        with world.worker(store, database=database, lease=PATIENT) as runtime:
            outcome = run_job(runtime, job_id, publish_seq=world.job_row(job_id).publish_seq)
    finally:
        database.close()
    return outcome, database.transactions


def run_with_a_lost_claim(world: World, job_id: str) -> None:
    """How the run of a message ended that has lost the answer to the COMMIT of its claim."""
    url = world.database.engine.url.render_as_string(hide_password=False)
    database = AwayDatabase(url, 0, "after")
    try:
        with world.worker(database=database, lease=PATIENT) as runtime:
            runtime.share_capabilities()  # once in the life of a child, and before its first claim
            database.go_away_next()
            outcome = run_job(runtime, job_id, publish_seq=world.job_row(job_id).publish_seq)
    finally:
        database.close()
    assert isinstance(outcome, Finished)
    assert outcome.error is None


def facts(world: World, job_id: str) -> dict[str, Any]:
    """What a job has left behind."""
    row = world.job_row(job_id)
    columns = ("state", "phase", "attempt", "failures", "crashes", "restarts", "polls", "bytes_done", "bytes_sent")
    return {
        **{name: getattr(row, name) for name in columns},
        "attempts": [(each.outcome, each.bytes_sent) for each in world.attempts(job_id)],
        "uploads": [
            (upload.state, [(part.part_number, part.size) for part in world.part_rows(upload.id)])
            for upload in world.uploads(job_id)
        ],
        "unfinished": unfinished(world.memory),
        "blob": blob(world.memory, KEY),
    }


@pytest.fixture
def size() -> int:
    return 25


def write(world: World) -> str:
    return world.submit()


def move(world: World) -> str:
    world.memory.put("incoming/7", world.data)
    return world.ask("move", source_path="/incoming/7", dest_path=PATH)


def delete(world: World) -> str:
    return world.ask("delete", path=PATH)


def read(world: World) -> str:
    return world.ask("read_stream", path=PATH, dest=(world.file.parent / "out").as_uri(), overwrite=True)


@pytest.mark.parametrize(
    ("ask", "when"), [(write, "before"), (write, "after"), (move, "after"), (delete, "after"), (read, "after")]
)
def test_a_run_goes_on_whatever_answer_of_the_database_it_loses(
    world: World, ask: Callable[[World], str], when: When
) -> None:
    expected: dict[str, Any] = {}
    for away_at in count():  # at 0 nothing happens: that run is the pattern
        world.memory = tiny_store()
        world.memory.put(KEY, OLD)
        job_id = ask(world)
        outcome, transactions = run(world, job_id, away_at, when)
        assert isinstance(outcome, Finished), (away_at, outcome)
        assert outcome.error is None
        found = facts(world, job_id)
        expected = expected or found
        assert found == expected, f"transaction {away_at}"
        if transactions < away_at:
            break
    assert away_at > 3


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("wishes", "state", "outcome"),
    [
        ({}, "retrying", "retrying"),
        ({"cancel_requested": True}, "cancelled", "cancelled"),
        ({"pause_requested": True}, "paused", None),
    ],
    ids=["retry", "cancel", "pause"],
)
def test_a_run_that_gives_its_job_back_does_so_once(
    world: World, wishes: dict[str, Any], state: str, outcome: str | None, when: When
) -> None:
    for away_at in count():
        world.memory = tiny_store()
        job_id = world.submit(arguments={"path": f"/videos/{away_at}"})
        store: Store = FaultyStore(world.memory, "upload_part", fail_at=3, times=9, error=StoreUnavailableError)
        if wishes:  # heard with the first write after the claim
            store = world.requesting(job_id, "upload_part", is_noticed=False, **wishes)
        ended, transactions = run(world, job_id, away_at, when, store)
        assert isinstance(ended, Cancelled if state == "cancelled" else Rescheduled), (away_at, ended)
        row = world.job_row(job_id)
        assert (row.state, row.attempt, row.crashes, row.lease_expires_at) == (state, 1, 0, None), away_at
        (attempt,) = world.attempts(job_id)
        assert (attempt.outcome, attempt.bytes_sent) == (outcome, row.bytes_sent)
        listed = {upload.upload_id for upload in world.uploads(job_id) if upload.state in ("open", "aborting")}
        assert listed.issuperset(unfinished(world.memory)), "what is open is in the ledger"
        if transactions < away_at:
            break


def test_a_database_that_stays_away_ends_the_run_before_its_lease(sqlite_database: Database) -> None:
    job = claim(sqlite_database, submit(sqlite_database))
    away = AwayDatabase(str(sqlite_database.engine.url), 1, "before", times=10_000)
    settings = LeaseSettings(seconds=2, heartbeat_seconds=0.05, margin_seconds=1.9)
    lease = Lease(away, job, settings, taken_at=lease_clock())
    with pytest.raises(LeaseLostError, match="the lease was renewed"):
        lease.write(lambda session: None, bytes_done=7)
    with pytest.raises(LeaseLostError, match="the lease was renewed"):
        lease.end(lambda session: None)
    assert away.transactions > 1, "it was tried again"
    away.close()


def test_a_claim_whose_answer_was_lost_is_found_again_and_not_taken_twice(world: World) -> None:
    job_id = world.submit()
    run_with_a_lost_claim(world, job_id)
    row = world.job_row(job_id)
    assert (row.attempt, row.publish_seq, row.crashes) == (1, 1, 0)


@on_each_database
def test_a_claim_of_a_batch_whose_answer_was_lost_gives_the_other_jobs_back(world: World) -> None:
    """The run that repeats the claim does not know which jobs the first one took. Their leases need not run out."""
    theirs = world.ask("put_content", path="/small/theirs", contents=b"x")
    assert world.try_claim(theirs, publish_seq=0, worker="somebody:1") is not None
    jobs = [world.ask("put_content", path=f"/small/{number}", contents=b"x") for number in range(4)]
    run_with_a_lost_claim(world, jobs[1])
    others = [world.job_row(job_id) for job_id in jobs if job_id != jobs[1]]
    assert {(row.state, row.publish_seq) for row in others} == {("queued", 1)}, "they were claimed, and given back"
    assert {(row.worker, row.lease_expires_at, row.published_at) for row in others} == {(None, None, None)}
    assert world.job_row(theirs).worker == "somebody:1"
    assert world.sweep() == Swept(published=3), "no lease has to run out first"
    for row in others:
        world.succeed(row.id)
    for job_id in jobs:
        row = world.job_row(job_id)
        assert (row.state, row.attempt, row.failures, row.crashes) == ("succeeded", 1, 0, 0)
        assert [each.outcome for each in world.attempts(job_id)] == ["succeeded"]


def test_a_claim_that_is_repeated_takes_nothing_from_another_worker(world: World) -> None:
    job_id = world.submit()
    assert world.try_claim(job_id, publish_seq=0, worker="somebody:1") is not None
    with world.worker(lease=QUICK) as runtime:
        assert isinstance(run_job(runtime, job_id, publish_seq=0), NotClaimed)
        assert isinstance(run_job(runtime, job_id, publish_seq=1), NotClaimed)
    assert world.job_row(job_id).worker == "somebody:1"
