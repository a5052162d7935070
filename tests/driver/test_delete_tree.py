"""Deleting a tree as a job does: a cutoff, a stop between two batches, and a death at any moment."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.doubles import DeathError, FaultyStore, HookedStore, RecordingStore, WrappedStore
from worker.driver.delete_tree import MAX_FAILURES, Deletion, MemoryDeletion, delete_tree
from worker.errors import (
    DeleteIncompleteError,
    KeyNotFoundError,
    LeaseLostError,
    PermissionDeniedError,
    StoreUnavailableError,
)
from worker.stores.blob_values import DeleteFailure, Limits
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.store import Store
from worker.transfer.stop import Interrupted, Stop, never

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(minutes=1)


class Clock:
    """The store's."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


class Rows:
    """What a delete must not forget, as a job keeps it; and in which order it was told so."""

    def __init__(self, *, cutoff: datetime | None = None, deleted_any: bool = False) -> None:
        self.cutoff = cutoff
        self.deleted_any = deleted_any
        self.log: list[str] = []
        self.count = 0

    def begin(self, cutoff: datetime) -> None:
        self.cutoff = cutoff
        self.log.append("begin")

    def deleting(self) -> None:
        self.deleted_any = True
        self.log.append("deleting")

    def deleted(self, count: int) -> None:
        self.count += count
        self.log.append(f"deleted {count}")


class StubbornStore(WrappedStore):
    """Some keys would not go."""

    def __init__(self, store: Store, keeps: Callable[[str], bool], code: Callable[[str], str]) -> None:
        super().__init__(store)
        self._keeps = keeps
        self._code = code

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if name != "delete_batch":
            return super()._do(name, args, keywords)
        kept = [key for key in args[0] if self._keeps(key)]
        super()._do(name, ([key for key in args[0] if key not in kept],), keywords)
        return [DeleteFailure(key, self._code(key), "no") for key in kept]


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
    siblings = ["D", "c", "d ", "d-", "d-/x", "d.", "d.x", "d0", "dd", "dd/x", "e"]
    fill(store, "d", "d/", "d//", "d//x", "d/a", "d/a/b", "d/\N{LATIN SMALL LETTER U WITH DIAERESIS}", *siblings)
    rows = Rows()
    delete(store, rows)
    assert left(store) == siblings
    assert rows.count == 7


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
    assert left(store) == []
    assert deletion.count == 8


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

    delete(HookedStore(store, before=write_more), Rows())
    assert left(store) == ["d", "d/9999"]


# --- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7])
@pytest.mark.parametrize("has_key", [False, True])
def test_batches_are_as_large_as_the_store_takes(store: MemoryStore, count: int, has_key: bool) -> None:
    keys = ["d"] * has_key + many(count)
    fill(store, *keys)
    recording = RecordingStore(store)
    delete(recording)
    batches = [call.args[0] for call in recording.named("delete_batch")]
    assert [key for batch in batches for key in batch] == keys
    assert [len(batch) for batch in batches[:-1]] == [3] * (len(batches) - 1)
    assert left(store) == []


def test_a_large_tree_is_deleted_page_by_page() -> None:
    store = RecordingStore(MemoryStore())
    fill(store, *many(2_500))
    store.calls.clear()
    delete(store)
    assert left(store) == []
    verbs = [call.verb for call in store.calls[:-1]]  # the last one is this test's own look
    assert verbs == ["head", *["list_page", "delete_batch"] * 3]
    assert {call.keywords.get("limit", 1_000) for call in store.named("list_page")} == {1_000}


def test_keys_that_somebody_else_deletes_meanwhile_are_no_failure(store: MemoryStore) -> None:
    fill(store, *many(7))

    def interfere(verb: str) -> None:
        if verb == "delete_batch":
            store.delete_batch(["d/0001", "d/0005"])

    delete(HookedStore(store, before=interfere))
    assert left(store) == []


# --- keys that would not go ------------------------------------------------------------------------------------------


