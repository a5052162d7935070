"""Deleting a tree as a job does: a cutoff, a stop between two batches, and a death at any moment."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from tests.doubles import DeathError, HookedStore, MortalStore, RecordingStore, When
from tests.driver.blobs_and_readers import Once
from tests.faults import StubbornStore, fuses, refusing
from worker.driver.delete_tree import MAX_FAILURES, Deletion, MemoryDeletion, delete_tree
from worker.errors import (
    DeleteIncompleteError,
    KeyNotFoundError,
    LeaseLostError,
    PermissionDeniedError,
    StoreUnavailableError,
)
from worker.stores.blob_values import Limits
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.store import Store
from worker.transfer.stop import Interrupted, Stop, never

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(minutes=1)


@dataclass
class Clock:
    """The store's."""

    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Rows:
    """What a delete must not forget, as a job keeps it; and in which order it was told so."""

    cutoff: datetime | None = None
    deleted_any: bool = False
    lost_at: str = ""  #: when it turns out that another run has the lease
    log: list[str] = field(default_factory=list)
    count: int = 0

    def begin(self, cutoff: datetime) -> None:
        self.cutoff = cutoff
        self._hear("begin")

    def deleting(self) -> None:
        self.deleted_any = True
        self._hear("deleting")

    def deleted(self, count: int) -> None:
        self.count += count
        self._hear(f"deleted {count}")

    def _hear(self, what: str) -> None:
        if what == self.lost_at:
            raise LeaseLostError("another run owns the job")
        self.log.append(what)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    """At most three keys go at once."""
    return MemoryStore(now=clock, limits=Limits(max_delete=3))


def fill(store: Store, *keys: str) -> None:
    for key in keys:
        store.put(key, b"x")


def many(count: int) -> list[str]:
    return [f"d/{number:04}" for number in range(count)]


def left(store: Store) -> list[str]:
    return [entry.key for entry in store.list_page("").entries]


def delete(store: Store, deletion: Deletion | None = None, *, stop: Stop = never) -> None:
    delete_tree(store, "d", "/d", deletion=deletion or Rows(), stop=stop)


def test_exactly_the_key_and_what_lies_below_goes(store: MemoryStore) -> None:
    siblings, rows = ["D", "c", "d ", "d-", "d-/x", "d.", "d.x", "d0", "dd", "dd/x", "e"], Rows()
    fill(store, "d", "d/", "d//", "d//x", "d/a", "d/a/b", "d/\N{LATIN SMALL LETTER U WITH DIAERESIS}", *siblings)
    delete(store, rows)
    assert (left(store), rows.count) == (siblings, 7)


@pytest.mark.parametrize("deletion", [Rows, MemoryDeletion])
def test_nothing_there_is_key_not_found(store: MemoryStore, deletion: Callable[[], Deletion]) -> None:
    fill(store, "d-", "d.x", "d0")
    with pytest.raises(KeyNotFoundError):
        delete(store, deletion())


def test_nothing_left_of_what_an_earlier_run_deleted_is_success(store: MemoryStore) -> None:
    delete(store, Rows(cutoff=NOON, deleted_any=True))


def test_a_plain_delete_takes_all_whatever_its_time(store: MemoryStore, clock: Clock) -> None:
    clock.now = datetime(2999, 1, 1, tzinfo=UTC)
    fill(store, "d", *many(7))
    clock.now = NOON
    deletion = MemoryDeletion()
    delete(store, deletion)
    assert (left(store), deletion.count) == ([], 8)


# --- the cutoff ------------------------------------------------------------------------------------------------------


def test_the_cutoff_is_the_stores_clock(store: MemoryStore, clock: Clock) -> None:
    fill(store, "d/a")
    clock.now = LATER
    rows = Rows()
    delete(store, rows)
    assert rows.cutoff == LATER


@pytest.mark.parametrize("key", ["d", "d/a"])
def test_a_clock_that_went_back_spares_nothing_that_was_there(store: MemoryStore, clock: Clock, key: str) -> None:
    clock.now = NOON + timedelta(days=300)
    fill(store, key)
    clock.now = NOON
    rows = Rows()
    delete(store, rows)
    assert left(store) == []
    assert rows.cutoff is not None
    assert rows.cutoff >= NOON + timedelta(days=300)


def test_what_comes_after_the_cutoff_stays(store: MemoryStore, clock: Clock) -> None:
    fill(store, "d", "d/a", "d/b")
    clock.now = LATER
    fill(store, "d", "d/b", "d/c")
    delete(store, Rows(cutoff=NOON + timedelta(seconds=1)))
    assert left(store) == ["d", "d/b", "d/c"]


def test_what_is_as_old_as_the_cutoff_goes(store: MemoryStore) -> None:
    fill(store, "d")
    delete(store, Rows(cutoff=store.head("d").mod_time))
    assert left(store) == []


def test_a_second_run_keeps_the_first_ones_cutoff(store: MemoryStore, clock: Clock) -> None:
    rows = Rows(cutoff=NOON, deleted_any=True)
    clock.now = LATER
    fill(store, "d", *many(5))
    delete(store, rows)
    assert left(store) == ["d", *many(5)]
    assert (rows.cutoff, rows.log) == (NOON, [])


def test_only_newer_keys_are_no_error_and_are_not_even_asked_for(store: MemoryStore, clock: Clock) -> None:
    clock.now = LATER
    fill(store, "d/a")
    recording = RecordingStore(store)
    delete(recording, Rows(cutoff=NOON))
    assert recording.named("delete_batch") == []


