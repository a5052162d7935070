"""A source becomes the blob, from nothing or from wherever an earlier run stopped."""

from itertools import count
from typing import Any

import pytest

from blobferry.checks.arguments import MARK_NAME
from blobferry.contract import UploadState
from tests.doubles import BytesSource, FaultyStore, HookedStore, RecordingStore, blob, tiny_store, unfinished, write
from tests.transfer.bench import BLOB, KEY, OLD, PART, Bench, StopAfter, ToldCheckpoint, at, content, saved
from worker.errors import (
    BlobExistsError,
    ChecksumMismatchError,
    ConfigurationError,
    LeaseLostError,
    OutcomeUnknownError,
    PermissionDeniedError,
    PlanError,
    SourceChangedError,
    StoreUnavailableError,
    SupersededError,
    UploadNotFoundError,
)
from worker.stores.blob_values import BlobOptions, Limits
from worker.transfer.checkpoint import MemoryCheckpoint
from worker.transfer.stop import Interrupted
from worker.transfer.upload.commit import resolve_commit
from worker.transfer.upload.engine import Engine

#: One put, and ten parts.
both_sizes = pytest.mark.parametrize("size", [5, 95])


@pytest.fixture(params=[None, OLD], ids=["new", "over an old blob"])
def over(request: pytest.FixtureRequest, bench: Bench) -> Bench:
    """The bench, whose key is free or not."""
    if request.param:
        bench.memory.put(KEY, request.param)
    return bench


# --- from nothing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 2 * PART, 95, 1000])
@pytest.mark.parametrize("checksum", ["crc64nvme", "crc32c", "md5", "none"])
def test_a_source_of_any_size_becomes_the_blob(size: int, checksum: str, engine: Engine) -> None:
    store, checkpoint = tiny_store(checksum=checksum), MemoryCheckpoint("job")
    write(engine, store, KEY, BytesSource(content(size)), checkpoint=checkpoint)
    assert (blob(store, KEY), unfinished(store), checkpoint.bytes_sent) == (content(size), [], size)
    upload, head = saved(checkpoint), store.head(KEY)
    assert (upload.state, upload.etag) == (UploadState.COMPLETED, head.etag)
    assert head.metadata[MARK_NAME] == checkpoint.mark


@pytest.mark.parametrize("size", [0, 1, PART])
def test_a_blob_of_one_part_is_one_put(size: int, bench: Bench) -> None:
    store = bench.record(content(size))
    assert [call.data for call in store.named("put", "create_upload")] == [content(size)]


def test_a_larger_blob_is_sent_in_parts_with_their_checksums(bench: Bench) -> None:
    store = bench.record()
    assert store.sent() == [(n + 1, BLOB[n * PART : (n + 1) * PART]) for n in range(10)]
    assert all(str(call.keywords["checksum"]).startswith("CRC64NVME:") for call in store.named("upload_part"))
    (complete,) = store.named("complete_upload")
    assert (complete.keywords["checksum"], complete.keywords["size"]) == (bench.memory.head(KEY).checksum, 95)


def test_parts_larger_than_the_buffer_are_sent_in_windows() -> None:
    """The store demands larger parts than the engine was made for."""
    engine = Engine(part_size=4, part_threads=2)
    store = tiny_store(limits=Limits(min_part_size=40))
    write(engine, store, KEY, BytesSource(BLOB), checkpoint=MemoryCheckpoint("job"))
    engine.close()
    assert blob(store, KEY) == BLOB


@pytest.mark.parametrize("size", [1, 95])
def test_options_travel_with_the_blob_beside_the_mark(size: int, bench: Bench) -> None:
    bench.write(content(size), options=BlobOptions("video/mp4", {"title": "seven"}))
    head = bench.memory.head(KEY)
    assert (head.content_type, head.metadata) == ("video/mp4", {"title": "seven", MARK_NAME: "job"})


@both_sizes
@pytest.mark.parametrize(("old", "overwrite"), [(OLD, True), (None, False)], ids=["over an old blob", "a new one"])
def test_a_blob_is_written_where_overwrite_allows_it(
    old: bytes | None, overwrite: bool, size: int, bench: Bench
) -> None:
    if old:
        bench.memory.put(KEY, old)
    bench.write(content(size), overwrite=overwrite)
    assert bench.blob == content(size)


