"""What the memory store and the local store promise alike, beyond the contract that all stores share."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from tests.doubles import blob, known
from tests.stores.contract import checksum, error_of
from tests.stores.local_buckets import FREE, NEW, OLD
from tests.stores.open_upload import OpenUpload
from tests.stores.reused_buffer import ReusedBuffer
from worker.errors import InvalidPartError, InvalidStoreRequestError, PreconditionFailedError, UploadNotFoundError
from worker.stores.blob_values import BlobOptions, Condition, Limits
from worker.stores.local import LocalStore
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.store import Store

SMALL = Limits(min_part_size=4, max_part_size=8, max_parts=3, max_delete=2)
WHOLE = b"hello world"

Make = Callable[..., Store]


@pytest.fixture(params=["memory", "local"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes an empty store with these settings."""

    def make_store(**settings: object) -> Store:
        settings = {"limits": FREE, **settings}
        if request.param == "memory":
            return MemoryStore(**settings)  # type: ignore[arg-type]
        return LocalStore(tmp_path / "bucket", **settings)  # type: ignore[arg-type]

    return make_store


@pytest.mark.parametrize("how", ["replaced", "deleted", "deleted and replaced"])
def test_a_reader_keeps_the_bytes_that_it_was_opened_on(make: Make, how: str) -> None:
    store = make()
    store.put("d/a", OLD)
    with store.get("d/a", 1) as reader:
        assert reader.read(2) == b"ld"
        if "deleted" in how:
            store.delete_batch(["d/a"])
        if "replaced" in how:
            store.put("d/a", NEW)
        assert reader.read() == b" bytes"


@pytest.mark.parametrize("step", [timedelta(0), timedelta(hours=-1)], ids=["stands still", "goes back"])
def test_times_of_a_key_grow_even_if_the_clock_does_not(make: Make, step: timedelta) -> None:
    moments = (datetime(2026, 1, 1, tzinfo=UTC) + step * number for number in count())
    store = make(now=lambda: next(moments))
    times = []
    for _ in range(5):
        store.put("a", b"")
        times.append(known(store.head("a").mod_time))
    assert times == sorted(set(times))


# --- checks ------------------------------------------------------------------------------------------------------


BEYOND_THE_LIMITS: dict[str, Callable[[Store, OpenUpload], object]] = {
    "a large put": lambda store, upload: store.put("a", b"123456789"),
    "a large part": lambda store, upload: upload.send(1, b"123456789"),
    "part 0": lambda store, upload: upload.send(0, b""),
    "part -1": lambda store, upload: upload.send(-1, b""),
    "part 4 of 3": lambda store, upload: upload.send(4, b""),
    "part 0, copied": lambda store, upload: upload.copy(0, "large", 0, 1),
    "a large part, copied": lambda store, upload: upload.copy(1, "large", 0, 9),
    "three deletes at once": lambda store, upload: store.delete_batch(["kept", "b", "c"]),
    "a large copy": lambda store, upload: store.copy("large", "b"),
}


@pytest.mark.parametrize("call", BEYOND_THE_LIMITS.values(), ids=BEYOND_THE_LIMITS)
def test_sizes_and_numbers_follow_the_limits(make: Make, call: Callable[[Store, OpenUpload], object]) -> None:
    store = make(limits=SMALL)
    store.put("kept", b"")
    OpenUpload(store, "large", b"12345678", b"1234").complete()
    upload = OpenUpload(store, "a")
    assert error_of(call, store, upload) is InvalidStoreRequestError
    assert (store.head("kept").size, blob(store, "a"), upload.listed()) == (0, None, [])


def test_a_part_below_the_least_size_completes_nothing_and_may_be_sent_again(make: Make) -> None:
    store = make(limits=SMALL)
    upload = OpenUpload(store, "a", b"123", b"12345678", b"")
    with pytest.raises(InvalidPartError, match="part 1 of 'a' has 3 bytes"):
        upload.complete()
    upload.complete(upload.send(1, b"1234"), *upload.parts[1:])
    assert store.head("a").size == 12
    with pytest.raises(InvalidStoreRequestError, match="12 bytes for 'a'"):
        store.copy("a", "b")


