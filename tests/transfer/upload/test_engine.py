"""The engine: a source becomes the blob, from nothing or from wherever an earlier run stopped."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from blobferry.checks.arguments import MARK_NAME
from blobferry.contract import UploadState
from tests.doubles import (
    BytesSource,
    FaultyStore,
    HookedStore,
    RecordingStore,
    When,
    WrappedStore,
    blob,
    tiny_store,
    unfinished,
    write,
)
from worker.driver import Driver
from worker.errors import (
    BlobExistsError,
    ChecksumMismatchError,
    ConfigurationError,
    InvalidOffsetError,
    LeaseLostError,
    NotSupportedError,
    OutcomeUnknownError,
    PermissionDeniedError,
    PlanError,
    SlowDownError,
    SourceChangedError,
    StoreError,
    StoreUnavailableError,
    SupersededError,
    UploadNotFoundError,
)
from worker.stores.blob_values import BlobOptions, Limits
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.store import Store
from worker.transfer.checkpoint import Checkpoint, MemoryCheckpoint, VisibleVersion
from worker.transfer.stop import Interrupted, Stop, never
from worker.transfer.upload.abort import CLOCK_TOLERANCE, abort_upload
from worker.transfer.upload.engine import Engine

PART = 10
THREADS = 2
KEY = "videos/7.mp4"
OLD = b"the old blob"


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(part_size=PART, part_threads=THREADS)
    yield engine
    engine.close()


@pytest.fixture
def memory() -> MemoryStore:
    return tiny_store()


def content(size: int) -> bytes:
    """Bytes of which no two parts are alike."""
    return b"".join(number.to_bytes(2, "big") for number in range(size // 2 + 1))[:size]


BLOB = content(95)  # ten parts, the last one smaller


class Halt:
    """A stop that says yes once it was asked so many times."""

    def __init__(self, after: int, error: BaseException | None = None) -> None:
        self._left = after
        self._error = error

    def __call__(self) -> bool:
        self._left -= 1
        if self._left < 0 and self._error:
            raise self._error
        return self._left < 0


def interrupted(engine: Engine, store: Store, checkpoint: MemoryCheckpoint, parts: int, data: bytes = BLOB) -> None:
    """A run that is stopped after so many parts."""
    with pytest.raises(Interrupted):
        write(engine, store, KEY, BytesSource(data), checkpoint=checkpoint, stop=Halt(parts))


# --- from nothing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 2 * PART, 95, 1000])
@pytest.mark.parametrize("checksum", ["crc64nvme", "crc32c", "md5", "none"])
def test_a_source_of_any_size_becomes_the_blob(size: int, checksum: str, engine: Engine) -> None:
    store, checkpoint = tiny_store(checksum=checksum), MemoryCheckpoint("job")
    write(engine, store, KEY, BytesSource(content(size)), checkpoint=checkpoint)
    assert blob(store, KEY) == content(size)
    assert unfinished(store) == []
    assert checkpoint.upload is not None
    assert checkpoint.upload.state == UploadState.COMPLETED
    assert checkpoint.upload.etag == store.head(KEY).etag
    assert checkpoint.bytes_sent == size
    assert store.head(KEY).metadata[MARK_NAME] == checkpoint.mark


@pytest.mark.parametrize("size", [0, 1, PART])
def test_a_blob_of_one_part_is_one_put(size: int, engine: Engine, memory: MemoryStore) -> None:
    store = RecordingStore(memory)
    write(engine, store, KEY, BytesSource(content(size)), checkpoint=MemoryCheckpoint("job"))
    assert [call.data for call in store.named("put", "create_upload")] == [content(size)]


def test_a_larger_blob_is_sent_in_parts_of_the_part_size_with_their_checksums(
    engine: Engine, memory: MemoryStore
) -> None:
    store = RecordingStore(memory)
    write(engine, store, KEY, BytesSource(BLOB), checkpoint=MemoryCheckpoint("job"))
    assert store.sent() == [(n + 1, BLOB[n * PART : (n + 1) * PART]) for n in range(10)]
    assert all(str(call.keywords["checksum"]).startswith("CRC64NVME:") for call in store.named("upload_part"))
    (complete,) = store.named("complete_upload")
    assert complete.keywords["checksum"] == memory.head(KEY).checksum
    assert complete.keywords["size"] == 95


def test_parts_larger_than_the_buffer_are_sent_in_windows(memory: MemoryStore) -> None:
    """The store demands larger parts than the engine was made for."""
    engine = Engine(part_size=4, part_threads=2)
    store = tiny_store(limits=Limits(min_part_size=40))
    write(engine, store, KEY, BytesSource(BLOB), checkpoint=MemoryCheckpoint("job"))
    engine.close()
    assert blob(store, KEY) == BLOB


def test_options_travel_with_the_blob_beside_the_mark(engine: Engine, memory: MemoryStore) -> None:
    options = BlobOptions("video/mp4", {"title": "seven"})
    for key, size in (("small", 1), ("large", 95)):
        write(engine, memory, key, BytesSource(content(size)), checkpoint=MemoryCheckpoint("m"), options=options)
        head = memory.head(key)
        assert head.content_type == "video/mp4"
        assert head.metadata == {"title": "seven", MARK_NAME: "m"}


@pytest.mark.parametrize("size", [5, 95])
def test_an_old_blob_is_replaced(size: int, engine: Engine, memory: MemoryStore) -> None:
    memory.put(KEY, OLD)
    write(engine, memory, KEY, BytesSource(content(size)), checkpoint=MemoryCheckpoint("job"))
    assert blob(memory, KEY) == content(size)


@pytest.mark.parametrize("size", [5, 95])
def test_without_overwrite_a_blob_that_is_there_stays_and_nothing_is_sent(
    size: int, engine: Engine, memory: MemoryStore
) -> None:
    memory.put(KEY, OLD)
    store = RecordingStore(memory)
    with pytest.raises(BlobExistsError):
        write(engine, store, KEY, BytesSource(content(size)), checkpoint=MemoryCheckpoint("job"), overwrite=False)
    assert blob(memory, KEY) == OLD
    assert store.named("put", "create_upload") == []


@pytest.mark.parametrize("size", [5, 95])
def test_without_overwrite_a_blob_that_appears_at_the_last_moment_stays(
    size: int, engine: Engine, memory: MemoryStore
) -> None:
    def appear(verb: str) -> None:
        if verb in ("put", "complete_upload"):
            memory.put(KEY, OLD)

    store = HookedStore(memory, before=appear)
    with pytest.raises(BlobExistsError):
        write(engine, store, KEY, BytesSource(content(size)), checkpoint=MemoryCheckpoint("job"), overwrite=False)
    assert blob(memory, KEY) == OLD


@pytest.mark.parametrize("size", [5, 95])
def test_without_overwrite_a_new_blob_is_written(size: int, engine: Engine, memory: MemoryStore) -> None:
    write(engine, memory, KEY, BytesSource(content(size)), checkpoint=MemoryCheckpoint("job"), overwrite=False)
    assert blob(memory, KEY) == content(size)


def test_what_cannot_be_planned_fails_before_the_store_hears_of_it(engine: Engine) -> None:
    store = RecordingStore(tiny_store(limits=Limits(min_part_size=1, max_part_size=9, max_parts=10)))
    with pytest.raises(PlanError):
        write(engine, store, KEY, BytesSource(BLOB), checkpoint=MemoryCheckpoint("job"))
    assert {call.verb for call in store.calls} <= {"head"}


# --- from where an earlier run stopped -----------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 4, 9])
def test_a_resumed_run_sends_only_what_is_missing(parts: int, engine: Engine, memory: MemoryStore) -> None:
    checkpoint = MemoryCheckpoint("job")
    interrupted(engine, memory, checkpoint, parts)
    assert blob(memory, KEY) is None
    store = RecordingStore(memory)
    write(engine, store, KEY, BytesSource(BLOB), checkpoint=checkpoint)
    assert [number for number, _ in store.sent()] == list(range(parts + 1, 11))
    assert blob(memory, KEY) == BLOB
    assert checkpoint.bytes_sent == 95
    assert store.named("create_upload") == []


def test_a_run_that_is_stopped_again_and_again_gets_there_with_every_part_sent_once(
    engine: Engine, memory: MemoryStore
) -> None:
    store, checkpoint = RecordingStore(memory), MemoryCheckpoint("job")
    for _ in range(10):
        interrupted(engine, store, checkpoint, 1)
    write(engine, store, KEY, BytesSource(BLOB), checkpoint=checkpoint)
    assert [number for number, _ in store.sent()] == list(range(1, 11))
    assert blob(memory, KEY) == BLOB


def test_a_finished_checkpoint_sends_nothing_more(engine: Engine, memory: MemoryStore) -> None:
    checkpoint = MemoryCheckpoint("job")
    write(engine, memory, KEY, BytesSource(BLOB), checkpoint=checkpoint)
    store = RecordingStore(memory)
    write(engine, store, KEY, BytesSource(BLOB), checkpoint=checkpoint)
    assert store.calls == []


def test_another_part_size_of_the_next_worker_does_not_move_the_parts(engine: Engine, memory: MemoryStore) -> None:
    checkpoint = MemoryCheckpoint("job")
    interrupted(engine, memory, checkpoint, 4)
    other = Engine(part_size=33, part_threads=1)
    store = RecordingStore(memory)
    write(other, store, KEY, BytesSource(BLOB), checkpoint=checkpoint)
    other.close()
    assert [len(data) for _, data in store.sent()] == [10, 10, 10, 10, 10, 5]
    assert blob(memory, KEY) == BLOB


def test_parts_that_landed_without_rows_are_adopted_and_not_sent_again(engine: Engine, memory: MemoryStore) -> None:
    checkpoint = MemoryCheckpoint("job")
    interrupted(engine, memory, checkpoint, 6)
    checkpoint.drop([2, 3, 5])  # their commit never came
    store = RecordingStore(memory)
    write(engine, store, KEY, BytesSource(BLOB), checkpoint=checkpoint)
    assert [number for number, _ in store.sent()] == [7, 8, 9, 10]
    assert blob(memory, KEY) == BLOB


def test_a_part_with_other_bytes_in_the_store_is_sent_again(engine: Engine, memory: MemoryStore) -> None:
    checkpoint = MemoryCheckpoint("job")
    interrupted(engine, memory, checkpoint, 3)
    assert checkpoint.upload is not None
    assert checkpoint.upload.upload_id is not None
    memory.upload_part(KEY, checkpoint.upload.upload_id, 2, b"wrong part")
    memory.upload_part(KEY, checkpoint.upload.upload_id, 7, b"wrong part")
    store = RecordingStore(memory)
    write(engine, store, KEY, BytesSource(BLOB), checkpoint=checkpoint)
    assert [number for number, _ in store.sent()] == [2, 4, 5, 6, 7, 8, 9, 10]
    assert blob(memory, KEY) == BLOB


def test_a_source_that_changed_between_two_runs_never_makes_a_blob_of_two_halves(
    engine: Engine, memory: MemoryStore
) -> None:
    memory.put(KEY, OLD)
    checkpoint, source = MemoryCheckpoint("job"), BytesSource(BLOB)
    with pytest.raises(Interrupted):
        write(engine, memory, KEY, source, checkpoint=checkpoint, stop=Halt(4))
    source.replace(BLOB[::-1])
    store = RecordingStore(memory)
    with pytest.raises(SourceChangedError):
        write(engine, store, KEY, source.again(), checkpoint=checkpoint)
    assert store.calls == []
    assert blob(memory, KEY) == OLD


@pytest.mark.parametrize("size", [5, 95])
def test_a_source_that_changes_while_it_is_read_is_not_published(
    size: int, engine: Engine, memory: MemoryStore
) -> None:
    memory.put(KEY, OLD)
    source = BytesSource(content(size))

    def change(verb: str) -> None:
        if verb in ("head", "upload_part") and source.version == 1:
            source.replace(content(size)[::-1])

    with pytest.raises(SourceChangedError):
        write(engine, HookedStore(memory, after=change), KEY, source, checkpoint=MemoryCheckpoint("job"))
    assert blob(memory, KEY) == OLD


def test_an_error_of_the_store_leaves_the_upload_to_go_on_with(engine: Engine, memory: MemoryStore) -> None:
    checkpoint = MemoryCheckpoint("job")
    with pytest.raises(StoreUnavailableError):
        write(engine, FaultyStore(memory, "upload_part", fail_at=6), KEY, BytesSource(BLOB), checkpoint=checkpoint)
    store = RecordingStore(memory)
    write(engine, store, KEY, BytesSource(BLOB), checkpoint=checkpoint)
    assert blob(memory, KEY) == BLOB
    assert len(store.sent()) <= 5
    assert unfinished(memory) == []


def test_bytes_that_were_damaged_on_the_way_are_refused_by_the_store(engine: Engine, memory: MemoryStore) -> None:
    class Damaging(RecordingStore):
        def upload_part(self, *args: Any, **keywords: Any) -> Any:
            return super().upload_part(*args[:3], b"damaged by", **keywords)

    with pytest.raises(ChecksumMismatchError):
        write(engine, Damaging(memory), KEY, BytesSource(BLOB), checkpoint=MemoryCheckpoint("job"))
    assert blob(memory, KEY) is None


# --- the destination, meanwhile ------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [None, OLD], ids=["new", "over an old blob"])
def test_an_upload_that_is_older_than_the_blob_at_its_key_is_not_completed(
    old: bytes | None, engine: Engine, memory: MemoryStore
) -> None:
    """A versioned bucket dates a blob by the opening of its upload: completing it would hide ours."""
    if old:
        memory.put(KEY, old)
    checkpoint = MemoryCheckpoint("job")
    interrupted(engine, memory, checkpoint, 5)
    assert checkpoint.upload is not None
    first = checkpoint.upload.upload_id
    memory.put(KEY, b"somebody's newer blob")
    write(engine, memory, KEY, BytesSource(BLOB), checkpoint=checkpoint)
    assert blob(memory, KEY) == BLOB
    assert [upload.upload_id for upload in checkpoint.abandoned] == [first]
    assert [upload.upload_id for upload in checkpoint.unfinished()] == [first]  # the caller aborts it
    assert unfinished(memory) == [first]


def test_the_same_blob_written_again_at_the_destination_counts_as_a_change(engine: Engine, memory: MemoryStore) -> None:
    memory.put(KEY, OLD)
    checkpoint = MemoryCheckpoint("job")
    interrupted(engine, memory, checkpoint, 5)
    memory.put(KEY, OLD)  # the ETag is the same, the time is not
    write(engine, memory, KEY, BytesSource(BLOB), checkpoint=checkpoint)
    assert len(checkpoint.abandoned) == 1
    assert blob(memory, KEY) == BLOB


@pytest.mark.parametrize("old", [None, OLD], ids=["new", "over an old blob"])
def test_an_upload_that_was_aborted_behind_our_back_is_begun_again(
    old: bytes | None, engine: Engine, memory: MemoryStore
) -> None:
    if old:
        memory.put(KEY, old)
    checkpoint = MemoryCheckpoint("job")
    interrupted(engine, memory, checkpoint, 5)
    memory.abort_upload(KEY, unfinished(memory)[0])
    write(engine, memory, KEY, BytesSource(BLOB), checkpoint=checkpoint)
    assert blob(memory, KEY) == BLOB
    assert unfinished(memory) == []


def test_an_upload_that_is_aborted_while_its_parts_are_sent_is_begun_again(engine: Engine, memory: MemoryStore) -> None:
    def abort(verb: str) -> None:
        if verb == "upload_part" and len(list(memory.list_uploads())) == 1 and not aborted:
            (upload_id,) = unfinished(memory)
            if len(list(memory.list_parts(KEY, upload_id))) == 3:
                aborted.append(upload_id)
                memory.abort_upload(KEY, upload_id)

    aborted: list[str] = []
    write(engine, HookedStore(memory, before=abort), KEY, BytesSource(BLOB), checkpoint=MemoryCheckpoint("job"))
    assert aborted
    assert blob(memory, KEY) == BLOB
    assert unfinished(memory) == []


def gone_at_completion(memory: MemoryStore) -> HookedStore:
    """A store whose lifecycle rule takes the upload away at the very last moment."""

    def take(verb: str) -> None:
        if verb == "complete_upload" and not taken:
            taken.append(verb)
            memory.abort_upload(KEY, unfinished(memory)[0])

    taken: list[str] = []
    return HookedStore(memory, before=take)


def test_an_upload_that_is_gone_at_its_completion_with_nothing_there_is_an_unknown_outcome(
    engine: Engine, memory: MemoryStore
) -> None:
    """It may have been completed and its blob deleted by now: sending it again would bring a deleted blob back."""
    store = RecordingStore(gone_at_completion(memory))
    with pytest.raises(OutcomeUnknownError):
        write(engine, store, KEY, BytesSource(BLOB), checkpoint=MemoryCheckpoint("job"))
    assert blob(memory, KEY) is None
    assert len(store.named("create_upload")) == 1


def test_an_upload_that_is_gone_at_its_completion_with_the_old_blob_still_there_is_begun_again(
    engine: Engine, memory: MemoryStore
) -> None:
    memory.put(KEY, OLD)
    write(engine, gone_at_completion(memory), KEY, BytesSource(BLOB), checkpoint=MemoryCheckpoint("job"))
    assert blob(memory, KEY) == BLOB


@pytest.mark.parametrize("size", [5, 95])
@pytest.mark.parametrize("old", [None, OLD], ids=["new", "over an old blob"])
@pytest.mark.parametrize("error", [StoreUnavailableError, UploadNotFoundError, PermissionDeniedError])
def test_a_publishing_call_that_worked_and_answered_an_error_is_done(
    size: int, old: bytes | None, error: type[Exception], engine: Engine, memory: MemoryStore
) -> None:
    if old:
        memory.put(KEY, old)
    checkpoint = MemoryCheckpoint("job")
    store = FaultyStore(memory, "put", "complete_upload", when="after", error=lambda: error("odd answer"))
    write(engine, store, KEY, BytesSource(content(size)), checkpoint=checkpoint)
    assert store.fired == 1
    assert blob(memory, KEY) == content(size)
    assert checkpoint.upload is not None
    assert checkpoint.upload.etag == memory.head(KEY).etag


@pytest.mark.parametrize("size", [5, 95])
def test_a_blob_that_somebody_put_over_ours_is_left_alone_by_the_next_run(
    size: int, engine: Engine, memory: MemoryStore
) -> None:
    """Ours was published, the answer was lost with the worker, then somebody else wrote."""
    checkpoint = MemoryCheckpoint("job")
    failing = FaultyStore(memory, "put", "complete_upload", when="after")
    blind = FaultyStore(failing, "head", fail_at=3, times=100)  # it looks when it begins and before it publishes
    with pytest.raises(StoreUnavailableError):
        write(engine, blind, KEY, BytesSource(content(size)), checkpoint=checkpoint)
    assert failing.fired == 1
    assert blob(memory, KEY) == content(size)
    memory.put(KEY, b"somebody's newer blob")
    store = RecordingStore(memory)
    with pytest.raises(SupersededError):
        write(engine, store, KEY, BytesSource(content(size)), checkpoint=checkpoint)
    assert blob(memory, KEY) == b"somebody's newer blob"
    assert store.named("put", "complete_upload", "create_upload") == []


@pytest.mark.parametrize("size", [5, 95])
def test_a_blob_that_was_published_and_deleted_is_not_brought_back(
    size: int, engine: Engine, memory: MemoryStore
) -> None:
    checkpoint = MemoryCheckpoint("job")
    failing = FaultyStore(memory, "put", "complete_upload", when="after")
    blind = FaultyStore(failing, "head", fail_at=3, times=100)  # it looks when it begins and before it publishes
    with pytest.raises(StoreUnavailableError):
        write(engine, blind, KEY, BytesSource(content(size)), checkpoint=checkpoint)
    assert failing.fired == 1
    memory.delete_batch([KEY])
    if size == 5:
        # A put leaves no upload to tell by: still the base, so it is repeated. Only a multipart upload can know.
        write(engine, memory, KEY, BytesSource(content(size)), checkpoint=checkpoint)
        assert blob(memory, KEY) == content(size)
    else:
        with pytest.raises(OutcomeUnknownError):
            write(engine, memory, KEY, BytesSource(content(size)), checkpoint=checkpoint)
        assert blob(memory, KEY) is None


@pytest.mark.parametrize("size", [5, 95])
def test_a_lost_lease_right_before_publishing_publishes_nothing(size: int, engine: Engine, memory: MemoryStore) -> None:
    memory.put(KEY, OLD)
    stop = Halt(0 if size == 5 else 10, LeaseLostError("taken over"))
    with pytest.raises(LeaseLostError):
        write(engine, memory, KEY, BytesSource(content(size)), checkpoint=MemoryCheckpoint("job"), stop=stop)
    assert blob(memory, KEY) == OLD


@pytest.mark.parametrize(("size", "asked"), [(5, 1), (95, 11)])
def test_a_stop_is_asked_before_each_part_and_each_publishing_call(
    size: int, asked: int, engine: Engine, memory: MemoryStore
) -> None:
    questions: list[int] = []

    def stop() -> bool:
        questions.append(1)
        return False

    write(engine, memory, KEY, BytesSource(content(size)), checkpoint=MemoryCheckpoint("job"), stop=stop)
    assert len(questions) == asked


# --- uploads whose id was never written down -----------------------------------------------------------------------


def opening_row(memory: MemoryStore) -> tuple[MemoryCheckpoint, str]:
    """A run that died between the store's answer to create_upload and its commit."""
    checkpoint = MemoryCheckpoint("job")
    checkpoint.pin_source(95, BytesSource(BLOB).fingerprint)
    checkpoint.opening(KEY, size=95, part_size=PART, base=VisibleVersion())
    return checkpoint, memory.create_upload(KEY)