@both_sizes
def test_without_overwrite_an_old_blob_stays_and_nothing_is_sent(size: int, bench: Bench) -> None:
    bench.memory.put(KEY, OLD)
    store = RecordingStore(bench.memory)
    with pytest.raises(BlobExistsError):
        bench.write(content(size), store, overwrite=False)
    assert (bench.blob, store.named("put", "create_upload")) == (OLD, [])


def test_bytes_that_cannot_be_planned_fail_before_the_store_is_asked(bench: Bench) -> None:
    store = RecordingStore(tiny_store(limits=Limits(min_part_size=1, max_part_size=9, max_parts=10)))
    with pytest.raises(PlanError):
        bench.write(store=store)
    assert {call.verb for call in store.calls} <= {"head"}


def test_the_row_of_an_upload_comes_before_its_creation_and_its_id_after(bench: Bench) -> None:
    told: list[str] = []
    checkpoint = ToldCheckpoint(MemoryCheckpoint(), told.append)
    bench.write(store=HookedStore(bench.memory, before=told.append), checkpoint=checkpoint)
    for steps in (["opening", "create_upload", "opened"], ["completing", "complete_upload", "completed"]):
        first = told.index(steps[0])
        assert told[first : first + 3] == steps


# --- from where an earlier run stopped -------------------------------------------------------------------------------


def numbers(store: RecordingStore) -> list[int]:
    """Numbers of the parts that were sent."""
    return [number for number, _ in store.sent()]


@pytest.mark.parametrize("parts", [1, 4, 9])
def test_a_resumed_run_sends_only_missing_parts(parts: int, bench: Bench) -> None:
    bench.interrupt(parts)
    assert bench.blob is None
    store = bench.record()
    assert (numbers(store), store.named("create_upload")) == (list(range(parts + 1, 11)), [])
    assert bench.blob == BLOB
    assert bench.checkpoint.bytes_sent == 95


def test_a_run_that_is_stopped_again_and_again_sends_every_part_once(bench: Bench) -> None:
    store = RecordingStore(bench.memory)
    for _ in range(10):
        bench.interrupt(1, store)
    bench.write(store=store)
    assert numbers(store) == list(range(1, 11))
    assert bench.blob == BLOB


def test_a_finished_checkpoint_sends_nothing_more(bench: Bench) -> None:
    bench.write()
    assert bench.record().calls == []


def test_another_part_size_of_the_next_worker_does_not_move_the_parts(bench: Bench) -> None:
    bench.interrupt(4)
    bench.engine = Engine(part_size=33, part_threads=1)
    store = bench.record()
    bench.engine.close()
    assert [len(data) for _, data in store.sent()] == [10, 10, 10, 10, 10, 5]
    assert bench.blob == BLOB


def test_parts_that_landed_without_rows_are_adopted_and_not_sent_again(bench: Bench) -> None:
    bench.interrupt(6)
    bench.checkpoint.drop([2, 3, 5])  # their commit never came
    assert numbers(bench.record()) == [7, 8, 9, 10]
    assert bench.blob == BLOB


def test_a_part_with_other_bytes_in_the_store_is_sent_again(bench: Bench) -> None:
    bench.interrupt(3)
    for number in (2, 7):
        bench.memory.upload_part(KEY, bench.upload_id, number, b"wrong part")
    assert numbers(bench.record()) == [2, 4, 5, 6, 7, 8, 9, 10]
    assert bench.blob == BLOB


def test_a_source_that_changed_between_two_runs_is_refused(bench: Bench) -> None:
    bench.memory.put(KEY, OLD)
    source, store = BytesSource(BLOB), RecordingStore(bench.memory)
    bench.interrupt(4, data=source)
    source.replace(BLOB[::-1])
    with pytest.raises(SourceChangedError):
        bench.write(source.again(), store)
    assert (store.calls, bench.blob) == ([], OLD)


@both_sizes
def test_a_source_that_changes_while_it_is_read_is_not_committed(size: int, bench: Bench) -> None:
    class Changing(BytesSource):
        """Replaced once its first bytes were read."""

        def readinto(self, offset: int, buffer: memoryview) -> None:
            super().readinto(offset, buffer)
            if self.version == 1:
                self.replace(content(size)[::-1])

    bench.memory.put(KEY, OLD)
    with pytest.raises(SourceChangedError):
        bench.write(Changing(content(size)))
    assert bench.blob == OLD


