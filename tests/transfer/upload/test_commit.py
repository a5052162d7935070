"""Commit calls: readers' view decides, not the store's answer, and no other writer's blob is overwritten."""

from collections.abc import Callable
from typing import Any

import pytest

from blobferry.checks.arguments import MARK_NAME
from tests.doubles import FaultyStore, HookedStore, RecordingStore, blob, tiny_store
from tests.transfer.bench import StopAfter, at, saved
from worker.errors import (
    InvalidStoreRequestError,
    LeaseLostError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionFailedError,
    StoreError,
    StoreUnavailableError,
    SupersededError,
)
from worker.stores.blob_values import BlobOptions, Condition, PutReceipt
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.store import Store
from worker.transfer.checkpoint import MemoryCheckpoint, VisibleVersion
from worker.transfer.stop import Interrupted, never
from worker.transfer.upload.commit import MAX_TRIES, commit, was_committed
from worker.transfer.visible import Expected, look

NEW = b"the new blob"
EXPECTED = Expected(len(NEW), "ours")


def put_new(store: Store) -> Callable[[Condition | None], PutReceipt]:
    options = BlobOptions(metadata={MARK_NAME: "ours"})
    return lambda condition: store.put("key", NEW, condition=condition, options=options)


class CommitOnce:
    """One call of commit, with its checkpoint and its pauses."""

    def __init__(self, store: Store, base: VisibleVersion | None = None) -> None:
        self.store = store
        self.base = VisibleVersion.of(look(store, "key")) if base is None else base
        self.checkpoint = MemoryCheckpoint("ours")
        self.checkpoint.opening("key", size=len(NEW), part_size=None, base=self.base)
        self.slept: list[float] = []

    def run(self, stop: Callable[[], bool] = never, **how: Any) -> PutReceipt:
        how |= {"expected": EXPECTED, "checkpoint": self.checkpoint, "stop": stop, "sleep": self.slept.append}
        return commit(self.store, "key", put_new(self.store), base=self.base, **how)

    @property
    def ended(self) -> tuple[bytes | None, list[float]]:
        """What readers see, and the pauses."""
        return blob(self.store, "key"), self.slept


@pytest.fixture(params=[False, True], ids=["new", "over an old blob"])
def memory(request: pytest.FixtureRequest) -> MemoryStore:
    store = tiny_store()
    if request.param:
        store.put("key", b"old blob")
    return store


def test_a_call_carries_what_was_visible_before_as_its_condition(memory: MemoryStore) -> None:
    store = RecordingStore(memory)
    commitment = CommitOnce(store)
    receipt = commitment.run()
    (call,) = store.named("put")
    expected = Condition(if_none_match=True) if commitment.base.is_absent else Condition(if_match=commitment.base.etag)
    assert call.keywords["condition"] == expected
    assert commitment.ended == (NEW, [])
    assert receipt.etag == memory.head("key").etag


def test_the_point_of_no_return_is_written_down_before_the_call(memory: MemoryStore) -> None:
    states: list[str] = []
    commitment = CommitOnce(memory)

    def before(verb: str) -> None:
        upload = saved(commitment.checkpoint)
        states.append(f"{verb}: {upload.state}, base {upload.base == commitment.base}")

    commitment.store = HookedStore(memory, before=before)
    commitment.run()
    assert states == ["put: completing, base True"]


@pytest.mark.parametrize("error", [StoreUnavailableError, PermissionDeniedError, PreconditionFailedError, StoreError])
def test_an_error_that_hides_a_success_is_a_success(memory: MemoryStore, error: type[StoreError]) -> None:
    store = FaultyStore(memory, "put", when="after", error=lambda: error("odd answer"))
    commitment = CommitOnce(store)
    receipt = commitment.run()
    assert (store.fired, receipt.etag) == (1, memory.head("key").etag)
    assert commitment.ended == (NEW, [])


def test_a_call_without_effect_is_repeated_while_readers_still_see_the_base(memory: MemoryStore) -> None:
    commitment = CommitOnce(FaultyStore(memory, "put", times=MAX_TRIES - 1))
    commitment.run()
    assert commitment.ended == (NEW, [0.5, 1.0])


def test_a_store_that_refuses_a_condition_which_holds_is_asked_without_it(memory: MemoryStore) -> None:
    """Some compare a copy's condition with its source, some an ETag with one that they show to nobody."""
    store = RecordingStore(FaultyStore(memory, "put", times=2, error=lambda: PreconditionFailedError("odd")))
    commitment = CommitOnce(store)
    commitment.run()
    conditions = [call.keywords["condition"] for call in store.named("put")]
    assert conditions[0] == conditions[1] != conditions[2]
    assert conditions[2] is None
    assert commitment.ended == (NEW, [])


def test_refusals_do_not_use_up_the_tries_that_a_busy_store_is_given(memory: MemoryStore) -> None:
    answers = [StoreUnavailableError("busy"), PreconditionFailedError("odd"), PreconditionFailedError("odd")]
    commitment = CommitOnce(FaultyStore(memory, "put", times=3, error=lambda: answers.pop(0)))
    commitment.run()
    assert blob(memory, "key") == NEW