def test_a_lost_upload_is_found_and_aborted(engine: Engine, memory: MemoryStore) -> None:
    checkpoint, _ = opening_row(memory)
    write(engine, memory, KEY, BytesSource(BLOB), checkpoint=checkpoint)
    assert blob(memory, KEY) == BLOB
    assert unfinished(memory) == []


def test_uploads_of_other_programs_are_left_alone(engine: Engine, memory: MemoryStore) -> None:
    checkpoint, _ = opening_row(memory)
    with_a_part = memory.create_upload(KEY)
    memory.upload_part(KEY, with_a_part, 1, b"theirs")
    at_a_longer_key = memory.create_upload(KEY + ".bak")
    write(engine, memory, KEY, BytesSource(BLOB), checkpoint=checkpoint)
    assert set(unfinished(memory)) == {with_a_part, at_a_longer_key}


@pytest.mark.parametrize("direction", [-1, 1])
def test_an_upload_that_was_opened_at_another_time_is_not_ours(
    direction: int, engine: Engine, memory: MemoryStore
) -> None:
    checkpoint, lost = opening_row(memory)
    (entry,) = memory.list_uploads()
    shift = direction * (CLOCK_TOLERANCE + timedelta(minutes=1))
    elsewhere = tiny_store(now=lambda: entry.opened_at + shift)
    theirs = elsewhere.create_upload(KEY)
    write(engine, elsewhere, KEY, BytesSource(BLOB), checkpoint=checkpoint)
    assert unfinished(elsewhere) == [theirs]
    assert lost != theirs


