"""Bugs that a reviewer proved in transfers: each was mended once and must not come back."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.doubles import BytesSource, FaultyStore, WrappedStore, blob, tiny_store, unfinished, write
from worker.driver import Driver
from worker.errors import (
    ConfigurationError,
    LeaseLostError,
    PermissionDeniedError,
    SlowDownError,
    StoreError,
    StoreUnavailableError,
)
from worker.stores.memory.memory_store import MemoryStore
from worker.transfer.checkpoint import MemoryCheckpoint
from worker.transfer.stop import Interrupted
from worker.transfer.upload.engine import Engine

KEY = "videos/7.mp4"
PATH = "/videos/7.mp4"
BLOB = bytes(range(35))
OLD = b"the old blob"


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(part_size=10, part_threads=1)
    yield engine
    engine.close()


@pytest.fixture
def memory() -> MemoryStore:
    return tiny_store()


class NoAbortStore(WrappedStore):
    """Is too busy for parts and allows no abort."""

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if name == "upload_part":
            raise SlowDownError("the true error")
        if name == "abort_upload":
            raise PermissionDeniedError("no abort")
        return super()._do(name, args, keywords)


@pytest.mark.long
def test_an_abort_that_fails_does_not_hide_why_a_plain_write_failed(engine: Engine, memory: MemoryStore) -> None:
    with pytest.raises(SlowDownError, match="the true error"):
        Driver(NoAbortStore(memory), engine=engine).write_stream(PATH, 0, BytesSource(BLOB))


def test_a_plain_write_aborts_an_upload_whose_create_lost_its_answer(engine: Engine, memory: MemoryStore) -> None:
    with pytest.raises(StoreUnavailableError):
        Driver(FaultyStore(memory, "create_upload", times=99, when="after"), engine=engine).write_stream(
            PATH, 0, BytesSource(BLOB)
        )
    assert unfinished(memory) == []


@pytest.mark.parametrize("error", [PermissionDeniedError, SlowDownError])
def test_a_create_that_was_refused_aborts_nobody_elses_upload(
    error: type[StoreError], engine: Engine, memory: MemoryStore
) -> None:
    theirs = memory.create_upload(KEY)  # just opened, its first part is on its way
    store = FaultyStore(memory, "create_upload", times=99, error=lambda: error("no"))
    with pytest.raises(error):
        Driver(store, engine=engine).write_stream(PATH, 0, BytesSource(BLOB))
    assert unfinished(memory) == [theirs]


def test_of_two_uploads_that_may_be_the_lost_one_none_is_aborted(engine: Engine, memory: MemoryStore) -> None:
    theirs = memory.create_upload(KEY)
    store = FaultyStore(memory, "create_upload", when="after")
    Driver(store, engine=engine).write_stream(PATH, 0, BytesSource(BLOB))
    assert theirs in unfinished(memory)


@pytest.mark.parametrize("verb", ["list_uploads", "list_parts"])
def test_a_look_for_lost_uploads_that_fails_does_not_hide_why_a_plain_write_failed(
    verb: str, engine: Engine, memory: MemoryStore
) -> None:
    def create_error() -> BaseException:
        return LookupError("the true error")

    lost = FaultyStore(memory, "create_upload", when="after", error=create_error)
    store = FaultyStore(lost, verb, times=99, error=lambda: SlowDownError("while cleaning up"))
    with pytest.raises(LookupError, match="the true error"):
        Driver(store, engine=engine).write_stream(PATH, 0, BytesSource(BLOB))


class LosingCheckpoint(MemoryCheckpoint):
    """Another run owns the job by the time the store has answered."""

    def opened(self, upload_id: str) -> None:
        raise LeaseLostError("another run owns the job")


def test_a_run_that_lost_its_lease_while_it_opened_an_upload_aborts_it(engine: Engine, memory: MemoryStore) -> None:
    with pytest.raises(LeaseLostError):
        write(engine, memory, KEY, BytesSource(BLOB), checkpoint=LosingCheckpoint())
    assert unfinished(memory) == []


@pytest.mark.parametrize("data", [b"small", BLOB], ids=["a put", "parts"])
def test_an_engine_settles_without_a_source_what_an_earlier_run_has_published(
    data: bytes, engine: Engine, memory: MemoryStore
) -> None:
    checkpoint = MemoryCheckpoint("job")
    assert not engine.resolve_commit(memory, KEY, checkpoint)
    store = FaultyStore(memory, "put", "complete_upload", when="after", error=LookupError)
    with pytest.raises(LookupError):
        write(engine, store, KEY, BytesSource(data), checkpoint=checkpoint)
    assert engine.resolve_commit(memory, KEY, checkpoint)
    assert engine.resolve_commit(memory, KEY, checkpoint), "as often as one likes"
    assert blob(memory, KEY) == data
    upload = checkpoint.load()
    assert upload is not None
    assert upload.state == "completed"


def test_an_upload_at_another_key_is_not_gone_on_with(engine: Engine, memory: MemoryStore) -> None:
    checkpoint = MemoryCheckpoint("job")
    asked = iter([False, False])
    with pytest.raises(Interrupted):
        write(engine, memory, KEY, BytesSource(BLOB), checkpoint=checkpoint, stop=lambda: next(asked, True))
    with pytest.raises(ConfigurationError, match="rootdirectory"):
        write(engine, memory, "elsewhere", BytesSource(BLOB), checkpoint=checkpoint)
    assert blob(memory, "elsewhere") is None


def test_a_completion_in_doubt_at_another_key_is_not_judged_by_what_is_there(
    engine: Engine, memory: MemoryStore
) -> None:
    """The root directory was changed: what readers see at the new key says nothing about the old one."""
    memory.put(KEY, OLD)
    checkpoint = MemoryCheckpoint("job")
    with pytest.raises(StoreUnavailableError):
        write(engine, FaultyStore(memory, "complete_upload", times=99), KEY, BytesSource(BLOB), checkpoint=checkpoint)
    with pytest.raises(ConfigurationError, match="rootdirectory"):
        engine.resolve_commit(memory, "elsewhere", checkpoint)