def test_an_error_of_the_store_leaves_the_upload_to_continue(bench: Bench) -> None:
    with pytest.raises(StoreUnavailableError):
        bench.write(store=FaultyStore(bench.memory, "upload_part", fail_at=6))
    assert len(bench.record().sent()) <= 5
    assert (bench.blob, bench.unfinished) == (BLOB, [])


def test_bytes_that_were_damaged_on_the_way_are_refused_by_the_store(bench: Bench) -> None:
    class Damaging(RecordingStore):
        def upload_part(self, *args: Any, **keywords: Any) -> Any:
            return super().upload_part(*args[:3], b"damaged by", **keywords)

    with pytest.raises(ChecksumMismatchError):
        bench.write(store=Damaging(bench.memory))
    assert bench.blob is None


def test_an_upload_at_another_key_is_not_continued(bench: Bench) -> None:
    bench.interrupt(2)
    with pytest.raises(ConfigurationError, match="rootdirectory"):
        bench.write(key="elsewhere")
    assert blob(bench.memory, "elsewhere") is None


# --- the destination, meanwhile --------------------------------------------------------------------------------------


def test_an_upload_that_is_older_than_the_blob_at_its_key_is_not_completed(over: Bench) -> None:
    """A versioned bucket dates a blob by the opening of its upload: the newer blob would hide ours."""
    over.interrupt(5)
    first = over.upload_id
    over.memory.put(KEY, b"somebody's newer blob")
    over.write()
    assert (over.blob, over.unfinished) == (BLOB, [first])
    for left in (over.checkpoint.abandoned, over.checkpoint.unfinished()):  # the caller aborts it
        assert [upload.upload_id for upload in left] == [first]


def test_the_same_blob_written_again_at_the_destination_counts_as_a_change(bench: Bench) -> None:
    bench.memory.put(KEY, OLD)
    bench.interrupt(5)
    bench.memory.put(KEY, OLD)  # the ETag is the same, the time is not
    bench.write()
    assert (bench.blob, len(bench.checkpoint.abandoned)) == (BLOB, 1)


def test_an_upload_that_was_aborted_between_two_runs_is_begun_again(over: Bench) -> None:
    over.interrupt(5)
    over.abort_all()
    over.write()
    assert (over.blob, over.unfinished) == (BLOB, [])


def test_an_upload_that_is_aborted_while_its_parts_are_sent_is_begun_again(bench: Bench) -> None:
    store = bench.record(store=HookedStore(bench.memory, before=at("upload_part", bench.abort_all, 4)))
    assert len(store.named("create_upload")) == 2
    assert (bench.blob, bench.unfinished) == (BLOB, [])


def gone_at_completion(bench: Bench) -> HookedStore:
    """A store whose lifecycle rule takes the upload away at the very last moment."""
    return HookedStore(bench.memory, before=at("complete_upload", bench.abort_all, 1))


def test_an_upload_gone_at_its_completion_with_no_blob_there_is_an_unknown_outcome(bench: Bench) -> None:
    """It may have been completed and its blob deleted by now: sending it again would bring a deleted blob back."""
    store = RecordingStore(gone_at_completion(bench))
    with pytest.raises(OutcomeUnknownError):
        bench.write(store=store)
    assert (bench.blob, len(store.named("create_upload"))) == (None, 1)


def test_an_upload_gone_at_its_completion_with_the_old_blob_there_is_begun_again(bench: Bench) -> None:
    bench.memory.put(KEY, OLD)
    bench.write(store=gone_at_completion(bench))
    assert bench.blob == BLOB


@both_sizes
@pytest.mark.parametrize("error", [StoreUnavailableError, UploadNotFoundError, PermissionDeniedError])
def test_a_commit_call_that_worked_and_answered_an_error_is_done(
    size: int, error: type[Exception], over: Bench
) -> None:
    store = FaultyStore(over.memory, "put", "complete_upload", when="after", error=lambda: error("odd answer"))
    over.write(content(size), store)
    assert (store.fired, over.blob) == (1, content(size))
    assert saved(over.checkpoint).etag == over.memory.head(KEY).etag


def lose_the_answer(bench: Bench, size: int) -> None:
    """A run whose commit call worked, and whose worker could not look any more."""
    failing = FaultyStore(bench.memory, "put", "complete_upload", when="after")
    looks = 1 if size <= PART else 2  # before it commits; an upload in parts also when it begins
    blind = FaultyStore(failing, "head", fail_at=looks + 1, times=100)
    with pytest.raises(StoreUnavailableError):
        bench.write(content(size), blind)
    assert (failing.fired, bench.blob) == (1, content(size))


