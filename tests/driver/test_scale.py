"""Sizes that no machine of ours holds, on a store that counts and does not keep."""

import itertools
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest

from tests.driver.blobs_and_readers import MakeDriver
from tests.driver.counting_store import CountingStore, Endless, EndlessReader, by_reading
from worker.driver import Driver
from worker.errors import InvalidOffsetError, PlanError
from worker.stores.blob_values import Limits
from worker.transfer.plan import Ladder, plan_parts
from worker.transfer.upload.engine import Engine
from worker.transfer.upload.server_copy import Copying
from worker.units import GIB, KIB, MIB

pytestmark = pytest.mark.no_cover

TIB = 1024 * GIB
LARGEST = 10_000 * 5 * GIB  #: bytes; 48.8 TiB
COPYING = Copying(threads=2)
readers = pytest.mark.parametrize("reader", [Endless, EndlessReader], ids=["source", "reader"])


@pytest.fixture
def driver_of() -> Iterator[MakeDriver]:
    with ExitStack() as engines:

        def make(store: CountingStore, part_size: int = 16 * MIB) -> Driver:
            engine = engines.enter_context(closing(Engine(part_size=part_size, part_threads=2)))
            return Driver(store, engine=engine, copying=COPYING)

        yield make


@contextmanager
def peak_below(most: int) -> Iterator[None]:
    """What is done inside never holds more bytes."""
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < most


# --- known sizes ---------------------------------------------------------------------------------------------------


def test_a_source_of_48_tib_fits_into_10_000_parts(driver_of: MakeDriver) -> None:
    store = CountingStore()
    driver = driver_of(store)
    assert driver.write_stream("/blob", 0, Endless(LARGEST)) == LARGEST
    (parts,) = store.completed
    assert [part.part_number for part in parts] == list(range(1, 10_001))
    assert driver.stat("/blob").size == LARGEST == sum(part.size for part in parts)


def test_one_byte_more_is_refused_before_anything_is_sent(driver_of: MakeDriver) -> None:
    store, source = CountingStore(), Endless(LARGEST + 1)
    with pytest.raises(PlanError):
        driver_of(store).write_stream("/blob", 0, source)
    assert set(store.calls) <= {"head"}
    assert source.largest == 0


@pytest.mark.parametrize("size", [5 * GIB + 1, 97 * GIB, 10_000 * 16 * MIB, 10_000 * 16 * MIB + 1, 5 * TIB, 48 * TIB])
def test_parts_grow_with_the_size_and_never_are_more_than_10_000(driver_of: MakeDriver, size: int) -> None:
    store = CountingStore()
    driver_of(store).write_stream("/blob", 0, Endless(size))
    (parts,) = store.completed
    assert len(parts) <= 10_000
    assert sum(part.size for part in parts) == size


def test_a_blob_of_48_tib_is_moved(driver_of: MakeDriver) -> None:
    store = CountingStore()
    store.pretend("a", LARGEST)
    driver_of(store).move("/a", "/b")
    assert {key: head.size for key, head in store.blobs.items()} == {"b": LARGEST}
    assert len(store.completed[0]) == 10_000


@readers
@pytest.mark.parametrize("size", [5 * GIB, 5 * GIB + 1, 5 * TIB, LARGEST - 5 * GIB])
def test_a_byte_is_appended_to_a_blob_of_any_size(driver_of: MakeDriver, reader: Any, size: int) -> None:
    store = CountingStore()
    store.pretend("a", size)
    driver_of(store).write_stream("/a", size, reader(1))
    (parts,) = store.completed
    assert len(parts) <= 10_000
    assert (sum(part.size for part in parts), store.calls.count("upload_part")) == (size + 1, 1)


@readers
def test_what_would_grow_beyond_48_tib_is_refused_and_the_blob_stays(driver_of: MakeDriver, reader: Any) -> None:
    store = CountingStore()
    store.pretend("a", LARGEST)
    before = store.blobs["a"]
    with pytest.raises(PlanError):
        driver_of(store).write_stream("/a", LARGEST, reader(1))
    assert (store.blobs["a"], store.uploads, store.calls.count("upload_part")) == (before, {}, 0)


@pytest.mark.parametrize("offset", [LARGEST + 1, 2**63, 2**70])
def test_an_offset_beyond_48_tib_is_refused_before_anything_is_sent(driver_of: MakeDriver, offset: int) -> None:
    store = CountingStore()
    with pytest.raises((InvalidOffsetError, PlanError)):
        driver_of(store).write_stream("/a", offset, EndlessReader(0))
    assert set(store.calls) <= {"head", "options_of"}


def test_a_part_of_5_gib_is_read_in_windows_and_memory_stays_bounded(driver_of: MakeDriver) -> None:
    store = CountingStore(Limits(min_part_size=5 * GIB), take=by_reading, checksum="crc64nvme")
    source, driver = Endless(10 * GIB), driver_of(store, part_size=5 * GIB)
    with peak_below(2 * 64 * MIB + 8 * MIB):  # a buffer a thread
        driver.write_stream("/blob", 0, source)
    assert [part.size for part in store.completed[0]] == [5 * GIB, 5 * GIB]
    assert source.largest <= 64 * MIB


def test_many_parts_take_no_more_memory_than_few(driver_of: MakeDriver) -> None:
    driver = driver_of(CountingStore())
    with peak_below(2 * 16 * MIB + 24 * MIB):  # two buffers, and some kilobytes for each part
        driver.write_stream("/blob", 0, Endless(LARGEST))