def test_a_last_writer_replaces_what_somebody_else_put_in_between(memory: MemoryStore) -> None:
    others = iter([b"theirs", b"theirs again"])
    put_first = at("put", lambda: memory.put("key", next(others)), 1, 2)
    commitment = CommitOnce(HookedStore(memory, before=put_first))
    commitment.run(is_last_writer=True)
    assert commitment.ended == (NEW, [])


def test_a_last_writer_whose_answer_is_lost_does_not_write_over_a_later_one(memory: MemoryStore) -> None:
    overwriting = HookedStore(memory, after=at("put", lambda: memory.put("key", b"a later one"), 1))
    commitment = CommitOnce(FaultyStore(overwriting, "put", when="after"))
    with pytest.raises(SupersededError):
        commitment.run(is_last_writer=True)
    assert blob(memory, "key") == b"a later one"


@pytest.mark.parametrize(
    ("error", "tries", "pauses"),
    [(StoreUnavailableError, MAX_TRIES, [0.5, 1.0]), (InvalidStoreRequestError, 1, [])],
    ids=["transient", "permanent"],
)
def test_a_lasting_error_ends_it_after_the_last_try_and_a_permanent_one_at_once(
    error: type[StoreError], tries: int, pauses: list[float], memory: MemoryStore
) -> None:
    before = blob(memory, "key")
    store = FaultyStore(memory, "put", times=100, error=lambda: error("no"))
    commitment = CommitOnce(store)
    with pytest.raises(error):
        commitment.run()
    assert (store.fired, commitment.slept, blob(memory, "key")) == (tries, pauses, before)


def test_a_blob_that_somebody_else_published_is_left_alone(memory: MemoryStore) -> None:
    store = RecordingStore(memory)
    commitment = CommitOnce(store)
    memory.put("key", NEW[::-1], options=BlobOptions(metadata={MARK_NAME: "theirs"}))  # of the same size
    with pytest.raises(SupersededError):
        commitment.run()
    assert blob(memory, "key") == NEW[::-1]
    assert len(store.named("put")) == 1  # not sent again


def test_a_base_that_was_deleted_meanwhile_is_not_replaced() -> None:
    memory = tiny_store()
    memory.put("key", b"old blob")
    commitment = CommitOnce(memory)
    memory.delete_batch(["key"])
    with pytest.raises(SupersededError, match="nothing is there"):
        commitment.run()
    assert blob(memory, "key") is None


def test_an_error_during_which_somebody_else_published_is_superseded() -> None:
    """Our call failed; what appeared is not ours, however alike its size."""
    memory = tiny_store()
    theirs = at("head", lambda: memory.put("key", NEW[::-1]))
    store = FaultyStore(HookedStore(memory, before=theirs), "put")
    with pytest.raises(SupersededError):
        CommitOnce(store, base=VisibleVersion()).run()
    assert (store.fired, blob(memory, "key")) == (1, NEW[::-1])


def test_the_same_bytes_of_somebody_else_are_ours_only_by_mark_checksum_or_etag() -> None:
    memory = tiny_store(checksum="none")
    memory.put("key", NEW, options=BlobOptions(metadata={MARK_NAME: "theirs"}))
    with pytest.raises(SupersededError):
        was_committed(memory, "key", base=VisibleVersion(), expected=EXPECTED)
    etag = memory.head("key").etag.strip('"')
    by_etag = Expected(len(NEW), "ours", etags=frozenset({etag}))
    assert was_committed(memory, "key", base=VisibleVersion(), expected=by_etag)


def test_a_blob_with_our_very_bytes_that_was_there_before_is_not_yet_ours() -> None:
    memory = tiny_store()
    memory.put("key", NEW, options=BlobOptions(metadata={MARK_NAME: "ours"}))
    base = VisibleVersion.of(memory.head("key"))
    assert was_committed(memory, "key", base=base, expected=EXPECTED) is None


def test_a_store_without_conditions_is_called_without_one(memory: MemoryStore) -> None:
    recording = RecordingStore(memory)

    def refuse(verb: str) -> None:
        if verb == "put" and recording.named("put")[-1].keywords["condition"] is not None:
            raise NotSupportedError("no conditions here")

    # The recording store outside sees both calls; the hook inside refuses the conditional one.
    recording.store = HookedStore(memory, before=refuse)
    CommitOnce(recording).run()
    assert [call.keywords["condition"] is None for call in recording.named("put")] == [False, True]
    assert blob(memory, "key") == NEW


def test_a_stop_before_the_call_prevents_it(memory: MemoryStore) -> None:
    store = RecordingStore(memory)
    commitment = CommitOnce(store)
    with pytest.raises(Interrupted):
        commitment.run(lambda: True)
    assert store.named("put") == []
    assert saved(commitment.checkpoint).state == "opening"  # not past the point of no return


def test_a_lost_lease_prevents_the_call_and_each_repetition(memory: MemoryStore) -> None:
    store = FaultyStore(memory, "put", times=100)
    with pytest.raises(LeaseLostError):
        CommitOnce(store).run(StopAfter(1, LeaseLostError("taken over")))
    assert store.fired == 1


def test_a_look_that_fails_after_a_failed_call_is_the_error(memory: MemoryStore) -> None:
    commitment = CommitOnce(memory)
    commitment.store = store = FaultyStore(FaultyStore(memory, "head", times=100), "put", when="after")
    with pytest.raises(StoreUnavailableError):
        commitment.run()
    assert store.fired == 1
