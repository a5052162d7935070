"""Blobs as sources: one version only, and every error of their store as one of a source."""

import random
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from io import BytesIO
from typing import Any

import pytest

from tests.doubles import FaultyStore, HookedStore, RecordingStore, WrappedStore, tiny_store
from tests.transfer.bench import BLOB, Bench, at, read, read_by_threads
from worker.errors import (
    BucketNotFoundError,
    ChecksumMismatchError,
    CredentialsError,
    NotSupportedError,
    PermissionDeniedError,
    SlowDownError,
    SourceChangedError,
    SourceError,
    SourceNotAllowedError,
    SourceNotFoundError,
    SourceUnavailableError,
    StoreError,
    StoreUnavailableError,
)
from worker.stores.blob_values import Reader
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.store import Store
from worker.transfer.sources.blob_source import BlobSource, version_of

DATA = random.Random(7).randbytes(100_000)
URL = "blob://archive/a"


@pytest.fixture
def store() -> MemoryStore:
    store = tiny_store()
    store.put("a", DATA)
    return store


def test_a_blob_is_read_at_any_offset_by_the_version_first_seen(store: MemoryStore) -> None:
    recording = RecordingStore(store)
    source = BlobSource(recording, "a", URL)
    etag = store.head("a").etag
    assert (source.url, source.size, source.fingerprint) == (URL, 100_000, version_of(store.head("a")))
    assert read(source, 70_000, 30_000) == DATA[70_000:]
    assert read(source, 100_000, 0) == b""
    source.check()
    source.close()
    assert [call.keywords for call in recording.named("get")] == [{"if_match": etag}]


def test_many_threads_read_at_once(store: MemoryStore) -> None:
    assert read_by_threads(BlobSource(store, "a", URL)) == DATA * 2


def test_an_empty_blob_is_a_source_of_no_bytes(store: MemoryStore) -> None:
    store.put("a", b"")
    source = BlobSource(store, "a", URL)
    assert (source.size, read(source, 0, 0)) == (0, b"")
    source.check()


def test_reading_past_the_end_is_a_changed_source(store: MemoryStore) -> None:
    with pytest.raises(SourceChangedError, match="has 100000 bytes, 100001 were expected"):
        read(BlobSource(store, "a", URL), 99_999, 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda store: store.put("a", DATA[::-1]),
        lambda store: store.put("a", DATA + b"more"),
        lambda store: store.put("a", b"x"),
        lambda store: store.delete_batch(["a"]),
    ],
)
def test_a_blob_that_changed_or_went_is_noticed(change: Callable[[MemoryStore], Any], store: MemoryStore) -> None:
    source = BlobSource(store, "a", URL)
    change(store)
    with pytest.raises(SourceChangedError, match=URL):
        read(source, 50_000, 10)
    with pytest.raises(SourceChangedError, match=URL):
        source.check()


ERRORS: dict[type[SourceError], list[type[StoreError]]] = {
    SourceUnavailableError: [StoreUnavailableError, SlowDownError, CredentialsError, ChecksumMismatchError],
    SourceNotAllowedError: [PermissionDeniedError],
    SourceNotFoundError: [BucketNotFoundError],
    SourceError: [NotSupportedError],
}


@pytest.mark.parametrize("verb", ["head", "get"])
@pytest.mark.parametrize(("error", "expected"), [(error, kind) for kind, errors in ERRORS.items() for error in errors])
def test_an_error_of_the_store_comes_out_as_one_of_the_source(
    verb: str, error: type[StoreError], expected: type[SourceError], store: MemoryStore
) -> None:
    faulty = FaultyStore(store, verb, times=1000, error=lambda: error("why"))
    with pytest.raises(SourceError, match=f"{URL}: why") as caught:
        read(BlobSource(faulty, "a", URL), 0, 10)
    assert (type(caught.value), type(caught.value.__cause__)) == (expected, error)


def test_no_blob_is_no_source(store: MemoryStore) -> None:
    with pytest.raises(SourceNotFoundError, match=URL):
        BlobSource(store, "b", URL)


def test_trouble_in_between_is_waited_out(store: MemoryStore) -> None:
    assert read(BlobSource(FaultyStore(store, "get", times=4), "a", URL), 0, 10) == DATA[:10]


class BreakingStore(WrappedStore):
    """Breaks off each get after so many bytes: with an error, or as if the blob ended there."""

    def __init__(self, store: Store, after: int, error: StoreError | None) -> None:
        super().__init__(store)
        self.offsets: list[int] = []
        self._after = after
        self._error = error

    def get(self, *args: Any, **keywords: Any) -> AbstractContextManager[Reader]:
        key, offset, size = args
        self.offsets.append(offset)
        with self.store.get(key, offset, min(size, self._after), **keywords) as reader:
            data = reader.read()
        return closing(Breaking(data, self._error if len(data) < size else None))


class Breaking(BytesIO):
    etag = ""

    def __init__(self, data: bytes, error: StoreError | None) -> None:
        super().__init__(data)
        self._error = error

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data and self._error:
            raise self._error
        return data


drops = pytest.mark.parametrize("error", [StoreUnavailableError("dropped"), None])


@drops
def test_a_dropped_connection_is_resumed_at_the_byte_that_it_had_reached(
    error: StoreError | None, store: MemoryStore
) -> None:
    breaking = BreakingStore(store, 25_000, error)
    assert read(BlobSource(breaking, "a", URL), 0, 100_000) == DATA
    assert breaking.offsets == [0, 25_000, 50_000, 75_000]


@drops
def test_drops_without_end_are_an_error_that_a_retry_may_mend(error: StoreError | None, store: MemoryStore) -> None:
    breaking = BreakingStore(store, 10, error)
    with pytest.raises(SourceUnavailableError):
        read(BlobSource(breaking, "a", URL), 0, 100_000)
    assert breaking.offsets == [0, 10, 20, 30, 40]


def test_a_blob_replaced_between_a_drop_and_the_resume_never_gives_two_halves(store: MemoryStore) -> None:
    replacing = HookedStore(store, after=at("get", lambda: store.put("a", DATA[::-1]), 1))
    with pytest.raises(SourceChangedError):
        read(BlobSource(BreakingStore(replacing, 10, None), "a", URL), 0, 100)


def test_a_transfer_from_store_to_store(store: MemoryStore, bench: Bench) -> None:
    store.put("a", BLOB)
    bench.write(BlobSource(store, "a", URL))
    assert bench.blob == BLOB


def test_a_store_that_ignores_the_condition_is_found_out_by_the_etag_of_its_answer(store: MemoryStore) -> None:
    class Ignoring(WrappedStore):
        def get(self, *args: Any, if_match: str | None = None) -> Any:
            return self.store.get(*args)

    source = BlobSource(Ignoring(store), "a", URL)
    store.put("a", DATA[::-1])
    with pytest.raises(SourceChangedError, match="its ETag is"):
        read(source, 0, 10)
