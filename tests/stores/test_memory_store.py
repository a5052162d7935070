"""What the memory store promises beyond the contract that all stores share."""

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from tests.stores.reused_buffer import ReusedBuffer
from worker.errors import InvalidPartError, InvalidStoreRequestError, PreconditionFailedError, UploadNotFoundError
from worker.stores.blob_values import BlobOptions, Condition, Limits
from worker.stores.memory.memory_store import MemoryStore

SMALL = Limits(min_part_size=4, max_part_size=8, max_parts=3, max_delete=2)


def test_a_reader_that_was_opened_before_a_replacement_reads_the_old_bytes() -> None:
    store = MemoryStore()
    store.put("a", b"old bytes")
    with store.get("a") as reader:
        assert reader.read(3) == b"old"
        store.put("a", b"NEW")
        assert reader.read() == b" bytes"


def test_a_reader_outlives_the_deletion_of_its_blob() -> None:
    store = MemoryStore()
    store.put("a", b"old bytes")
    with store.get("a") as reader:
        store.delete_batch(["a"])
        assert reader.read() == b"old bytes"


@pytest.mark.parametrize("step", [timedelta(0), timedelta(hours=-1)])
def test_times_grow_even_if_the_clock_stands_still_or_goes_back(step: timedelta) -> None:
    moments = iter(datetime(2026, 1, 1, tzinfo=UTC) + step * number for number in range(10))
    store = MemoryStore(now=lambda: next(moments))
    times = []
    for _ in range(5):
        store.put("a", b"")
        times.append(store.head("a").mod_time)
    assert times == sorted(set(times))


def test_part_sizes_follow_the_limits() -> None:
    store = MemoryStore(limits=SMALL)
    upload_id = store.create_upload("a")
    parts = [store.upload_part("a", upload_id, number, data) for number, data in ((1, b"1234"), (2, b"5"))]
    store.complete_upload("a", upload_id, parts)
    assert store.head("a").size == 5


def test_a_part_below_the_least_size_completes_nothing_and_may_be_sent_again() -> None:
    store = MemoryStore(limits=SMALL)
    upload_id = store.create_upload("a")
    parts = [store.upload_part("a", upload_id, number, data) for number, data in ((1, b"123"), (2, b"5"))]
    with pytest.raises(InvalidPartError, match="part 1 of 'a' has 3 bytes"):
        store.complete_upload("a", upload_id, parts)
    parts[0] = store.upload_part("a", upload_id, 1, b"1234")
    store.complete_upload("a", upload_id, parts)


def test_a_part_or_put_above_the_largest_size_is_refused() -> None:
    store = MemoryStore(limits=SMALL)
    upload_id = store.create_upload("a")
    with pytest.raises(InvalidStoreRequestError):
        store.upload_part("a", upload_id, 1, b"123456789")
    with pytest.raises(InvalidStoreRequestError):
        store.put("a", b"123456789")


def test_a_copy_above_the_largest_size_is_refused() -> None:
    store = MemoryStore(limits=SMALL)
    upload_id = store.create_upload("a")
    parts = [store.upload_part("a", upload_id, number, b"12345678") for number in (1, 2)]
    store.complete_upload("a", upload_id, parts)
    with pytest.raises(InvalidStoreRequestError):
        store.copy("a", "b")


def test_part_numbers_follow_the_limits() -> None:
    store = MemoryStore(limits=SMALL)
    upload_id = store.create_upload("a")
    store.upload_part("a", upload_id, 3, b"")
    for number in (0, -1, 4):
        with pytest.raises(InvalidStoreRequestError):
            store.upload_part("a", upload_id, number, b"")


def test_a_batch_of_deletes_follows_the_limits() -> None:
    store = MemoryStore(limits=SMALL)
    store.put("a", b"")
    with pytest.raises(InvalidStoreRequestError):
        store.delete_batch(["a", "b", "c"])
    assert store.head("a").size == 0


def test_a_part_named_twice_completes_nothing() -> None:
    store = MemoryStore(limits=SMALL)
    upload_id = store.create_upload("a")
    part = store.upload_part("a", upload_id, 1, b"1234")
    with pytest.raises(InvalidPartError):
        store.complete_upload("a", upload_id, [part, part])


def test_a_body_that_lies_about_its_size_stores_nothing() -> None:
    class Liar(ReusedBuffer):
        def __len__(self) -> int:
            return 3

    store = MemoryStore()
    body = Liar(b"")
    with pytest.raises(InvalidStoreRequestError, match="0 bytes and says 3"):
        store.put("a", body)
    assert list(store.list_page("").entries) == []


def test_only_one_of_many_threads_creates_a_blob() -> None:
    store = MemoryStore()

    def create(number: int) -> bool:
        try:
            store.put("a", str(number).encode(), condition=Condition(if_none_match=True))
        except PreconditionFailedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(create, range(200))) == 1


def test_only_one_of_many_threads_completes_an_upload() -> None:
    store = MemoryStore()
    upload_id = store.create_upload("a")
    part = store.upload_part("a", upload_id, 1, os.urandom(100_000))

    def complete(_: int) -> bool:
        try:
            store.complete_upload("a", upload_id, [part])
        except UploadNotFoundError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(complete, range(50))) == 1


def test_options_are_copied_at_the_call() -> None:
    store = MemoryStore()
    metadata = {"a": "1"}
    store.put("a", b"", options=BlobOptions(metadata=metadata))
    metadata["a"] = "2"
    assert store.head("a").metadata == {"a": "1"}


def test_storage_class_and_encryption_are_carried_by_a_copy() -> None:
    store = MemoryStore()
    options = BlobOptions(storage_class="GLACIER", encryption="aws:kms", encryption_key="key-1")
    store.put("a", b"", options=options)
    store.copy("a", "b")
    copied = store.options_of("b")
    assert (copied.storage_class, copied.encryption, copied.encryption_key) == ("GLACIER", "aws:kms", "key-1")


@pytest.mark.parametrize(
    ("checksum", "kept"), [("crc64nvme", "CRC64NVME:"), ("crc32c", "CRC32C:"), ("md5", None), ("none", None)]
)
def test_the_checksum_that_is_kept_is_the_configured_one(checksum: str, kept: str | None) -> None:
    store = MemoryStore(checksum=checksum)
    store.put("a", b"hello")
    found = store.head("a").checksum
    assert found is None if kept is None else found is not None and found.startswith(kept)
