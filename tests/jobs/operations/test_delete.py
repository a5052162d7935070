"""delete as a job: a path and all under it, in batches, whoever dies; and no key that came after its first claim."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from blobferry.contract import JobState
from models import Database
from tests.doubles import FaultyStore, HookedStore, RecordingStore, When, WrappedStore, blob
from tests.faults import StubbornStore
from tests.jobs.job_world import QUICK, PagedStore, World, at, heartbeat_gives_up, on_each_database
from tests.models.rows import ago
from worker import drain
from worker.driver.delete_tree import TRIES
from worker.errors import PermissionDeniedError
from worker.jobs.outcome import Finished, NotClaimed, Outcome
from worker.stores.blob_values import Limits
from worker.stores.memory.memory_store import MemoryStore

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
BATCH = 3


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

    def put_later(self, *keys: str) -> None:
        self.now += MINUTE
        self.put(*keys)

    def delete(self, path: str = "/a/b") -> str:
        return self.ask("delete", path=path)

    def left(self) -> list[str]:
        """What is left at the path and under it. The siblings have to be there always."""
        keys = self.memory._index.blobs.keys()
        assert set(self.siblings) <= keys
        return sorted(keys - set(self.siblings))


@pytest.fixture
def world(world_database: Database, tmp_path: Path) -> Deleting:
    return Deleting(world_database, tmp_path)


def dead_at_batch(world: Deleting, number: int, when: When = "after") -> str:
    """A job whose worker died at its n-th batch."""
    job_id = world.delete()
    world.crash(job_id, world.dying("delete_batch", number=number, when=when))
    return job_id


def batches(recording: RecordingStore) -> list[Sequence[str]]:
    return [call.args[0] for call in recording.named("delete_batch")]


# --- it works --------------------------------------------------------------------------------------------------------


@on_each_database
def test_a_path_and_all_under_it_go_in_batches_and_no_sibling(world: Deleting) -> None:
    job_id, recording = world.delete(), RecordingStore(world.memory)
    outcome = world.succeed(job_id, recording)
    assert world.left() == []
    assert [len(batch) for batch in batches(recording)] == [3, 3, 3]
    row = world.job_row(job_id)
    assert outcome.result == row.result == {"path": "/a/b"}
    assert (row.deleted_any, row.bytes_done, row.bytes_sent, row.attempt) == (True, 0, 0, 1)
    assert [(attempt.outcome, attempt.bytes_sent) for attempt in world.attempts(job_id)] == [("succeeded", 0)]
    assert world.uploads(job_id) == []


@pytest.mark.parametrize("key", ["z", "z/", "z/y/x"])
def test_a_blob_or_the_marker_of_a_directory_or_what_lies_below_goes_alone(key: str, world: Deleting) -> None:
    world.put(key)
    recording = RecordingStore(world.memory)
    world.succeed(world.delete("/z"), recording)
    assert (world.left(), batches(recording)) == (world.tree, [[key]])


def test_nothing_there_fails_the_job_and_nothing_is_deleted(world: Deleting) -> None:
    job_id, recording = world.delete("/nothing"), RecordingStore(world.memory)
    outcome = world.run(job_id, recording)
    assert isinstance(outcome, Finished)
    assert outcome.error is not None
    assert outcome.error.args[0] == "/nothing"
    assert world.has_ended(job_id, JobState.FAILED, "path_not_found")
    assert batches(recording) == []


# --- what came later -------------------------------------------------------------------------------------------------


@on_each_database
def test_the_cutoff_is_the_stores_time_at_the_first_claim_and_stays(world: Deleting) -> None:
    job_id = dead_at_batch(world, 1)
    row = world.job_row(job_id)
    assert (row.phase, row.deleted_any, row.cutoff) == ("deleting", True, NOON)
    world.put_later("a/b/new")
    world.succeed(job_id)
    assert world.job_row(job_id).cutoff == NOON


@pytest.mark.parametrize("newer", [["a/b/new"], ["a/b/3"], ["a/b"], ["a/b", "a/b/0", "a/b/7", "a/b/new"]])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_keys_written_after_the_first_claim_survive_a_delete_that_is_resumed(
    batch: int, newer: list[str], world: Deleting
) -> None:
    job_id = dead_at_batch(world, batch, "before")
    world.put_later(*newer)
    world.succeed(job_id)
    assert world.left() == sorted(newer)
    assert world.outcomes(job_id) == ["died", "succeeded"]


def test_keys_written_while_the_first_run_lists_survive(world: Deleting) -> None:
    write = at("delete_batch", do=lambda: world.put_later("a/b/9", "a/b/6"))  # on a page that is still to be listed
    world.succeed(world.delete(), HookedStore(world.memory, before=write))
    assert world.left() == ["a/b/6", "a/b/9"]


def test_a_death_before_the_cutoff_is_known_leaves_it_to_the_next_run(world: Deleting) -> None:
    job_id = world.delete()
    world.crash(job_id, world.dying("list_page", when="after"))
    assert world.job_row(job_id).cutoff is None
    world.now += MINUTE
    world.succeed(job_id)
    assert world.left() == []


# --- resumed ---------------------------------------------------------------------------------------------------------


def test_what_somebody_else_deletes_before_the_first_batch_is_no_error(world: Deleting) -> None:
    job_id = dead_at_batch(world, 1, "before")
    for key in world.tree:
        world.memory.delete_batch([key])
    world.succeed(job_id)


@on_each_database
@pytest.mark.parametrize(("batch", "asked"), [(2, [["a/b/5", "a/b/6", "a/b/7"]]), (3, [])], ids=["some", "nothing"])
def test_a_second_run_asks_only_for_what_is_left(batch: int, asked: list[list[str]], world: Deleting) -> None:
    job_id, recording = dead_at_batch(world, batch), RecordingStore(world.memory)
    assert world.left() == [key for keys in asked for key in keys]
    world.succeed(job_id, recording)
    assert batches(recording) == asked


def test_a_store_that_is_away_in_the_middle_is_tried_again_later(world: Deleting) -> None:
    job_id = world.delete()
    row = world.put_off(job_id, FaultyStore(world.memory, "delete_batch", fail_at=2, times=TRIES))
    assert (row.state, row.phase, row.error_code) == ("retrying", "deleting", "store_unavailable")
    world.succeed(job_id)
    assert world.left() == []


class DeafStore(WrappedStore):
    """Says that it has deleted, and has not."""

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        return [] if name == "delete_batch" else super()._do(name, args, keywords)


def test_a_blob_that_stat_still_shows_is_looked_at_until_it_is_gone(world: Deleting) -> None:
    job_id = world.delete()
    for _ in range(2):
        assert world.put_off(job_id, DeafStore(world.memory)).state == "verifying"
    world.memory.delete_batch(["a/b"])  # it takes effect
    world.succeed(job_id)


def test_a_blob_that_stat_shows_for_ever_never_gets_a_success(world: Deleting) -> None:
    job_id = world.delete()
    world.put_off(job_id, DeafStore(world.memory))
    world.change(job_id, verify_until=ago(1))
    world.fail(job_id, "verification_failed", DeafStore(world.memory))


# --- keys that will not go -------------------------------------------------------------------------------------------


def test_keys_that_must_not_be_deleted_fail_the_job_by_name_after_all_else_is_gone(world: Deleting) -> None:
    kept = dict.fromkeys(["a/b", "a/b/5"], "AccessDenied")
    message = world.fail(world.delete(), "delete_incomplete", StubbornStore(world.memory, kept.get))
    assert "/a/b (AccessDenied), /a/b/5 (AccessDenied)" in message
    assert world.left() == list(kept)


@pytest.mark.parametrize("code", ["InternalError", "SlowDown", "ServiceUnavailable"])
def test_keys_that_could_not_be_deleted_now_are_tried_again(code: str, world: Deleting) -> None:
    job_id = world.delete()
    row = world.put_off(job_id, StubbornStore(world.memory, {"a/b/5": code}.get))
    assert (row.state, row.error_code) == ("retrying", "delete_incomplete")
    assert world.left() == ["a/b/5"]
    world.succeed(job_id)
    assert world.left() == []


def test_one_key_that_may_yet_go_is_worth_another_try_and_then_the_others_are_named(world: Deleting) -> None:
    codes = {"a/b/1": "AccessDenied", "a/b/2": "SlowDown"}
    job_id, stubborn = world.delete(), StubbornStore(world.memory, codes.get)
    world.put_off(job_id, stubborn)
    del codes["a/b/2"]
    world.fail(job_id, "delete_incomplete", stubborn)
    assert world.left() == ["a/b/1"]


@pytest.mark.parametrize("codes", [{"a/b/6": "SlowDown", "a/b/7": "SlowDown"}, {"a/b": "InternalError"}], ids=str)
def test_keys_that_never_go_are_given_up_after_so_many_runs_that_deleted_nothing(
    codes: dict[str, str], world: Deleting
) -> None:
    job_id, stubborn = world.delete(), StubbornStore(world.memory, codes.get)
    assert world.put_off(job_id, stubborn, retry={"max_attempts": 2}).failures == 1
    message = world.fail(job_id, "delete_incomplete", stubborn, retry={"max_attempts": 2})
    assert ", ".join(f"/{key} ({code})" for key, code in codes.items()) in message
    assert world.left() == list(codes)


def test_a_store_that_allows_no_delete_at_all_fails_the_job_at_once(world: Deleting) -> None:
    denied = FaultyStore(world.memory, "delete_batch", times=9, error=lambda: PermissionDeniedError("no"))
    world.fail(world.delete(), "permission_denied", denied)
    assert world.left() == world.tree


@pytest.mark.parametrize(("verb", "batches"), [("list_page", 0), ("delete_batch", 1)])
def test_a_cancel_comes_before_the_first_batch_or_between_two(verb: str, batches: int, world: Deleting) -> None:
    job_id = world.delete()
    world.cancel(job_id, world.requesting(job_id, verb), lease=QUICK)
    assert (world.left(), world.outcomes(job_id)) == (world.tree[batches * BATCH :], ["cancelled"])


# --- wishes, drain, a lost lease -------------------------------------------------------------------------------------


def test_a_cancelled_delete_of_a_dead_worker_deletes_nothing_more(world: Deleting) -> None:
    job_id = dead_at_batch(world, 1)
    world.change(job_id, cancel_requested=True)
    assert world.run(job_id) == NotClaimed()
    assert world.left() == world.tree[3:]


@on_each_database
def test_a_paused_delete_goes_on_where_it_was_and_spares_what_came_meanwhile(world: Deleting) -> None:
    job_id = world.delete()
    row = world.put_off(job_id, world.requesting(job_id, "delete_batch", pause_requested=True), lease=QUICK)
    assert (row.state, row.phase, row.attempt) == ("paused", "deleting", 1)
    assert world.left() == world.tree[3:]
    world.put_later("a/b/4", "a/b/8")
    world.change(job_id, state="queued", pause_requested=False)
    world.succeed(job_id)
    assert world.left() == ["a/b/4", "a/b/8"]
    assert world.outcomes(job_id) == ["succeeded"]


def test_a_draining_worker_hands_a_delete_over_between_two_batches(world: Deleting) -> None:
    job_id = world.delete()
    row = world.put_off(job_id, HookedStore(world.memory, before=at("delete_batch", do=drain.start)))
    assert (row.state, world.left()) == ("queued", world.tree[3:])
    world.succeed(job_id)


@pytest.mark.parametrize("verb", ["head", "list_page"])
def test_a_delete_that_was_taken_over_before_it_began_deletes_nothing(verb: str, world: Deleting) -> None:
    job_id, rows = world.delete(), list[Any]()
    taken = at(verb, do=lambda: rows.append(world.taken_over(job_id)))
    assert world.run(job_id, HookedStore(world.memory, before=taken)) == NotClaimed()
    assert [world.job_row(job_id).as_row()] == rows
    assert world.left() == world.tree


def test_a_delete_that_was_taken_over_in_the_middle_begins_no_further_batch(world: Deleting) -> None:
    """It slept after its first batch; meanwhile another worker ended the job, and somebody wrote the next files."""
    job_id, others = world.delete(), list[Outcome]()

    def sleep() -> None:
        world.take_away(job_id)
        others.append(world.succeed(job_id))
        world.put_later(*world.tree)
        heartbeat_gives_up()

    store = HookedStore(world.memory, after=at("delete_batch", do=sleep))
    assert world.run(job_id, store, lease=QUICK) == NotClaimed()
    assert len(others) == 1
    assert world.left() == world.tree
    assert world.has_ended(job_id, JobState.SUCCEEDED)


def test_a_delete_spares_what_was_written_after_its_first_look(world: Deleting) -> None:
    world.put("z")
    world.now += timedelta(seconds=10)

    def write_again() -> None:
        world.now += timedelta(seconds=0.3)
        world.memory.put("z", b"the new one")

    world.succeed(world.delete("/z"), HookedStore(world.memory, after=at("delete_batch", do=write_again)))
    assert blob(world.memory, "z") == b"the new one"