# --- unknown lengths -----------------------------------------------------------------------------------------------


def ladder_end(part_size: int, limits: Limits) -> int:
    return sum(part.size for part in Ladder(part_size, limits).parts(0))


def test_the_ladder_from_16_mib_reaches_12_tib_and_no_part_is_too_large() -> None:
    parts = list(Ladder(16 * MIB, Limits()).parts(0))
    assert len(parts) == 10_000
    assert sum(part.size for part in parts) >= 12 * TIB
    assert max(part.size for part in parts) == 5 * GIB
    sizes = [parts[index].size for index in (0, 999, 1_000, 1_999, 2_000, 8_000, 9_000)]
    assert sizes == [16 * MIB, 16 * MIB, 32 * MIB, 32 * MIB, 64 * MIB, 4 * GIB, 5 * GIB]
    assert all(one.offset + one.size == next_.offset for one, next_ in itertools.pairwise(parts))


# The ratio of 16 MiB to 5 GiB, with all 10,000 parts where there is time for it.
SCALED = [
    pytest.param((KIB, 1_000), id="1,000 parts"),
    pytest.param((16 * KIB, 10_000), id="10,000 parts", marks=pytest.mark.long),
]


@pytest.fixture(params=SCALED)
def ladder(request: pytest.FixtureRequest) -> tuple[CountingStore, int]:
    """A store with such limits, and the size of its parts."""
    part_size, count = request.param
    limits = Limits(min_part_size=part_size, max_part_size=320 * part_size, max_parts=count)
    return CountingStore(limits, take=by_reading), part_size


def test_a_reader_may_go_to_the_end_of_the_ladder(driver_of: MakeDriver, ladder: tuple[CountingStore, int]) -> None:
    store, part_size = ladder
    driver, end = driver_of(store, part_size), ladder_end(part_size, store.limits)
    assert driver.write_stream("/blob", 0, EndlessReader(end)) == end
    assert (len(store.completed[0]), driver.stat("/blob").size) == (store.limits.max_parts, end)


def test_one_byte_past_the_end_of_the_ladder_is_a_plan_error_and_the_blob_is_as_before(
    driver_of: MakeDriver, ladder: tuple[CountingStore, int]
) -> None:
    store, part_size = ladder
    store.pretend("blob", 7)
    before = store.blobs["blob"]
    reader = EndlessReader(ladder_end(part_size, store.limits) + 1)
    with pytest.raises(PlanError) as caught:
        driver_of(store, part_size).write_stream("/blob", 0, reader)
    assert caught.value.total_read == reader.given == reader.size
    assert (store.blobs["blob"], store.uploads, store.completed) == (before, {}, [])


def test_a_reader_may_use_10_000_parts(driver_of: MakeDriver) -> None:
    store = CountingStore(Limits(min_part_size=16, max_part_size=16))
    driver = driver_of(store, 16)
    assert driver.write_stream("/blob", 0, EndlessReader(160_000)) == 160_000
    assert len(store.completed[0]) == 10_000
    with pytest.raises(PlanError):
        driver.write_stream("/other", 0, EndlessReader(160_001))
    assert "other" not in store.blobs


def test_a_reader_after_a_copied_head_has_the_parts_that_are_left(driver_of: MakeDriver) -> None:
    store = CountingStore(Limits(min_part_size=KIB, max_part_size=8 * KIB, max_parts=20))
    store.pretend("a", 3 * 8 * KIB)
    driver_of(store, KIB).write_stream("/a", 3 * 8 * KIB, EndlessReader(17 * KIB))
    (parts,) = store.completed
    assert sum(part.size for part in parts) == 3 * 8 * KIB + 17 * KIB
    assert [part.part_number for part in parts] == list(range(1, len(parts) + 1))


def test_a_growing_part_takes_no_growing_memory(driver_of: MakeDriver) -> None:
    store = CountingStore(Limits(min_part_size=KIB, max_part_size=16 * MIB, max_parts=100), take=by_reading)
    driver, reader = driver_of(store, MIB), EndlessReader(ladder_end(MIB, store.limits))
    with peak_below(2 * 16 * MIB + 4 * MIB):
        driver.write_stream("/blob", 0, reader)
    assert len(store.completed[0]) == 100


@pytest.mark.parametrize("part_size", [1, MIB, 5 * MIB, 16 * MIB, 64 * MIB, 5 * GIB, 50 * GIB])
@pytest.mark.parametrize("size", [0, 1, 5 * MIB, 5 * GIB, 5 * GIB + 1, 12 * TIB, LARGEST - 1, LARGEST])
@pytest.mark.parametrize("head", [0, 5 * MIB, 5 * GIB + 1, 12 * TIB])
def test_every_plan_is_within_the_limits_and_covers_every_byte_once(size: int, part_size: int, head: int) -> None:
    limits, head = Limits(), min(head, size)
    try:
        plan = plan_parts(size, part_size=part_size, limits=limits, prefix=head)
    except PlanError:
        assert -(-head // limits.max_part_size) + -(-(size - head) // limits.max_part_size) > limits.max_parts
        return
    assert plan.count <= limits.max_parts
    position = 0
    for part in plan:
        assert part.offset == position
        assert part.size <= limits.max_part_size
        assert part.size >= limits.min_part_size or part.number == plan.count
        position += part.size
    assert position == size