def test_an_upload_that_another_row_knows_is_left_alone(engine: Engine, memory: MemoryStore) -> None:
    checkpoint, _ = opening_row(memory)
    known = memory.create_upload(KEY)

    class Ledger(MemoryCheckpoint):
        def known_upload_ids(self, key: str) -> set[str]:
            return {known, *super().known_upload_ids(key)}

    ledger = Ledger(checkpoint.mark)
    ledger.upload = checkpoint.upload
    write(engine, memory, KEY, BytesSource(BLOB), checkpoint=ledger)
    assert unfinished(memory) == [known]


@pytest.mark.parametrize("error", [NotSupportedError, PermissionDeniedError])
def test_a_store_that_cannot_list_uploads_does_not_keep_a_job_from_going_on(
    error: type[Exception], engine: Engine, memory: MemoryStore
) -> None:
    """Nothing may depend on list_uploads for correctness; it needs a permission of its own, too."""
    checkpoint, _ = opening_row(memory)
    store = FaultyStore(memory, "list_uploads", times=100, error=lambda: error("no listing"))
    write(engine, store, KEY, BytesSource(BLOB), checkpoint=checkpoint)
    assert blob(memory, KEY) == BLOB


def test_a_lost_upload_that_somebody_else_aborts_at_the_same_moment_is_no_error(
    engine: Engine, memory: MemoryStore
) -> None:
    checkpoint, lost = opening_row(memory)

    def abort_first(verb: str) -> None:
        if verb == "abort_upload":
            memory.abort_upload(KEY, lost)

    write(engine, HookedStore(memory, before=abort_first), KEY, BytesSource(BLOB), checkpoint=checkpoint)
    assert blob(memory, KEY) == BLOB