def test_failures_are_counted_all_and_named_up_to_a_bound() -> None:
    store = MemoryStore()
    fill(store, *many(300))
    stubborn = StubbornStore(store, lambda key: int(key[2:]) % 2 == 0, lambda key: "AccessDenied")
    rows = Rows()
    with pytest.raises(DeleteIncompleteError, match="and 140 more") as caught:
        delete(stubborn, rows)
    assert (caught.value.path, caught.value.count, caught.value.transient) == ("/d", 150, False)
    assert caught.value.failures == [[f"/d/{number:04}", "AccessDenied"] for number in range(0, 2 * MAX_FAILURES, 2)]
    assert left(store) == many(300)[::2]
    assert rows.count == 150


def test_a_key_that_may_yet_go_makes_the_error_transient(store: MemoryStore) -> None:
    fill(store, "d", *many(5))
    codes = {"d": "AccessDenied", "d/0004": "SlowDown"}
    with pytest.raises(DeleteIncompleteError) as caught:
        delete(StubbornStore(store, codes.__contains__, codes.__getitem__))
    assert caught.value.transient
    assert caught.value.failures == [["/d", "AccessDenied"], ["/d/0004", "SlowDown"]]


@pytest.mark.parametrize("verb", ["head", "list_page", "delete_batch"])
@pytest.mark.parametrize("error", [PermissionDeniedError, StoreUnavailableError])
def test_a_store_that_refuses_is_not_taken_for_an_empty_one(
    store: MemoryStore, verb: str, error: type[Exception]
) -> None:
    fill(store, "d", *many(5))
    with pytest.raises(error):
        delete(FaultyStore(store, verb, error=lambda: error("no")))
    assert left(store) == ["d", *many(5)]


# --- stopping, dying, going on ---------------------------------------------------------------------------------------


def test_the_rows_know_before_the_store_does(store: MemoryStore) -> None:
    fill(store, *many(4))
    rows = Rows()

    def tell(verb: str) -> None:
        rows.log.append(verb)

    delete(HookedStore(store, before=tell), rows)
    batch = ["deleting", "delete_batch", "deleted {}"]
    expected = ["head", "list_page", "begin", *batch, *batch]
    assert rows.log == [line.format(count) for line, count in zip(expected, [0, 0, 0, 0, 0, 3, 0, 0, 1], strict=True)]


@pytest.mark.parametrize("told", ["begin", "deleting"])
def test_a_run_that_lost_its_lease_deletes_nothing(store: MemoryStore, told: str) -> None:
    class Lost(Rows):
        def begin(self, cutoff: datetime) -> None:
            super().begin(cutoff)
            if told == "begin":
                raise LeaseLostError("another run owns the job")

        def deleting(self) -> None:
            raise LeaseLostError("another run owns the job")

    fill(store, "d", *many(2))
    with pytest.raises(LeaseLostError):
        delete(store, Lost())
    assert left(store) == ["d", *many(2)]


@pytest.mark.parametrize("batches", [0, 1, 2])
def test_a_stop_leaves_whole_batches_and_another_run_goes_on(store: MemoryStore, batches: int) -> None:
    fill(store, *many(9))
    answers: Iterator[bool] = iter([*[False] * batches, True])
    rows = Rows()
    with pytest.raises(Interrupted):
        delete(store, rows, stop=lambda: next(answers))
    assert left(store) == many(9)[3 * batches :]
    assert rows.deleted_any == (batches > 0)
    delete(store, rows)
    assert left(store) == []
    assert rows.count == 9


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", range(1, 6))
def test_a_death_at_any_call_loses_nothing_and_spares_nothing(
    store: MemoryStore, clock: Clock, call: int, when: Any
) -> None:
    fill(store, "d", *many(7), "d-")
    rows = Rows()
    verbs = ("head", "list_page", "delete_batch")
    dying = FaultyStore(store, *verbs, fail_at=call, when=when, error=lambda: DeathError("SIGKILL"))
    with pytest.raises(DeathError):
        delete(dying, rows)
    began_before = rows.cutoff is not None
    clock.now = LATER
    fill(store, "d/new")
    delete(store, rows)
    assert left(store) == (["d-", "d/new"] if began_before else ["d-"])
