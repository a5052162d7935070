"""delete as a job: a path and all under it, in batches, whoever dies; and no key that came after its first claim."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from blobferry.contract import JobState
from models import Database
from tests.doubles import DeathError, FaultyStore, HookedStore, RecordingStore, WrappedStore, blob
from tests.jobs.job_world import QUICK, World, due, has_ended, heartbeat_gives_up, requesting
from tests.models.rows import ago, attempts, change, claim, expire_lease, job_row, outcomes, take_away, uploads
from worker import drain
from worker.errors import PermissionDeniedError
from worker.jobs.outcome import Cancelled, Finished, NotClaimed, Rescheduled
from worker.stores.blob_values import DeleteFailure, Limits, Page
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.store import Store

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
BATCH = 3
PAGE = 4


class PagedStore(MemoryStore):
    """Lists few keys at once."""

    def list_page(self, prefix: str, *, delimiter: str = "", token: str | None = None, limit: int = PAGE) -> Page:
        return super().list_page(prefix, delimiter=delimiter, token=token, limit=limit)


class Deleting(World):
    """A world with a path, eight keys under it, its siblings, and a store whose clock is the test's."""

    def __init__(self, database: Database, directory: Path) -> None:
        super().__init__(database, directory)
        self.now = NOON - MINUTE
        self.memory: MemoryStore = PagedStore(now=lambda: self.now, limits=Limits(min_part_size=1, max_delete=BATCH))
        self.tree = ["a/b", *(f"a/b/{number}" for number in range(8))]
        self.siblings = ["a", "a/b-1", "a/b.txt", "a/b2", "a/c/b/1"]
        self.put(*self.tree, *self.siblings)
        self.now = NOON

    def put(self, *keys: str) -> None:
        for key in keys:
            self.memory.put(key, b"x")

    def delete(self, path: str = "/a/b") -> str:
        return self.ask("delete", path=path)

    def keys(self) -> list[str]:
        return sorted(self.memory._index.blobs)

    def left(self) -> list[str]:
        """What is left at the path and under it. The siblings have to be there always."""
        assert set(self.siblings) <= set(self.keys())
        return sorted(set(self.keys()) - set(self.siblings))


@pytest.fixture
def world(sqlite_database: Database, tmp_path: Path) -> Deleting:
    return Deleting(sqlite_database, tmp_path)


def died_at_batch(world: Deleting, job_id: str, number: int, when: Any = "after") -> None:
    """A run whose worker dies at its n-th batch, and whose lease runs out."""
    with pytest.raises(DeathError):
        world.run(job_id, FaultyStore(world.memory, "delete_batch", fail_at=number, when=when, error=DeathError))
    expire_lease(world.database, job_id)


def batches(recording: RecordingStore) -> list[Sequence[str]]:
    return [call.args[0] for call in recording.named("delete_batch")]


# --- it works --------------------------------------------------------------------------------------------------------


def test_a_path_and_all_under_it_go_in_batches_and_no_sibling(database: Database, tmp_path: Path) -> None:
    world = Deleting(database, tmp_path)
    job_id, recording = world.delete(), RecordingStore(world.memory)
    outcome = world.run(job_id, recording)
    assert isinstance(outcome, Finished)
    assert outcome.error is None
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert world.left() == []
    assert [len(batch) for batch in batches(recording)] == [3, 3, 3]
    row = job_row(database, job_id)
    assert outcome.result == row.result == {"path": "/a/b"}
    assert (row.deleted_any, row.bytes_done, row.bytes_sent, row.attempt) == (True, 0, 0, 1)
    assert [(attempt.outcome, attempt.bytes_sent) for attempt in attempts(database, job_id)] == [("succeeded", 0)]
    assert uploads(database, job_id) == []


def test_one_blob_without_anything_under_it_goes(world: Deleting) -> None:
    world.put("z")
    job_id, recording = world.delete("/z"), RecordingStore(world.memory)
    world.run(job_id, recording)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert world.left() == world.tree
    assert batches(recording) == [["z"]]


@pytest.mark.parametrize("key", ["z/", "z/y/x"])
def test_a_directory_without_a_blob_of_its_name_goes_with_its_marker(key: str, world: Deleting) -> None:
    world.put(key)
    job_id = world.delete("/z")
    world.run(job_id)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert world.left() == world.tree


def test_nothing_there_fails_the_job_and_nothing_is_deleted(world: Deleting) -> None:
    job_id, recording = world.delete("/nothing"), RecordingStore(world.memory)
    outcome = world.run(job_id, recording)
    assert isinstance(outcome, Finished)
    assert outcome.error is not None
    assert outcome.error.args[0] == "/nothing"
    assert has_ended(world, job_id, JobState.FAILED, "path_not_found")
    assert batches(recording) == []