# --- plain driver calls --------------------------------------------------------------------------------------------


@pytest.fixture
def driver_on(engine: Engine) -> Callable[[Store], Driver]:
    return lambda store: Driver(store, root="/top/", engine=engine)


def test_a_driver_writes_below_its_root_and_returns_the_bytes_read(
    driver_on: Callable[[Store], Driver], memory: MemoryStore
) -> None:
    assert driver_on(memory).write_stream("/a/b", 0, BytesSource(BLOB)) == 95
    assert blob(memory, "top/a/b") == BLOB


@pytest.mark.parametrize("verb", ["create_upload", "upload_part", "complete_upload"])
@pytest.mark.parametrize("error", [StoreUnavailableError, PermissionDeniedError])
def test_a_driver_call_that_fails_leaves_the_old_blob_and_no_upload(
    verb: str, error: type[Exception], driver_on: Callable[[Store], Driver], memory: MemoryStore
) -> None:
    memory.put("top/a", OLD)
    store = FaultyStore(memory, verb, times=100, error=lambda: error("down"))
    with pytest.raises(error):
        driver_on(store).write_stream("/a", 0, BytesSource(BLOB))
    assert blob(memory, "top/a") == OLD
    assert unfinished(memory) == []


def test_a_driver_call_over_a_changing_destination_leaves_no_upload(
    driver_on: Callable[[Store], Driver], memory: MemoryStore
) -> None:
    def change(verb: str) -> None:
        if verb == "upload_part" and blob(memory, "top/a") is None:
            memory.put("top/a", OLD)

    driver_on(HookedStore(memory, before=change)).write_stream("/a", 0, BytesSource(BLOB))
    assert blob(memory, "top/a") == BLOB
    assert unfinished(memory) == []


