"""Commit calls: readers' view decides, not the store's answer, and no other writer's blob is overwritten."""

from collections.abc import Callable
from typing import Any

import pytest

from blobferry.checks.arguments import MARK_NAME
from tests.doubles import FaultyStore, HookedStore, RecordingStore, UnconditionalStore, blob, tiny_store
from tests.transfer.bench import StopAfter, at, saved
from worker.errors import (
    InvalidStoreRequestError,
    LeaseLostError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionFailedError,
    SlowDownError,
    StoreError,
    StoreUnavailableError,
    SupersededError,
    WriteConflictError,
)
from worker.stores.blob_values import BlobOptions, Condition, PutReceipt
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.store import Store
from worker.transfer.checkpoint import MemoryCheckpoint, VisibleVersion
from worker.transfer.stop import Interrupted, never
from worker.transfer.upload.commit import MAX_TRIES, PUT, CommitCall, commit, was_committed
from worker.transfer.upload.target import Target
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

    @property
    def state(self) -> str:
        assert self.checkpoint.upload is not None
        return str(self.checkpoint.upload.state)

    def run(
        self,
        stop: Callable[[], bool] = never,
        *,
        call: CommitCall | None = None,
        is_last_writer: bool = False,
        **how: Any,
    ) -> PutReceipt:
        target = Target(
            store=self.store, key="key", checkpoint=self.checkpoint, stop=stop, is_last_writer=is_last_writer
        )
        put = call or put_new(self.store)
        return commit(target, PUT, put, base=self.base, expected=EXPECTED, sleep=self.slept.append, **how)

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


def test_a_store_that_asks_to_wait_is_left_to_a_later_run(memory: MemoryStore) -> None:
    def slow_down() -> StoreError:
        error = SlowDownError("busy")
        error.retry_after = 30.0
        return error

    commitment = CommitOnce(FaultyStore(memory, "put", times=9, error=slow_down))
    with pytest.raises(SlowDownError):
        commitment.run()
    assert commitment.slept == []


REFUSALS = [PreconditionFailedError, NotSupportedError, InvalidStoreRequestError]


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_store_without_conditions_is_asked_without_them_from_then_on(
    memory: MemoryStore, refusal: type[StoreError]
) -> None:
    """Some compare an ETag with one that they show to nobody, some answer "not implemented" or "bad request"."""
    store = RecordingStore(UnconditionalStore(memory, refusal))
    commitment = CommitOnce(store)
    commitment.run()
    assert [call.keywords.get("condition") is None for call in store.named("put") if call.args[0] == "key"] == [
        False,
        True,
    ]
    assert blob(memory, "key") == NEW
    assert commitment.slept == []
    assert [entry.key for entry in memory.list_page("").entries] == ["key"]  # nothing of the probe is left
    if commitment.base.is_absent:
        memory.delete_batch(["key"])
    store.calls.clear()
    CommitOnce(store).run()
    assert [call.keywords["condition"] for call in store.named("put")] == [None]


def test_a_condition_that_was_lost_in_a_race_is_sent_again(memory: MemoryStore) -> None:
    """Two refusals, each of a blob that was there for a moment only: the third call still carries the condition."""
    store = RecordingStore(FaultyStore(memory, "put", times=2, error=lambda: PreconditionFailedError("a race")))
    commitment = CommitOnce(store)
    commitment.run()
    conditions = [call.keywords["condition"] for call in store.named("put")]
    assert conditions[0] == conditions[1] == conditions[2] is not None
    assert blob(memory, "key") == NEW


def test_a_condition_that_stays_refused_ends_in_an_error_that_the_job_retries(memory: MemoryStore) -> None:
    before = blob(memory, "key")
    store = FaultyStore(memory, "put", times=100, error=lambda: PreconditionFailedError("a race"))
    commitment = CommitOnce(store)
    with pytest.raises(WriteConflictError):
        commitment.run()
    assert (store.fired, blob(memory, "key")) == (MAX_TRIES, before)


@pytest.mark.parametrize("etag", [None, ""])
def test_an_answer_without_an_etag_is_not_believed(memory: MemoryStore, etag: str | None) -> None:
    """An empty answer, or the page of a proxy: the call may have had an effect or not."""
    store = FaultyStore(memory, "put", times=1)
    answers = [PutReceipt(etag), None]

    def call(condition: Condition | None) -> PutReceipt:
        return answers.pop(0) or put_new(store.store)(condition)

    commitment = CommitOnce(store)
    commitment.run(call=call)
    assert (blob(memory, "key"), answers, commitment.slept) == (NEW, [], [0.5])


def test_an_answer_without_an_etag_is_enough_if_readers_see_the_blob(memory: MemoryStore) -> None:
    store = RecordingStore(memory)
    commitment = CommitOnce(store)
    receipt = commitment.run(call=lambda condition: PutReceipt(put_new(store)(condition).etag and None))
    assert (receipt.etag, len(store.named("put"))) == (memory.head("key").etag, 1)


CERTAIN = [PreconditionFailedError, WriteConflictError, InvalidStoreRequestError, PermissionDeniedError]


@pytest.mark.parametrize("error", CERTAIN)
def test_certain_refusals_take_the_point_of_no_return_back(memory: MemoryStore, error: type[StoreError]) -> None:
    commitment = CommitOnce(FaultyStore(memory, "put", times=100, error=lambda: error("no")))
    with pytest.raises(StoreError):
        commitment.run()
    assert commitment.state == "opening"


def test_one_ambiguous_answer_keeps_the_point_of_no_return(memory: MemoryStore) -> None:
    answers = [StoreUnavailableError("lost"), InvalidStoreRequestError("no")]
    commitment = CommitOnce(FaultyStore(memory, "put", times=2, error=lambda: answers.pop(0)))
    with pytest.raises(InvalidStoreRequestError):
        commitment.run()
    assert commitment.state == "completing"


def test_an_ambiguous_answer_of_an_earlier_run_keeps_it_too(memory: MemoryStore) -> None:
    commitment = CommitOnce(FaultyStore(memory, "put", times=2, error=lambda: InvalidStoreRequestError("no")))
    with pytest.raises(InvalidStoreRequestError):
        commitment.run(is_ambiguous=True)
    assert commitment.state == "completing"


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


def test_a_blob_with_our_very_bytes_that_was_there_before_is_not_yet_ours() -> None:
    memory = tiny_store()
    memory.put("key", NEW, options=BlobOptions(metadata={MARK_NAME: "ours"}))
    base = VisibleVersion.of(memory.head("key"))
    assert was_committed(memory, "key", base=base, expected=EXPECTED) is None


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
