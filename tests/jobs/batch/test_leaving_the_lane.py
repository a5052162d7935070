"""One member of a batch goes wrong: that job ends as if it had run by itself, and the others do not notice."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy.orm import Session

from blobferry.contract import JobState
from models import Database
from models.queries import BatchedJob
from tests.doubles import HookedStore, LaggingStore, RecordingStore, WrappedStore
from tests.jobs.batch.batch_world import BatchWorld, Told, on_each_kind
from tests.jobs.job_world import OLD, on_each_database
from tests.models.rows import take_away
from worker import drain
from worker.errors import PermissionDeniedError, SlowDownError, StoreUnavailableError, UnreachableError
from worker.jobs.outcome import Cancelled, Finished, NotClaimed, Rescheduled
from worker.stores.store import Store

pytestmark = pytest.mark.no_cover

MEMBERS = pytest.mark.parametrize("number", [0, 2], ids=["the first", "another"])


class AtKey(WrappedStore):
    """Does something right before or after the first call of a verb at one key."""

    def __init__(self, store: Store, verb: str, key: str, do: Callable[[], object], *, when: str = "before") -> None:
        super().__init__(store)
        self._at, self._do_it, self._when = (verb, key), do, when
        self._lock = threading.Lock()

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        with self._lock:
            mine = (name, args[0] if args else None) == self._at
            if mine:
                self._at = ("", "")
        if mine and self._when == "before":
            self._do_it()
        try:
            return super()._do(name, args, keywords)
        finally:
            if mine and self._when == "after":
                self._do_it()


def failing(error: Exception) -> Callable[[], object]:
    def fail() -> None:
        raise error

    return fail


def others(jobs: list[str], number: int) -> list[str]:
    return [job for position, job in enumerate(jobs) if position != number]


def outcome_of(world: BatchWorld, store: Store, jobs: list[str], number: int, **sections: Any) -> Any:
    """The outcome of one member, after a batch in which all others have succeeded at once."""
    told = world.run_batch(jobs[0], store, **sections)
    outcomes = {jobs[0]: told.first, **told.others}
    for job_id in others(jobs, number):
        found = outcomes[job_id]
        assert isinstance(found, Finished), found
        assert found.error is None
        row = world.job_row(job_id)
        assert (row.state, row.attempt, world.outcomes(job_id)) == ("succeeded", 1, ["succeeded"])
    return outcomes.get(jobs[number])


@on_each_database
@on_each_kind
@MEMBERS
@pytest.mark.parametrize("verb", ["head", "put"])
def test_a_job_whose_path_somebody_else_writes_leaves_their_blob_alone(
    verb: str, number: int, world: BatchWorld
) -> None:
    jobs, key = world.some(4), f"small/{number}"
    when = "after" if verb == "head" else "before"  # right after the look, right before the put
    store = AtKey(world.memory, verb, key, lambda: world.memory.put(key, b"theirs"), when=when)
    outcome = outcome_of(world, store, jobs, number)
    assert outcome.error.code == "superseded"
    assert world.seen_at(number) == b"theirs"
    assert world.has_ended(jobs[number], JobState.FAILED, "superseded")
    (upload,) = world.uploads(jobs[number])
    assert upload.state in ("aborting", "gone")


@on_each_kind
@MEMBERS
def test_a_certain_refusal_takes_the_point_of_no_return_back(number: int, world: BatchWorld) -> None:
    """Else a later look would call a blob with the same bytes ours, on a store that keeps no marks."""
    jobs, key = world.some(4), f"small/{number}"
    phases = []

    class Watching(WrappedStore):
        def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
            if name == "list_page":  # the ordinary run asks for whose fault it is
                phases.append(world.job_row(jobs[number]).phase)
            return super()._do(name, args, keywords)

    denied = AtKey(Watching(world.memory), "put", key, failing(PermissionDeniedError("no")))
    outcome = outcome_of(world, denied, jobs, number)
    assert outcome.error.code == "permission_denied"
    assert phases[0] == "uploading"


@on_each_database
@on_each_kind
@MEMBERS
@pytest.mark.parametrize("verb", ["head", "put"])
def test_a_job_whose_store_is_unavailable_is_retried_alone(verb: str, number: int, world: BatchWorld) -> None:
    jobs, key = world.some(4), f"small/{number}"

    class Away(WrappedStore):
        def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
            if name == verb and args[0] == key:
                raise StoreUnavailableError("503")
            return super()._do(name, args, keywords)

    outcome = outcome_of(world, Away(world.memory), jobs, number)
    assert isinstance(outcome, Rescheduled)
    row = world.job_row(jobs[number])
    assert (row.state, row.failures, row.error_code) == ("retrying", 1, "store_unavailable")
    assert world.seen_at(number) is None
    world.change(jobs[number], run_at=None)
    world.succeed_alone(jobs[number])
    assert world.outcomes(jobs[number]) == ["retrying", "succeeded"]


@on_each_kind
@MEMBERS
def test_a_put_whose_answer_is_lost_is_found_and_not_repeated(number: int, world: BatchWorld) -> None:
    jobs, key = world.some(4), f"small/{number}"
    recording = RecordingStore(world.memory)
    store = AtKey(recording, "put", key, failing(StoreUnavailableError("reset")), when="after")
    outcome = outcome_of(world, store, jobs, number)
    assert outcome.error is None
    assert len(recording.named("put")) == 4
    world.assert_done(jobs)


@on_each_kind
@MEMBERS
def test_a_store_that_asks_to_slow_down_gets_the_put_again(number: int, world: BatchWorld) -> None:
    jobs, key = world.some(4), f"small/{number}"
    store = AtKey(world.memory, "put", key, failing(SlowDownError("slow down")))
    assert outcome_of(world, store, jobs, number).error is None
    world.assert_done(jobs)


@on_each_kind
@MEMBERS
def test_a_job_that_must_not_overwrite_fails_and_the_others_do_not(number: int, world: BatchWorld) -> None:
    world.memory.put(f"small/{number}", OLD)
    jobs = world.some(4, overwrite=False)
    outcome = outcome_of(world, world.memory, jobs, number)
    assert outcome.error.code == "blob_exists"
    assert world.seen_at(number) == OLD


@on_each_kind
@MEMBERS
def test_a_job_that_must_not_overwrite_leaves_a_blob_alone_that_appears(number: int, world: BatchWorld) -> None:
    jobs, key = world.some(4, overwrite=False), f"small/{number}"
    store = AtKey(world.memory, "put", key, lambda: world.memory.put(key, b"theirs"))
    assert outcome_of(world, store, jobs, number).error.code == "blob_exists"
    assert world.seen_at(number) == b"theirs"


@on_each_database
@on_each_kind
@MEMBERS
def test_a_cancel_before_the_point_of_no_return_cancels_that_job(number: int, world: BatchWorld) -> None:
    jobs, key = world.some(4), f"small/{number}"
    store = AtKey(world.memory, "head", key, lambda: world.change(jobs[number], cancel_requested=True))
    assert outcome_of(world, store, jobs, number) == Cancelled()
    assert world.seen_at(number) is None
    assert world.has_ended(jobs[number], JobState.CANCELLED)


@on_each_kind
@MEMBERS
@pytest.mark.parametrize("verb", ["put", "head"])
def test_a_cancel_after_it_comes_too_late(verb: str, number: int, world: BatchWorld) -> None:
    jobs, key = world.some(4), f"small/{number}"

    def cancel() -> None:
        assert world.request_cancel([jobs[number]]) == 0, "refused, as the row says that it is too late"

    inner = AtKey(world.memory, "put", key, cancel, when="before" if verb == "put" else "after")
    assert outcome_of(world, inner, jobs, number).error is None
    world.assert_done(jobs)


@on_each_database
@on_each_kind
@MEMBERS
@pytest.mark.parametrize("verb", ["head", "put"])
def test_a_job_whose_lease_is_lost_is_left_to_its_new_owner(verb: str, number: int, world: BatchWorld) -> None:
    jobs, key = world.some(4), f"small/{number}"
    store = AtKey(world.memory, verb, key, lambda: take_away(world.database, jobs[number]))
    assert outcome_of(world, store, jobs, number) in (None, NotClaimed())
    row = world.job_row(jobs[number])
    assert (row.state, row.worker, row.result) == ("retrying", None, None)
    assert world.outcomes(jobs[number]) == ["died"]
    world.change(jobs[number], run_at=None)
    world.succeed_alone(jobs[number])
    assert world.seen_at(number) == f"job {number}".encode()


class LeavingDatabase(Database):
    """Out of reach for good after so many more transactions."""

    def __init__(self, database: Database) -> None:
        super().__init__(database.engine.url.render_as_string(hide_password=False))
        self.left = 1000

    @contextmanager
    def begin(self) -> Iterator[Session]:
        self.left -= 1
        if self.left < 0:
            raise UnreachableError("away")
        with super().begin() as session:
            yield session


@on_each_kind
@pytest.mark.parametrize("transactions", [0, 1, 2])
def test_a_batch_whose_database_stays_away_is_left_to_later_runs(
    transactions: int, kind: str, world: BatchWorld
) -> None:
    """It ends without an error, since Celery must not be told of a failure, wherever in the batch that is."""
    world.memory.put("small/1", OLD)
    jobs = [world.small(number, overwrite=number == 0) for number in range(2)]
    jobs.append(world.small(2, bytes(25)))  # too large
    database = LeavingDatabase(world.database)

    class Leaving(Told):
        def claimed(self, jobs: Sequence[BatchedJob]) -> None:
            super().claimed(jobs)
            database.left = transactions

    told = Leaving()
    lease = {"seconds": 3, "heartbeat_seconds": 1, "margin_seconds": 1.5}
    with world.worker(database=database, lease=lease) as runtime:
        outcome = world.deliver(runtime, jobs[0], told)
    database.close()
    assert isinstance(outcome, NotClaimed | Finished)
    assert told.others == {}
    for number in (0, 2):
        world.expire_lease(jobs[number])
        world.succeed_alone(jobs[number])
    assert (world.seen_at(0), world.seen_at(2)) == (b"job 0", bytes(25))


@on_each_kind
@MEMBERS
def test_a_job_that_stat_does_not_show_yet_is_polled_alone(number: int, world: BatchWorld) -> None:
    jobs, key = world.some(4), f"small/{number}"
    lagging = LaggingStore(world.memory, looks=3)

    class LagsThere(WrappedStore):
        def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
            store = lagging if args and args[0] == key else world.memory
            return getattr(store, name)(*args, **keywords)

    outcome = outcome_of(world, LagsThere(world.memory), jobs, number)
    assert isinstance(outcome, Rescheduled)
    row = world.job_row(jobs[number])
    assert (row.state, row.phase, row.polls) == ("verifying", "verifying", 1)
    (upload,) = world.uploads(jobs[number])
    assert upload.state == "completed"
    lagging.looks_left = 0
    world.change(jobs[number], run_at=None)
    world.succeed_alone(jobs[number])
    world.assert_done(jobs)


@on_each_kind
def test_a_draining_worker_hands_over_what_it_has_not_begun_to_put(world: BatchWorld) -> None:
    jobs = world.some(4)
    store = HookedStore(world.memory, before=lambda verb: drain.start())
    told = world.run_batch(jobs[0], store)
    assert isinstance(told.first, Rescheduled)
    assert world.states(jobs) == ["queued"] * 4
    assert [world.seen_at(number) for number in range(4)] == [None] * 4
    for job_id in jobs:
        world.succeed_alone(job_id)
    world.assert_done(jobs)


def test_contents_that_take_several_parts_are_left_to_an_ordinary_run(world: BatchWorld) -> None:
    jobs = [*world.some(2), world.small(2, contents=bytes(25))]
    told = world.run_batch(jobs[0])
    assert set(told.others) == set(jobs[1:])
    assert world.states(jobs) == ["succeeded"] * 3
    assert world.seen_at(2) == bytes(25)
    (upload,) = world.uploads(jobs[2])
    assert upload.part_size is not None


class Labelling(WrappedStore):
    """A store that shows one blob with an ETag that no column takes."""

    def __init__(self, store: Store, key: str) -> None:
        super().__init__(store)
        self._key = key

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        found = super()._do(name, args, keywords)
        return replace(found, etag=f"{found.etag}\0") if (name, *args) == ("head", self._key) else found


@MEMBERS
@pytest.mark.parametrize("world_database", ["postgres"], indirect=True)  # SQLite refuses nothing
def test_what_the_database_refuses_of_one_job_concerns_it_alone(number: int, world: BatchWorld) -> None:
    world.memory.put(f"small/{number}", OLD)
    jobs = world.some(4)
    told = world.run_batch(jobs[0], Labelling(world.memory, f"small/{number}"), retry={"max_attempts": 1})
    others = [job_id for job_id in jobs if job_id != jobs[number]]
    assert world.states(others) == ["succeeded"] * 3
    assert world.has_ended(jobs[number], JobState.FAILED, "unexpected")
    assert [world.outcomes(job_id) for job_id in others] == [["succeeded"]] * 3, "no worker has died"
    assert {*told.others} == {*jobs[1:]}
    assert world.seen_at(number) == OLD