def test_a_driver_call_with_a_checkpoint_of_the_callers_keeps_its_upload(
    driver_on: Callable[[Store], Driver], memory: MemoryStore
) -> None:
    checkpoint = MemoryCheckpoint("job")
    stop: Stop = Halt(4)
    with pytest.raises(Interrupted):
        driver_on(memory).write_stream("/a", 0, BytesSource(BLOB), checkpoint=checkpoint, stop=stop)
    assert len(unfinished(memory)) == 1
    driver_on(memory).write_stream("/a", 0, BytesSource(BLOB), checkpoint=checkpoint, stop=never)
    assert blob(memory, "top/a") == BLOB


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_upload_that_could_not_be_opened_at_once_leaves_no_other_behind(
    when: When, engine: Engine, memory: MemoryStore
) -> None:
    store = FaultyStore(memory, "create_upload", when=when)
    write(engine, store, KEY, BytesSource(BLOB), checkpoint=MemoryCheckpoint("job"))
    assert store.fired == 1
    assert blob(memory, KEY) == BLOB
    assert unfinished(memory) == []


def test_a_driver_refuses_offsets_that_no_blob_can_have(
    driver_on: Callable[[Store], Driver], memory: MemoryStore
) -> None:
    for offset in (-1, 10_000 * 5 * 1024**3 + 1):
        with pytest.raises(InvalidOffsetError, match=str(offset)):
            driver_on(memory).write_stream("/a", offset, BytesSource(BLOB))
    assert blob(memory, "top/a") is None


