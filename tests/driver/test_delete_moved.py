"""The second half of a move: only the source that was copied goes, and only it."""

from typing import Any

import pytest

from blobferry.checks.arguments import MARK_NAME
from tests.doubles import (
    FaultyStore,
    HookedStore,
    RecordingStore,
    UnconditionalStore,
    When,
    WrappedStore,
    blob,
    tiny_store,
)
from tests.driver.blobs_and_readers import Once
from tests.faults import StubbornStore
from worker.driver.delete_moved import delete_unchanged
from worker.errors import (
    DeleteIncompleteError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionFailedError,
    SourceChangedError,
    StoreError,
    StoreUnavailableError,
)
from worker.stores.blob_values import BlobOptions
from worker.stores.memory.memory_store import MemoryStore
from worker.transfer.sources.blob_source import version_of
from worker.transfer.stop import Interrupted


@pytest.fixture
def memory() -> MemoryStore:
    store = tiny_store()
    for key in ("a", "a/b", "ab"):
        store.put(key, key.encode())
    return store


def version(store: MemoryStore) -> dict[str, Any]:
    return version_of(store.head("a"))


def test_exactly_the_source_goes_under_the_condition_that_it_is_what_was_copied(memory: MemoryStore) -> None:
    store, copied = RecordingStore(memory), version(memory)
    delete_unchanged(store, "a", copied, "/a")
    assert [blob(memory, key) for key in ("a", "a/b", "ab")] == [None, b"a/b", b"ab"]
    (call,) = store.named("delete_batch")
    assert call.keywords["if_match"] == copied["etag"]
    delete_unchanged(store, "a", copied, "/a")  # gone is as good


@pytest.mark.parametrize("content", [b"newer", b"a"], ids=["other bytes", "the same bytes"])
def test_a_source_that_is_another_by_now_stays(memory: MemoryStore, content: bytes) -> None:
    copied = version(memory)
    memory.put("a", content, options=BlobOptions(metadata={"new": "yes"}))
    with pytest.raises(SourceChangedError):
        delete_unchanged(memory, "a", copied, "/a")
    assert (blob(memory, "a"), memory.head("a").metadata) == (content, {"new": "yes"})


def test_a_source_that_changes_after_the_look_stays(memory: MemoryStore) -> None:
    change = Once("delete_batch", lambda: memory.put("a", b"newer"))
    with pytest.raises(SourceChangedError):
        delete_unchanged(HookedStore(memory, before=change), "a", version(memory), "/a")
    assert blob(memory, "a") == b"newer"


@pytest.mark.parametrize("error", [NotSupportedError, PreconditionFailedError])
def test_a_store_that_cannot_hold_the_condition_deletes_after_a_look(
    error: type[StoreError], memory: MemoryStore
) -> None:
    recording = RecordingStore(UnconditionalStore(memory, error, "delete_batch"))
    delete_unchanged(recording, "a", version(memory), "/a")
    deletes = [call for call in recording.named("delete_batch") if call.args[0] == ["a"]]
    assert [bool(call.keywords.get("if_match")) for call in deletes] == [True, False]
    assert blob(memory, "a") is None


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_delete_whose_answer_is_lost_is_looked_for(when: When, memory: MemoryStore) -> None:
    store = FaultyStore(memory, "delete_batch", when=when)
    delete_unchanged(store, "a", version(memory), "/a")
    assert (store.fired, blob(memory, "a")) == (1, None)


class IdleStore(WrappedStore):
    """Answers so many deletes with success although it deletes nothing."""

    def __init__(self, store: MemoryStore, times: int) -> None:
        super().__init__(store)
        self.times = times

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if name != "delete_batch" or self.times == 0:
            return super()._do(name, args, keywords)
        self.times -= 1
        return []


def test_a_delete_that_was_answered_and_not_done_is_repeated(memory: MemoryStore) -> None:
    delete_unchanged(IdleStore(memory, times=2), "a", version(memory), "/a")
    assert blob(memory, "a") is None


def test_a_source_that_is_there_after_all_deletes_is_no_success(memory: MemoryStore) -> None:
    with pytest.raises(DeleteIncompleteError, match="/a") as caught:
        delete_unchanged(IdleStore(memory, times=9), "a", version(memory), "/a")
    assert caught.value.transient


def test_a_blob_that_came_right_after_the_delete_stays(memory: MemoryStore) -> None:
    store = HookedStore(memory, after=Once("delete_batch", lambda: memory.put("a", b"newer")))
    delete_unchanged(store, "a", version(memory), "/a")
    assert blob(memory, "a") == b"newer"


def test_a_store_that_stays_down_keeps_the_source(memory: MemoryStore) -> None:
    with pytest.raises(StoreUnavailableError):
        delete_unchanged(FaultyStore(memory, "delete_batch", times=9), "a", version(memory), "/a")
    assert blob(memory, "a") == b"a"


@pytest.mark.parametrize(("code", "kind"), [("AccessDenied", PermissionDeniedError), ("Odd", DeleteIncompleteError)])
def test_a_key_that_may_not_go_is_named(code: str, kind: type[StoreError], memory: MemoryStore) -> None:
    with pytest.raises(kind, match="/a"):
        delete_unchanged(StubbornStore(memory, lambda key: code), "a", version(memory), "/a")
    assert blob(memory, "a") == b"a"


def test_a_later_refusal_is_not_taken_for_success(memory: MemoryStore) -> None:
    errors = iter([StoreUnavailableError("1"), PreconditionFailedError("2"), StoreUnavailableError("3")])
    store = FaultyStore(memory, "delete_batch", times=3, error=lambda: next(errors))
    with pytest.raises(StoreUnavailableError, match="3"):
        delete_unchanged(store, "a", version(memory), "/a")
    assert blob(memory, "a") == b"a"


def test_a_blob_with_the_mark_of_the_copy_is_the_copy_and_stays(memory: MemoryStore) -> None:
    memory.put("a", b"a", options=BlobOptions(metadata={MARK_NAME: "ours"}))
    delete_unchanged(memory, "a", version(memory), "/a", mark="ours")
    assert blob(memory, "a") == b"a"


def test_a_run_that_is_to_stop_deletes_nothing_more(memory: MemoryStore) -> None:
    asked = iter([False, True])
    with pytest.raises(Interrupted):
        delete_unchanged(FaultyStore(memory, "delete_batch"), "a", version(memory), "/a", stop=lambda: next(asked))
    assert blob(memory, "a") == b"a"