# --- what came later -------------------------------------------------------------------------------------------------


def test_the_cutoff_is_the_stores_time_at_the_first_claim_and_stays(database: Database, tmp_path: Path) -> None:
    world = Deleting(database, tmp_path)
    job_id = world.delete()
    died_at_batch(world, job_id, 1)
    row = job_row(database, job_id)
    assert (row.phase, row.deleted_any) == ("deleting", True)
    assert row.cutoff is not None
    assert row.cutoff == NOON
    world.now += MINUTE
    world.put("a/b/new")
    world.run(job_id)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert job_row(database, job_id).cutoff == row.cutoff


@pytest.mark.parametrize("newer", [["a/b/new"], ["a/b/3"], ["a/b"], ["a/b", "a/b/0", "a/b/7", "a/b/new"]])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_keys_written_after_the_first_claim_survive_a_delete_that_is_resumed(
    batch: int, newer: list[str], world: Deleting
) -> None:
    job_id = world.delete()
    died_at_batch(world, job_id, batch, "before")
    world.now += MINUTE
    world.put(*newer)
    outcome = world.run(job_id)
    assert isinstance(outcome, Finished)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert world.left() == sorted(newer)
    assert outcomes(world.database, job_id) == ["died", "succeeded"]


def test_keys_written_while_the_first_run_lists_survive(world: Deleting) -> None:
    def write(verb: str) -> None:
        if verb == "delete_batch" and world.now == NOON:
            world.now += MINUTE
            world.put("a/b/9", "a/b/6")  # on a page that is still to be listed

    job_id = world.delete()
    world.run(job_id, HookedStore(world.memory, before=write))
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert world.left() == ["a/b/6", "a/b/9"]


def test_a_death_before_the_cutoff_is_known_leaves_it_to_the_next_run(world: Deleting) -> None:
    job_id = world.delete()
    with pytest.raises(DeathError):
        world.run(job_id, FaultyStore(world.memory, "list_page", when="after", error=DeathError))
    expire_lease(world.database, job_id)
    assert job_row(world.database, job_id).cutoff is None
    world.now += MINUTE
    world.run(job_id)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert world.left() == []


# --- resumed ---------------------------------------------------------------------------------------------------------


def test_a_second_run_that_finds_nothing_succeeds_if_the_first_one_had_found_something(
    database: Database, tmp_path: Path
) -> None:
    world = Deleting(database, tmp_path)
    job_id = world.delete()
    died_at_batch(world, job_id, 3)
    assert world.left() == []
    recording = RecordingStore(world.memory)
    world.run(job_id, recording)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert batches(recording) == []


def test_what_somebody_else_deletes_before_the_first_batch_is_no_error(world: Deleting) -> None:
    job_id = world.delete()
    died_at_batch(world, job_id, 1, "before")
    for key in world.tree:
        world.memory.delete_batch([key])
    world.run(job_id)
    assert has_ended(world, job_id, JobState.SUCCEEDED)


def test_a_second_run_asks_only_for_what_is_left(world: Deleting) -> None:
    job_id = world.delete()
    died_at_batch(world, job_id, 2)
    recording = RecordingStore(world.memory)
    world.run(job_id, recording)
    assert batches(recording) == [["a/b/5", "a/b/6", "a/b/7"]]


def test_a_store_that_is_away_in_the_middle_is_tried_again_later(world: Deleting) -> None:
    job_id = world.delete()
    assert isinstance(world.run(job_id, FaultyStore(world.memory, "delete_batch", fail_at=2)), Rescheduled)
    row = job_row(world.database, job_id)
    assert (row.state, row.phase, row.error_code) == ("retrying", "deleting", "store_unavailable")
    due(world, job_id)
    world.run(job_id)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert world.left() == []


class DeafStore(WrappedStore):
    """Says that it has deleted, and has not."""

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        return [] if name == "delete_batch" else super()._do(name, args, keywords)


def test_a_blob_that_stat_still_shows_is_looked_at_until_it_is_gone(world: Deleting) -> None:
    job_id = world.delete()
    for _ in range(2):
        assert isinstance(world.run(job_id, DeafStore(world.memory)), Rescheduled)
        assert job_row(world.database, job_id).state == "verifying"
        due(world, job_id)
    world.memory.delete_batch(["a/b"])  # it takes effect
    world.run(job_id)
    assert has_ended(world, job_id, JobState.SUCCEEDED)


def test_a_blob_that_stat_shows_for_ever_never_gets_a_success(world: Deleting) -> None:
    job_id = world.delete()
    assert isinstance(world.run(job_id, DeafStore(world.memory)), Rescheduled)
    change(world.database, job_id, verify_until=ago(1), run_at=ago(1))
    assert isinstance(world.run(job_id, DeafStore(world.memory)), Finished)
    assert has_ended(world, job_id, JobState.FAILED, "verification_failed")