A_KEY = "a"


@pytest.fixture
def wide() -> Iterator[Engine]:
    wide = Engine(part_size=PART, part_threads=3)
    yield wide
    wide.close()


class ToldCheckpoint:
    """A checkpoint that tells of each call right before it."""

    def __init__(self, checkpoint: Checkpoint, tell: Callable[[str], object]) -> None:
        self.mark = checkpoint.mark
        self._checkpoint = checkpoint
        self._tell = tell

    def __getattr__(self, name: str) -> Any:
        self._tell(name)
        return getattr(self._checkpoint, name)


def test_the_row_of_an_upload_comes_before_the_store_hears_of_it_and_its_id_right_after(
    wide: Engine, memory: MemoryStore
) -> None:
    told: list[str] = []
    checkpoint = ToldCheckpoint(MemoryCheckpoint(), told.append)
    write(wide, HookedStore(memory, before=told.append), A_KEY, BytesSource(bytes(95)), checkpoint=checkpoint)
    create = told.index("create_upload")
    assert told[create - 1 : create + 2] == ["opening", "create_upload", "opened"]
    complete = told.index("complete_upload")
    assert told[complete - 1 : complete + 2] == ["completing", "complete_upload", "completed"]


class LateParts(WrappedStore):
    """Parts that were in flight land after each of the first aborts."""

    def __init__(self, store: Store, aborts: int) -> None:
        super().__init__(store)
        self.aborts = 0
        self._late = aborts

    def abort_upload(self, key: str, upload_id: str) -> None:
        self.aborts += 1
        if self.aborts > self._late:
            super().abort_upload(key, upload_id)


