"""What a store may answer to the completion of an upload, and what is left of the upload then."""

from collections.abc import Callable
from typing import Any

import pytest

from blobferry.checks.arguments import MARK_NAME
from tests.doubles import FaultyStore, WrappedStore, blob, tiny_store, unfinished
from worker.driver import Driver
from worker.errors import (
    BlobExistsError,
    InvalidPartError,
    InvalidStoreRequestError,
    OutcomeUnknownError,
    PermissionDeniedError,
    PreconditionFailedError,
    SlowDownError,
    StoreError,
    StoreUnavailableError,
    WriteConflictError,
)
from worker.stores.blob_values import BlobOptions, PutReceipt
from worker.stores.memory.memory_store import MemoryStore
from worker.transfer.checkpoint import MemoryCheckpoint
from worker.transfer.stop import never
from worker.transfer.upload import commit
from worker.transfer.upload.engine import Engine

DATA = bytes(range(95))
PART = 10
ANSWERS = [
    InvalidPartError,
    InvalidStoreRequestError,
    PermissionDeniedError,
    PreconditionFailedError,
    SlowDownError,
    StoreUnavailableError,
    WriteConflictError,
]


class AnsweringStore(WrappedStore):
    """Answers each completion by the next of these instead of the store; in the end by the store."""

    def __init__(self, store: MemoryStore, *answers: Callable[[MemoryStore, str], Any]) -> None:
        super().__init__(store)
        self.memory = store
        self.completions = 0
        self._answers = list(answers)

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if name == "complete_upload":
            self.completions += 1
            if self._answers:
                return self._answers.pop(0)(self.memory, args[1])
        return super()._do(name, args, keywords)


def raising(error: StoreError, *, loses_upload: bool = False) -> Callable[[MemoryStore, str], Any]:
    def answer(memory: MemoryStore, upload_id: str) -> Any:
        if loses_upload:
            memory.abort_upload("key", upload_id)
        raise error

    return answer


def nothing(memory: MemoryStore, upload_id: str) -> PutReceipt:
    """HTTP 200 and an empty body, or the page of a proxy."""
    return PutReceipt(None)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "PAUSE", 0.0)


@pytest.fixture
def memory() -> MemoryStore:
    return tiny_store()


def driver(store: WrappedStore) -> Driver:
    return Driver(store, engine=Engine(part_size=PART, part_threads=2))


def marked_write(store: WrappedStore, **how: Any) -> MemoryCheckpoint:
    """A write as a job makes it, whose upload nobody else aborts."""
    checkpoint = MemoryCheckpoint("ours")
    driver(store).put_content("/key", DATA, checkpoint=checkpoint, stop=never, **how)
    return checkpoint


@pytest.mark.parametrize("error", ANSWERS)
def test_a_plain_call_that_ends_in_an_error_leaves_no_upload(memory: MemoryStore, error: type[StoreError]) -> None:
    store = FaultyStore(memory, "complete_upload", times=100, error=lambda: error("told by the test"))
    with pytest.raises(StoreError):
        driver(store).put_content("/key", DATA)
    assert (blob(memory, "key"), unfinished(memory)) == (None, [])


def test_a_plain_call_that_is_answered_with_nothing_leaves_no_upload(memory: MemoryStore) -> None:
    store = AnsweringStore(memory, *[nothing] * 100)
    with pytest.raises(StoreUnavailableError, match="no ETag"):
        driver(store).put_content("/key", DATA)
    assert (blob(memory, "key"), unfinished(memory), store.completions) == (None, [], commit.MAX_TRIES)


def test_an_answer_with_nothing_in_it_is_asked_for_again(memory: MemoryStore) -> None:
    store = AnsweringStore(memory, nothing)
    driver(store).put_content("/key", DATA)
    assert (blob(memory, "key"), unfinished(memory), store.completions) == (DATA, [], 2)


def test_an_upload_that_a_conflict_has_taken_is_begun_again(memory: MemoryStore) -> None:
    """409, and then "no such upload": every answer was certain, so no blob can have been there and gone."""
    store = AnsweringStore(memory, raising(WriteConflictError("409"), loses_upload=True))
    marked_write(store)
    assert (blob(memory, "key"), unfinished(memory), store.completions) == (DATA, [], 3)


def test_after_an_ambiguous_answer_a_missing_upload_is_unknown(memory: MemoryStore) -> None:
    store = AnsweringStore(memory, raising(StoreUnavailableError("lost"), loses_upload=True))
    with pytest.raises(OutcomeUnknownError):
        marked_write(store)
    assert blob(memory, "key") is None


@pytest.mark.parametrize("overwrite", [True, False])
def test_equal_bytes_of_somebody_else_are_no_success_and_our_upload_is_aborted(
    memory: MemoryStore, overwrite: bool
) -> None:
    """Somebody writes the same bytes at the very moment of our completion, which is refused for certain."""
    theirs = BlobOptions("text/html", {"owner": "mallory"})

    def lose_race(memory: MemoryStore, upload_id: str) -> Any:
        memory.put("key", DATA, options=theirs)
        raise PreconditionFailedError("412")

    store = AnsweringStore(memory, lose_race)
    if overwrite:
        driver(store).put_content("/key", DATA, options=BlobOptions("text/plain"))
        assert memory.head("key").content_type == "text/plain"
    else:
        with pytest.raises(BlobExistsError):
            driver(store).put_content("/key", DATA, overwrite=False)
        assert memory.head("key").metadata == theirs.metadata
    assert unfinished(memory) == []


def test_a_refusal_of_what_an_earlier_call_has_completed_is_a_success(memory: MemoryStore) -> None:
    """The first completion took effect and its answer was lost; the second one is refused for the blob it made."""

    def lost(memory: MemoryStore, upload_id: str) -> Any:
        memory.put("key", DATA, options=BlobOptions(metadata={MARK_NAME: "ours"}))
        raise PreconditionFailedError("412")

    store = AnsweringStore(memory, lost)
    checkpoint = marked_write(store)
    assert checkpoint.upload is not None
    assert (checkpoint.upload.state, unfinished(memory)) == ("completed", [])