# --- keys that will not go -------------------------------------------------------------------------------------------


class StubbornStore(WrappedStore):
    """Some keys will not go."""

    def __init__(self, store: Store, code: Callable[[str], str | None]) -> None:
        super().__init__(store)
        self._code = code

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if name != "delete_batch":
            return super()._do(name, args, keywords)
        codes = {key: self._code(key) for key in args[0]}
        super()._do(name, ([key for key, code in codes.items() if code is None],), keywords)
        return [DeleteFailure(key, code, "no") for key, code in codes.items() if code]


def test_keys_that_must_not_be_deleted_fail_the_job_by_name_after_all_else_is_gone(world: Deleting) -> None:
    kept = ["a/b", "a/b/5"]
    job_id = world.delete()
    outcome = world.run(job_id, StubbornStore(world.memory, lambda key: "AccessDenied" if key in kept else None))
    assert isinstance(outcome, Finished)
    assert has_ended(world, job_id, JobState.FAILED, "delete_incomplete")
    message = str(job_row(world.database, job_id).error_message)
    assert "/a/b (AccessDenied), /a/b/5 (AccessDenied)" in message
    assert world.left() == kept


@pytest.mark.parametrize("code", ["InternalError", "SlowDown", "ServiceUnavailable"])
def test_keys_that_could_not_be_deleted_now_are_tried_again(code: str, world: Deleting) -> None:
    job_id = world.delete()
    assert isinstance(
        world.run(job_id, StubbornStore(world.memory, lambda key: code if key == "a/b/5" else None)), Rescheduled
    )
    row = job_row(world.database, job_id)
    assert (row.state, row.error_code) == ("retrying", "delete_incomplete")
    assert world.left() == ["a/b/5"]
    due(world, job_id)
    world.run(job_id)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert world.left() == []


def test_one_key_that_may_yet_go_is_worth_another_try_and_then_the_others_are_named(world: Deleting) -> None:
    codes = {"a/b/1": "AccessDenied", "a/b/2": "SlowDown"}
    job_id = world.delete()
    assert isinstance(world.run(job_id, StubbornStore(world.memory, codes.get)), Rescheduled)
    due(world, job_id)
    del codes["a/b/2"]
    assert isinstance(world.run(job_id, StubbornStore(world.memory, codes.get)), Finished)
    assert has_ended(world, job_id, JobState.FAILED, "delete_incomplete")
    assert world.left() == ["a/b/1"]


def test_keys_that_never_go_are_given_up_after_so_many_runs_that_deleted_nothing(world: Deleting) -> None:
    job_id = world.delete()
    slow = StubbornStore(world.memory, lambda key: "SlowDown" if key >= "a/b/6" else None)
    assert isinstance(world.run(job_id, slow, retry={"max_attempts": 2}), Rescheduled)
    assert job_row(world.database, job_id).failures == 1
    due(world, job_id)
    assert isinstance(world.run(job_id, slow, retry={"max_attempts": 2}), Finished)
    assert has_ended(world, job_id, JobState.FAILED, "delete_incomplete")
    assert world.left() == ["a/b/6", "a/b/7"]


def test_a_store_that_allows_no_delete_at_all_fails_the_job_at_once(world: Deleting) -> None:
    denied = FaultyStore(world.memory, "delete_batch", times=9, error=lambda: PermissionDeniedError("no"))
    job_id = world.delete()
    world.run(job_id, denied)
    assert has_ended(world, job_id, JobState.FAILED, "permission_denied")
    assert world.left() == world.tree


# --- wishes, drain, a lost lease -------------------------------------------------------------------------------------


def test_a_cancel_stops_a_delete_between_two_batches(world: Deleting) -> None:
    job_id = world.delete()
    assert world.run(job_id, requesting(world, job_id, "delete_batch"), lease=QUICK) == Cancelled()
    assert has_ended(world, job_id, JobState.CANCELLED)
    assert world.left() == world.tree[3:]
    assert outcomes(world.database, job_id) == ["cancelled"]


def test_a_cancel_before_the_first_batch_deletes_nothing(world: Deleting) -> None:
    job_id = world.delete()
    assert world.run(job_id, requesting(world, job_id, "list_page"), lease=QUICK) == Cancelled()
    assert has_ended(world, job_id, JobState.CANCELLED)
    assert world.left() == world.tree


def test_a_cancelled_delete_of_a_dead_worker_deletes_nothing_more(world: Deleting) -> None:
    job_id = world.delete()
    died_at_batch(world, job_id, 1)
    change(world.database, job_id, cancel_requested=True)
    assert world.run(job_id) == NotClaimed()
    assert world.left() == world.tree[3:]