def test_an_upload_is_aborted_until_the_store_lists_no_part_of_it(memory: MemoryStore) -> None:
    upload_id = memory.create_upload(A_KEY)
    memory.upload_part(A_KEY, upload_id, 1, b"late")
    with pytest.raises(StoreUnavailableError, match="still has parts"):  # it stays in the ledger, to be tried again
        abort_upload(LateParts(memory, aborts=99), A_KEY, upload_id)
    late = LateParts(memory, aborts=2)
    abort_upload(late, A_KEY, upload_id)
    assert late.aborts == 3
    assert unfinished(memory) == []


PATH = "/videos/7.mp4"


SHORT_BLOB = bytes(range(35))


@pytest.fixture
def narrow() -> Iterator[Engine]:
    narrow = Engine(part_size=10, part_threads=1)
    yield narrow
    narrow.close()


class NoAbortStore(WrappedStore):
    """Is too busy for parts and allows no abort."""

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if name == "upload_part":
            raise SlowDownError("the true error")
        if name == "abort_upload":
            raise PermissionDeniedError("no abort")
        return super()._do(name, args, keywords)


@pytest.mark.long
def test_an_abort_that_fails_does_not_hide_why_a_plain_write_failed(narrow: Engine, memory: MemoryStore) -> None:
    with pytest.raises(SlowDownError, match="the true error"):
        Driver(NoAbortStore(memory), engine=narrow).write_stream(PATH, 0, BytesSource(SHORT_BLOB))


def test_a_plain_write_aborts_an_upload_whose_create_lost_its_answer(narrow: Engine, memory: MemoryStore) -> None:
    with pytest.raises(StoreUnavailableError):
        Driver(FaultyStore(memory, "create_upload", times=99, when="after"), engine=narrow).write_stream(
            PATH, 0, BytesSource(SHORT_BLOB)
        )
    assert unfinished(memory) == []