def test_keys_that_appear_while_it_runs_stay_if_they_are_newer(store: MemoryStore, clock: Clock) -> None:
    fill(store, *many(7))

    def write_more(verb: str) -> None:
        if verb == "delete_batch":
            clock.now = LATER
            fill(store, "d", "d/9999")

    delete(HookedStore(store, before=write_more))
    assert left(store) == ["d", "d/9999"]


# --- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7])
@pytest.mark.parametrize("key", [[], ["d"]], ids=["a directory", "a blob as well"])
def test_batches_are_as_large_as_the_store_takes(store: MemoryStore, count: int, key: list[str]) -> None:
    keys, recording = key + many(count), RecordingStore(store)
    fill(store, *keys)
    delete(recording)
    batches = [call.args[0] for call in recording.named("delete_batch")]
    assert [key for batch in batches for key in batch] == keys
    assert {len(batch) for batch in batches[:-1]} <= {3}
    assert left(store) == []


@pytest.mark.parametrize("number", [999, 1_000, 1_001, 2_345, 2_500])
def test_a_tree_of_any_size_is_deleted_a_thousand_keys_at_a_time(number: int) -> None:
    memory = MemoryStore()
    store = RecordingStore(memory)
    fill(memory, *many(number), "d-1")
    delete(store)
    assert left(memory) == ["d-1"]
    assert [call.verb for call in store.calls] == ["head", *["list_page", "delete_batch"] * -(-number // 1_000)]
    assert {call.keywords.get("limit", 1_000) for call in store.named("list_page")} == {1_000}


def test_keys_that_somebody_else_deletes_meanwhile_are_no_failure(store: MemoryStore) -> None:
    fill(store, *many(7))
    delete(HookedStore(store, before=Once("delete_batch", lambda: store.delete_batch(["d/0001", "d/0005"]))))
    assert left(store) == []


# --- keys that would not go ------------------------------------------------------------------------------------------


def test_failures_are_counted_all_and_named_up_to_a_bound() -> None:
    store, rows = MemoryStore(), Rows()
    fill(store, *many(300))
    stubborn = StubbornStore(store, lambda key: None if int(key[2:]) % 2 else "AccessDenied")
    with pytest.raises(DeleteIncompleteError, match="and 140 more") as caught:
        delete(stubborn, rows)
    assert (caught.value.path, caught.value.count, caught.value.transient) == ("/d", 150, False)
    assert caught.value.failures == [[f"/d/{number:04}", "AccessDenied"] for number in range(0, 2 * MAX_FAILURES, 2)]
    assert (left(store), rows.count) == (many(300)[::2], 150)


def test_a_key_that_may_yet_go_makes_the_error_transient(store: MemoryStore) -> None:
    fill(store, "d", *many(5))
    with pytest.raises(DeleteIncompleteError) as caught:
        delete(StubbornStore(store, {"d": "AccessDenied", "d/0004": "SlowDown"}.get))
    assert caught.value.transient
    assert caught.value.failures == [["/d", "AccessDenied"], ["/d/0004", "SlowDown"]]


@pytest.mark.parametrize("verb", ["head", "list_page", "delete_batch"])
@pytest.mark.parametrize("error", [PermissionDeniedError, StoreUnavailableError])
def test_a_store_that_refuses_is_not_taken_for_an_empty_one(
    store: MemoryStore, verb: str, error: type[Exception]
) -> None:
    fill(store, "d", *many(5))
    with pytest.raises(error):
        delete(refusing(store, verb, error=error))
    assert left(store) == ["d", *many(5)]


# --- stopping, dying, going on ---------------------------------------------------------------------------------------


def test_the_rows_know_before_the_store_does(store: MemoryStore) -> None:
    fill(store, *many(4))
    rows = Rows()
    delete(HookedStore(store, before=rows.log.append), rows)
    batches = ["deleting", "delete_batch", "deleted 3", "deleting", "delete_batch", "deleted 1"]
    assert rows.log == ["head", "list_page", "begin", *batches]


@pytest.mark.parametrize("told", ["begin", "deleting"])
def test_a_run_that_lost_its_lease_deletes_nothing(store: MemoryStore, told: str) -> None:
    fill(store, "d", *many(2))
    with pytest.raises(LeaseLostError):
        delete(store, Rows(lost_at=told))
    assert left(store) == ["d", *many(2)]


@pytest.mark.parametrize("batches", [0, 1, 2])
def test_a_stop_leaves_whole_batches_and_another_run_goes_on(store: MemoryStore, batches: int) -> None:
    fill(store, *many(9))
    answers, rows = iter([*[False] * batches, True]), Rows()
    with pytest.raises(Interrupted):
        delete(store, rows, stop=lambda: next(answers))
    assert (left(store), rows.deleted_any) == (many(9)[3 * batches :], batches > 0)
    delete(store, rows)
    assert (left(store), rows.count) == ([], 9)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_death_at_any_call_loses_nothing_and_spares_nothing(when: When) -> None:
    for fuse in fuses(when, at_least=5):
        clock, rows = Clock(), Rows()
        store = MemoryStore(now=clock, limits=Limits(max_delete=3))
        fill(store, "d", *many(7), "d-")
        with suppress(DeathError):
            delete(MortalStore(store, fuse), rows)
        began_before = rows.cutoff is not None
        clock.now = LATER
        fill(store, "d/new")
        if fuse.blown:
            delete(store, rows)
        assert left(store) == (["d-", "d/new"] if began_before else ["d-"]), fuse.calls