def test_a_part_named_twice_completes_nothing(make: Make) -> None:
    upload = OpenUpload(make(), "a", b"hello")
    assert error_of(upload.complete, *upload.parts, *upload.parts) is InvalidPartError


@pytest.mark.parametrize("size", [0, 9, 11])
def test_a_body_that_lies_about_its_size_stores_nothing(make: Make, tmp_path: Path, size: int) -> None:
    class Liar(ReusedBuffer):
        def __len__(self) -> int:
            return size

    store = make()
    with pytest.raises(InvalidStoreRequestError, match=f"bytes and says {size}"):
        store.put("a", Liar(bytes(10)))
    assert [*store.list_page("").entries, *tmp_path.glob("bucket/files/*")] == []


# --- what is kept ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "kept"), [("crc64nvme", "CRC64NVME"), ("crc32c", "CRC32C"), ("md5", None), ("none", None)]
)
def test_the_checksum_that_is_kept_is_that_of_the_whole_blob(make: Make, setting: str, kept: str | None) -> None:
    store = make(checksum=setting)
    store.put("whole", WHOLE)
    upload = OpenUpload(store, "joined")
    parts = [upload.send(1, b"hello ", checksum=checksum("MD5", b"hello ")), upload.copy(2, "whole", 6, 5)]
    upload.complete(*parts, checksum=checksum(kept or "CRC64NVME", WHOLE))
    store.copy("joined", "copied")
    store.copy("whole", "copied whole")

    assert parts[0].checksum == checksum("MD5", b"hello ")
    found = {store.head(key).checksum for key in ("whole", "joined", "copied")}
    assert found == {kept and checksum(kept, WHOLE)}
    assert store.head("copied whole").etag == store.head("whole").etag


def test_a_checksum_that_parts_do_not_have_is_made_of_the_joined_bytes(make: Make) -> None:
    store = make()
    upload = OpenUpload(store, "a", b"hello ", b"world")
    assert error_of(upload.complete, checksum="ADLER32:AAAAAA==") is InvalidStoreRequestError
    upload.complete(checksum=checksum("MD5", WHOLE))
    assert (blob(store, "a"), store.head("a").checksum) == (WHOLE, checksum("CRC64NVME", WHOLE))


def test_options_are_copied_at_the_call(make: Make) -> None:
    store = make()
    metadata = {"a": "1"}
    store.put("a", b"", options=BlobOptions(metadata=metadata))
    metadata["a"] = "2"
    assert store.head("a").metadata == {"a": "1"}


def test_a_copy_carries_storage_class_and_encryption_and_one_onto_itself_may_change_them(make: Make) -> None:
    store = make()
    store.put("a", b"hello")
    store.copy("a", "a", options=BlobOptions(storage_class="GLACIER", encryption="aws:kms", encryption_key="key-1"))
    store.copy("a", "b")
    for key in ("a", "b"):
        found = store.options_of(key)
        assert (found.storage_class, found.encryption, found.encryption_key) == ("GLACIER", "aws:kms", "key-1")
        assert (store.head(key).storage_class, blob(store, key)) == ("GLACIER", b"hello")


# --- many threads ------------------------------------------------------------------------------------------------


def test_only_one_of_many_threads_creates_a_blob(make: Make) -> None:
    store = make()

    def create(number: int) -> type[Exception] | None:
        return error_of(store.put, "a", str(number).encode(), condition=Condition(if_none_match=True))

    with ThreadPoolExecutor(8) as pool:
        errors = list(pool.map(create, range(200)))
    assert (errors.count(None), errors.count(PreconditionFailedError)) == (1, 199)


def test_only_one_of_many_threads_completes_an_upload(make: Make) -> None:
    upload = OpenUpload(make(), "a", os.urandom(100_000))
    with ThreadPoolExecutor(8) as pool:
        errors = list(pool.map(lambda _: error_of(upload.complete), range(50)))
    assert (errors.count(None), errors.count(UploadNotFoundError)) == (1, 49)