@both_sizes
def test_a_blob_that_somebody_put_over_ours_is_left_alone_by_the_next_run(size: int, bench: Bench) -> None:
    lose_the_answer(bench, size)
    bench.memory.put(KEY, b"somebody's newer blob")
    store = RecordingStore(bench.memory)
    with pytest.raises(SupersededError):
        bench.write(content(size), store)
    assert (bench.blob, store.named("put", "complete_upload", "create_upload")) == (b"somebody's newer blob", [])


def test_a_blob_that_was_committed_and_deleted_is_not_brought_back(bench: Bench) -> None:
    lose_the_answer(bench, 95)
    bench.memory.delete_batch([KEY])
    with pytest.raises(OutcomeUnknownError):
        bench.write()
    assert bench.blob is None


def test_a_put_whose_blob_was_deleted_is_repeated(bench: Bench) -> None:
    """A put leaves no upload to tell by: still the base. Only a multipart upload can know."""
    lose_the_answer(bench, 5)
    bench.memory.delete_batch([KEY])
    bench.write(content(5))
    assert bench.blob == content(5)


@both_sizes
def test_a_lost_lease_right_before_the_commit_call_commits_nothing(size: int, bench: Bench) -> None:
    bench.memory.put(KEY, OLD)
    stop = StopAfter(0 if size == 5 else 10, LeaseLostError("taken over"))
    with pytest.raises(LeaseLostError):
        bench.write(content(size), stop=stop)
    assert bench.blob == OLD


@pytest.mark.parametrize(("size", "asked"), [(5, 1), (95, 11)])
def test_a_stop_is_asked_before_each_part_and_each_commit_call(size: int, asked: int, bench: Bench) -> None:
    questions = count()
    bench.write(content(size), stop=lambda: next(questions) < 0)
    assert next(questions) == asked


# --- resolving a commit without a source -----------------------------------------------------------------------------


@both_sizes
def test_an_engine_resolves_an_earlier_commit_without_a_source(size: int, bench: Bench) -> None:
    def resolve() -> bool:
        return resolve_commit(bench.memory, KEY, bench.checkpoint)

    assert not resolve()
    with pytest.raises(LookupError):
        bench.write(content(size), FaultyStore(bench.memory, "put", "complete_upload", when="after", error=LookupError))
    assert resolve()
    assert resolve(), "as often as one likes"
    assert (bench.blob, saved(bench.checkpoint).state) == (content(size), "completed")


def test_a_completion_in_doubt_at_another_key_is_not_judged_by_the_blob_there(bench: Bench) -> None:
    """The root directory was changed: the blob at the new key proves nothing about the old one."""
    bench.memory.put(KEY, OLD)
    with pytest.raises(StoreUnavailableError):
        bench.write(store=FaultyStore(bench.memory, "complete_upload", times=99))
    with pytest.raises(ConfigurationError, match="rootdirectory"):
        resolve_commit(bench.memory, "elsewhere", bench.checkpoint)


# --- plain driver calls ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["create_upload", "upload_part", "complete_upload"])
@pytest.mark.parametrize("error", [StoreUnavailableError, PermissionDeniedError])
def test_a_driver_call_that_fails_leaves_the_old_blob_and_no_upload(
    verb: str, error: type[Exception], bench: Bench
) -> None:
    bench.memory.put(KEY, OLD)
    store = FaultyStore(bench.memory, verb, times=100, error=lambda: error("down"))
    with pytest.raises(error):
        bench.call(store)
    assert (bench.blob, bench.unfinished) == (OLD, [])


def test_a_driver_call_over_a_changing_destination_leaves_no_upload(bench: Bench) -> None:
    bench.call(HookedStore(bench.memory, before=at("upload_part", lambda: bench.memory.put(KEY, OLD), 1)))
    assert (bench.blob, bench.unfinished) == (BLOB, [])


def test_a_driver_call_with_a_checkpoint_of_the_callers_keeps_its_upload(bench: Bench) -> None:
    with pytest.raises(Interrupted):
        bench.call(checkpoint=bench.checkpoint, stop=StopAfter(4))
    assert len(bench.unfinished) == 1
    bench.call(checkpoint=bench.checkpoint)
    assert bench.blob == BLOB