@pytest.mark.parametrize("error", [PermissionDeniedError, SlowDownError])
def test_a_create_that_was_refused_aborts_nobody_elses_upload(
    error: type[StoreError], narrow: Engine, memory: MemoryStore
) -> None:
    theirs = memory.create_upload(KEY)  # just opened, its first part is on its way
    store = FaultyStore(memory, "create_upload", times=99, error=lambda: error("no"))
    with pytest.raises(error):
        Driver(store, engine=narrow).write_stream(PATH, 0, BytesSource(SHORT_BLOB))
    assert unfinished(memory) == [theirs]


def test_of_two_uploads_that_may_be_the_lost_one_none_is_aborted(narrow: Engine, memory: MemoryStore) -> None:
    theirs = memory.create_upload(KEY)
    store = FaultyStore(memory, "create_upload", when="after")
    Driver(store, engine=narrow).write_stream(PATH, 0, BytesSource(SHORT_BLOB))
    assert theirs in unfinished(memory)


@pytest.mark.parametrize("verb", ["list_uploads", "list_parts"])
def test_a_look_for_lost_uploads_that_fails_does_not_hide_why_a_plain_write_failed(
    verb: str, narrow: Engine, memory: MemoryStore
) -> None:
    def create_error() -> BaseException:
        return LookupError("the true error")

    lost = FaultyStore(memory, "create_upload", when="after", error=create_error)
    store = FaultyStore(lost, verb, times=99, error=lambda: SlowDownError("while cleaning up"))
    with pytest.raises(LookupError, match="the true error"):
        Driver(store, engine=narrow).write_stream(PATH, 0, BytesSource(SHORT_BLOB))


class LosingCheckpoint(MemoryCheckpoint):
    """Another run owns the job by the time the store has answered."""

    def opened(self, upload_id: str) -> None:
        raise LeaseLostError("another run owns the job")


def test_a_run_that_lost_its_lease_while_it_opened_an_upload_aborts_it(narrow: Engine, memory: MemoryStore) -> None:
    with pytest.raises(LeaseLostError):
        write(narrow, memory, KEY, BytesSource(SHORT_BLOB), checkpoint=LosingCheckpoint())
    assert unfinished(memory) == []


@pytest.mark.parametrize("data", [b"small", SHORT_BLOB], ids=["a put", "parts"])
def test_an_engine_settles_without_a_source_what_an_earlier_run_has_published(
    data: bytes, narrow: Engine, memory: MemoryStore
) -> None:
    checkpoint = MemoryCheckpoint("job")
    assert not narrow.resolve_commit(memory, KEY, checkpoint)
    store = FaultyStore(memory, "put", "complete_upload", when="after", error=LookupError)
    with pytest.raises(LookupError):
        write(narrow, store, KEY, BytesSource(data), checkpoint=checkpoint)
    assert narrow.resolve_commit(memory, KEY, checkpoint)
    assert narrow.resolve_commit(memory, KEY, checkpoint), "as often as one likes"
    assert blob(memory, KEY) == data
    upload = checkpoint.load()
    assert upload is not None
    assert upload.state == "completed"


def test_an_upload_at_another_key_is_not_gone_on_with(narrow: Engine, memory: MemoryStore) -> None:
    checkpoint = MemoryCheckpoint("job")
    asked = iter([False, False])
    with pytest.raises(Interrupted):
        write(narrow, memory, KEY, BytesSource(SHORT_BLOB), checkpoint=checkpoint, stop=lambda: next(asked, True))
    with pytest.raises(ConfigurationError, match="rootdirectory"):
        write(narrow, memory, "elsewhere", BytesSource(SHORT_BLOB), checkpoint=checkpoint)
    assert blob(memory, "elsewhere") is None


def test_a_completion_in_doubt_at_another_key_is_not_judged_by_what_is_there(
    narrow: Engine, memory: MemoryStore
) -> None:
    """The root directory was changed: what readers see at the new key says nothing about the old one."""
    memory.put(KEY, OLD)
    checkpoint = MemoryCheckpoint("job")
    with pytest.raises(StoreUnavailableError):
        write(
            narrow,
            FaultyStore(memory, "complete_upload", times=99),
            KEY,
            BytesSource(SHORT_BLOB),
            checkpoint=checkpoint,
        )
    with pytest.raises(ConfigurationError, match="rootdirectory"):
        narrow.resolve_commit(memory, "elsewhere", checkpoint)