def test_a_paused_delete_goes_on_where_it_was_and_spares_what_came_meanwhile(
    database: Database, tmp_path: Path
) -> None:
    world = Deleting(database, tmp_path)
    job_id = world.delete()
    assert isinstance(
        world.run(job_id, requesting(world, job_id, "delete_batch", pause_requested=True), lease=QUICK), Rescheduled
    )
    row = job_row(database, job_id)
    assert (row.state, row.phase, row.attempt) == ("paused", "deleting", 1)
    assert world.left() == world.tree[3:]
    world.now += MINUTE
    world.put("a/b/4", "a/b/8")
    change(database, job_id, state="queued", pause_requested=False)
    world.run(job_id)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert world.left() == ["a/b/4", "a/b/8"]
    assert outcomes(database, job_id) == ["succeeded"]


def test_a_draining_worker_hands_a_delete_over_between_two_batches(world: Deleting) -> None:
    job_id = world.delete()
    try:
        stop = HookedStore(world.memory, before=lambda verb: drain.start() if verb == "delete_batch" else None)
        assert isinstance(world.run(job_id, stop), Rescheduled)
    finally:
        drain._flag[0] = 0
    assert (job_row(world.database, job_id).state, world.left()) == ("queued", world.tree[3:])
    world.run(job_id)
    assert has_ended(world, job_id, JobState.SUCCEEDED)


@pytest.mark.parametrize("verb", ["head", "list_page"])
def test_a_delete_that_was_taken_over_before_it_began_deletes_nothing(verb: str, world: Deleting) -> None:
    job_id = world.delete()
    rows: list[Any] = []

    def take_over(called: str) -> None:
        if called == verb and not rows:
            expire_lease(world.database, job_id)
            claim(world.database, job_id, worker="host:2")
            rows.append(job_row(world.database, job_id).as_row())

    assert world.run(job_id, HookedStore(world.memory, before=take_over)) == NotClaimed()
    assert job_row(world.database, job_id).as_row() == rows[0]
    assert world.left() == world.tree


def test_a_delete_that_was_taken_over_in_the_middle_begins_no_further_batch(world: Deleting) -> None:
    """It slept after its first batch; meanwhile another worker ended the job, and somebody wrote the next files."""
    job_id = world.delete()
    others: list[Any] = []

    def sleep(verb: str) -> None:
        if verb == "delete_batch" and not others:
            take_away(world.database, job_id)
            others.append(world.run(job_id))
            world.now += MINUTE
            world.put(*world.tree)
            heartbeat_gives_up()

    assert world.run(job_id, HookedStore(world.memory, after=sleep), lease=QUICK) == NotClaimed()
    assert isinstance(others[0], Finished)
    assert world.left() == world.tree
    assert has_ended(world, job_id, JobState.SUCCEEDED)


def test_a_key_that_was_there_before_is_gone_though_the_blob_itself_came_back(world: Deleting) -> None:
    job_id = world.delete()
    died_at_batch(world, job_id, 1)
    world.now += MINUTE
    world.put("a/b")
    world.run(job_id)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert (world.left(), blob(world.memory, "a/b")) == (["a/b"], b"x")


@pytest.fixture
def plain_world(sqlite_database: Database, tmp_path: Path) -> World:
    return World(sqlite_database, tmp_path)


def test_a_delete_spares_what_was_written_after_its_first_look(plain_world: World) -> None:
    now = [datetime(2026, 5, 1, 12, tzinfo=UTC)]
    plain_world.memory = MemoryStore(now=lambda: now[0])
    plain_world.memory.put("a", b"old")
    now[0] += timedelta(seconds=10)

    def write_again(verb: str) -> None:
        if verb == "delete_batch" and blob(plain_world.memory, "a") is None:
            now[0] += timedelta(seconds=0.3)
            plain_world.memory.put("a", b"the new one")

    job_id = plain_world.ask("delete", path="/a")
    assert isinstance(plain_world.run(job_id, HookedStore(plain_world.memory, after=write_again)), Finished)
    assert blob(plain_world.memory, "a") == b"the new one"


def test_a_delete_of_a_key_that_never_goes_ends(plain_world: World) -> None:
    class Stubborn(WrappedStore):
        def delete_batch(self, *args: Any, **keywords: Any) -> Any:
            return [DeleteFailure("a", "InternalError", "try again")]

    plain_world.memory.put("a", b"x")
    job_id = plain_world.ask("delete", path="/a")
    for _ in range(3):
        outcome = plain_world.run(job_id, Stubborn(plain_world.memory), retry={"max_attempts": 3})
        if not isinstance(outcome, Rescheduled):
            break
        due(plain_world, job_id)
    row = job_row(plain_world.database, job_id)
    assert (row.state, row.error_code) == ("failed", "delete_incomplete")
    assert "/a (InternalError)" in str(row.error_message)
