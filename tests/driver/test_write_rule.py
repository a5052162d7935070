"""The write rule: ``new == old[:offset] + zeros(up to offset) + data``, for all sizes, offsets and readers.

P is the size of a part (1,024 bytes here) and M the least that a part may have (256).
"""

import io
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing

import pytest

from tests.doubles import TINY, BytesSource, HookedStore, RecordingStore
from tests.driver.blobs_and_readers import (
    MakeDriver,
    ReaderOf,
    Reading,
    blob_of,
    content,
    data,
    identity,
    put,
    written,
)
from tests.driver.store_kinds import AT_HOME, COPYING, LIMITS, MIN, PART, at_home, both_readers, cases
from worker.driver import Driver
from worker.errors import BlobExistsError, SourceChangedError, SupersededError
from worker.stores.blob_values import BlobOptions, Limits
from worker.stores.memory.memory_store import MemoryStore
from worker.transfer.upload.engine import Engine

pytestmark = pytest.mark.no_cover

P, M = PART, MIN

# old size (None: nothing there), offset, size of the data
Case = tuple[int | None, int, int]
CASES: dict[str, Case] = {
    # offset 0: nothing of the old blob is kept (row 1 of the old driver's table)
    "a missing blob is made": (None, 0, 10),
    "a short blob leaves no tail of many parts": (3 * P + 5, 0, 10),
    "many parts replace a short blob": (10, 0, 3 * P + 7),
    # empty data follows the same rule
    "no data makes an empty blob": (None, 0, 0),
    "no data at 0 empties a blob": (100, 0, 0),
    "no data within a large blob cuts it off above M": (3 * P, P + 5, 0),
    "no data past the end of a small blob grows it by zeros": (100, 200, 0),
    "no data past the end of a small blob grows it by whole parts and a rest": (100, 2 * P + 9, 0),
    "no data far past the end of nothing is zeros": (None, 2 * P + 9, 0),
    # 0 < offset <= size, offset below M: the head is fetched (row 2)
    "the tail of a small blob is dropped": (100, 50, 10),
    "a small blob is appended to": (100, 100, 10),
    "a head of M - 1 bytes and many parts": (2 * P, M - 1, 2 * P + 3),
    # 0 < offset <= size, offset of at least M: the store copies the head (row 3)
    "a head of exactly M bytes": (2 * P, M, 10),
    "the tail of a large blob is dropped": (3 * P, P // 2, 10),
    "a head of many copied parts and data of many parts": (5 * P + 13, 4 * P + 1, 2 * P + 9),
    "the last part is written again": (3 * P, 2 * P, P),
    # offset > size, both small (row 4)
    "a gap is zeros": (100, 200, 10),
    "a gap after nothing": (None, 10, 10),
    # offset > size, size small, offset of at least a part (row 5)
    "a gap of several parts": (100, 3 * P + 3, 10),
    "a gap of several parts after nothing and data of many parts": (None, 2 * P + 3, 2 * P + 9),
    # offset > size, size of at least a part (row 6)
    "a gap after a large blob": (6 * M, 12 * M, 10),
}
RUNGS = sorted({0, 1, 100, M - 1, M, M + 1, P - 1, P, P + 1, 2 * P, 2 * P + 1, 3 * P, 3 * P + 7})


@cases("old_size, offset, size", CASES, files=("memory", "local", "moto"))
@pytest.mark.every_run_on("local", "moto", only="many parts")
@pytest.mark.every_run_on("swift", only="a gap")
def test_a_write_keeps_the_head_fills_the_gap_and_drops_the_tail(
    driver: Driver, reader_of: ReaderOf, old_size: int | None, offset: int, size: int
) -> None:
    old, new = blob_of(old_size), data(size, seed=2)
    put(driver, "/blob", old)
    assert driver.write_stream("/blob", offset, reader_of(new)) == size
    assert content(driver, "/blob") == written(old, offset, new)


@at_home
@pytest.mark.parametrize("old_size", [None, *RUNGS])
def test_the_rule_holds_for_every_relation_of_offset_and_sizes(
    driver: Driver, old_size: int | None, any_reader_of: ReaderOf
) -> None:
    old, wrong = blob_of(old_size), []
    for number, (offset, size) in enumerate(itertools.product(RUNGS, RUNGS)):
        path, new = f"/blob{number}", data(size, seed=2)
        put(driver, path, old)
        count = driver.write_stream(path, offset, any_reader_of(new))
        if (count, content(driver, path)) != (size, written(old, offset, new)):
            wrong.append((offset, size))
    assert wrong == []


@pytest.fixture(params=[M, M + 1, 700, P, 3 * P, 1_000_000])
def sized_engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with closing(Engine(part_size=request.param, part_threads=2)) as engine:
        yield engine


@pytest.mark.parametrize("case", [(5 * P, 3 * P + 1, 2 * P + 9), (100, 3 * P, 2 * P), (None, P + 1, P), (2 * P, P, 0)])
def test_the_result_does_not_depend_on_the_size_of_parts(
    sized_engine: Engine, any_reader_of: ReaderOf, case: Case
) -> None:
    driver = Driver(MemoryStore(limits=LIMITS), engine=sized_engine, copying=COPYING)
    old, offset, new = blob_of(case[0]), case[1], data(case[2], seed=2)
    put(driver, "/blob", old)
    driver.write_stream("/blob", offset, any_reader_of(new))
    assert content(driver, "/blob") == written(old, offset, new)


@cases("most", [700], [1, 7])
def test_short_reads_are_gathered_into_whole_parts(recorded: RecordingStore, on: MakeDriver, most: int) -> None:
    new = data(2 * P + 9)
    assert on(recorded).write_stream("/blob", 0, Reading(new, most=most)) == len(new)
    assert content(on(recorded.store), "/blob") == new
    assert [len(part) for _, part in recorded.sent()] == [P, P, 9]


def test_a_binary_file_is_a_reader_and_is_read_from_where_it_stands(driver: Driver) -> None:
    file = io.BytesIO(b"not this" + data(2 * P))
    file.seek(8)
    assert driver.write_stream("/blob", 0, file) == 2 * P
    assert content(driver, "/blob") == data(2 * P)
    assert not file.closed


# --- how the head gets there ---------------------------------------------------------------------------------------


@cases("old_size, offset", [(3 * P, M), (5 * P + 13, 4 * P + 1)], [(M, M), (5 * P, 5 * P)], files=AT_HOME)
@pytest.mark.every_run_on("local", "moto", "swift")
def test_of_a_head_of_at_least_m_bytes_less_than_a_part_is_fetched(
    driver: Driver, recorded: RecordingStore, on: MakeDriver, reader_of: ReaderOf, old_size: int, offset: int
) -> None:
    put(driver, "/blob", data(old_size, seed=1))
    on(recorded).write_stream("/blob", offset, reader_of(data(10)))
    starts, sizes = zip(*sorted(call.args[4:6] for call in recorded.named("copy_part")), strict=True)
    copied = sum(sizes)
    assert [*starts, copied] == [0, *itertools.accumulate(sizes)]
    assert len(set(sizes)) == 1, "some stores take no parts of other sizes"
    assert (copied == offset) == (offset in (M, 5 * P))
    assert offset - P < copied
    assert b"".join(part for _, part in recorded.sent()) == data(old_size, seed=1)[copied:offset] + data(10)


@both_readers
def test_a_head_below_m_bytes_is_fetched_and_no_more_than_it(
    driver: Driver, recorded: RecordingStore, on: MakeDriver, reader_of: ReaderOf
) -> None:
    put(driver, "/blob", data(3 * P, seed=1))
    on(recorded).write_stream("/blob", M - 1, reader_of(data(2 * P)))
    assert recorded.named("copy_part") == []
    assert [call.args[1:3] for call in recorded.named("get")] == [(0, M - 1)]


@cases("size", [4 * P + 1], [2 * P, 2 * P + 1, 7 * P + 9])
def test_a_head_larger_than_one_copy_may_be_is_copied_in_ranges_that_are_neither_too_small_nor_too_large(
    driver: Driver, recorded: RecordingStore, on: MakeDriver, size: int
) -> None:
    recorded.limits = Limits(min_part_size=M, max_part_size=2 * P)
    put(driver, "/blob", data(size, seed=1))
    on(recorded).write_stream("/blob", size, Reading(data(10)))
    assert content(driver, "/blob") == data(size, seed=1) + data(10)
    sizes = [call.args[5] for call in recorded.named("copy_part")]
    assert len(sizes) > 1
    assert all(M <= copied <= 2 * P for copied in sizes)


def test_parts_are_never_too_small_whatever_the_gap(engine: Engine) -> None:
    driver = Driver(MemoryStore(limits=LIMITS), engine=engine, copying=COPYING)  # as strict as S3
    old_sizes, gaps = (0, 1, M - 1, M, M + 1, P, 2 * P + 1), (1, M - 1, M, P - M, P - 1, P, P + 1, 3 * P + 1)
    for old_size, gap in itertools.product(old_sizes, gaps):
        old, new = data(old_size, seed=1), data(2 * P + 1, seed=2)
        put(driver, "/blob", old)
        driver.write_stream("/blob", old_size + gap, Reading(new))
        assert content(driver, "/blob") == written(old, old_size + gap, new), (old_size, gap)


# --- what the blob carries -----------------------------------------------------------------------------------------

OPTIONS = BlobOptions(content_type="video/mp4", metadata={"a": "1"}, headers={"Cache-Control": "no-store"})


def options(driver: Driver) -> tuple[str | None, Mapping[str, str] | None, Mapping[str, str] | None]:
    """Content type, metadata and headers of the blob."""
    found = driver.store.options_of(driver.key("/blob"))
    return found.content_type, found.metadata, found.headers


@both_readers
@pytest.mark.parametrize("size", [10, 3 * P])
@pytest.mark.every_run_on("swift")
def test_a_plain_write_puts_no_entries_of_its_own_into_the_metadata(
    driver: Driver, reader_of: ReaderOf, size: int
) -> None:
    driver.write_stream("/blob", 0, reader_of(data(size)))
    assert driver.store.head(driver.key("/blob")).metadata == {}


@both_readers
@pytest.mark.parametrize("size", [10, 3 * P])
def test_options_given_to_a_write_are_the_blobs(driver: Driver, reader_of: ReaderOf, size: int) -> None:
    driver.write_stream("/blob", 0, reader_of(data(size)), options=OPTIONS)
    assert options(driver) == ("video/mp4", {"a": "1"}, OPTIONS.headers)


@both_readers
@pytest.mark.parametrize("offset", [50, 2 * P])
def test_options_given_anew_to_a_write_at_an_offset_replace_the_old_ones(
    driver: Driver, reader_of: ReaderOf, offset: int
) -> None:
    put(driver, "/blob", data(3 * P, seed=1), OPTIONS)
    new = BlobOptions(content_type="text/css", metadata={"b": "2"}, headers={"Cache-Control": "no-store"})
    driver.write_stream("/blob", offset, reader_of(data(10)), options=new)
    assert options(driver) == ("text/css", {"b": "2"}, new.headers)


@cases("offset, size", [(50, 10), (2 * P, 10)], [(50, 3 * P), (4 * P, 10)], files=AT_HOME)
@pytest.mark.every_run_on("local", "moto")
def test_a_write_at_an_offset_keeps_content_type_metadata_and_headers(
    driver: Driver, reader_of: ReaderOf, offset: int, size: int
) -> None:
    put(driver, "/blob", data(3 * P, seed=1), OPTIONS)
    driver.write_stream("/blob", offset, reader_of(data(size)))
    assert options(driver) == ("video/mp4", {"a": "1"}, OPTIONS.headers)


@both_readers
@pytest.mark.parametrize("offset", [50, 2 * P])
def test_a_write_at_an_offset_keeps_tags(driver: Driver, reader_of: ReaderOf, offset: int) -> None:
    put(driver, "/blob", data(3 * P, seed=1), BlobOptions(tags={"team": "a + b"}))
    driver.write_stream("/blob", offset, reader_of(data(10)))
    assert driver.store.options_of(driver.key("/blob")).tags == {"team": "a + b"}


@cases("size", [3 * P], [10], files=AT_HOME)
@pytest.mark.every_run_on("swift")
def test_a_write_at_0_drops_what_the_old_blob_carried(driver: Driver, reader_of: ReaderOf, size: int) -> None:
    put(driver, "/blob", data(100), OPTIONS)
    driver.write_stream("/blob", 0, reader_of(data(size)))
    content_type, *others = options(driver)
    assert others == [{}, {}]
    assert content_type != "video/mp4"


# --- overwrite=False -----------------------------------------------------------------------------------------------


#: Each commit call of a write, and a size of the data that leads to it.
commits = pytest.mark.parametrize(("verb", "size"), [("put", 10), ("complete_upload", 3 * P)])


@cases("size", [10, 3 * P], [0], files=AT_HOME)
def test_without_overwrite_a_missing_blob_is_written(driver: Driver, reader_of: ReaderOf, size: int) -> None:
    assert driver.write_stream("/blob", 0, reader_of(data(size)), overwrite=False) == size
    assert content(driver, "/blob") == data(size)


@cases("size", [10, 3 * P], [0], files=AT_HOME)
@pytest.mark.every_run_on("local", "swift")
def test_without_overwrite_a_blob_that_is_there_stays(driver: Driver, reader_of: ReaderOf, size: int) -> None:
    put(driver, "/blob", b"there")
    before = identity(driver, "/blob")
    with pytest.raises(BlobExistsError):
        driver.write_stream("/blob", 0, reader_of(data(size)), overwrite=False)
    assert identity(driver, "/blob") == before


@both_readers
@commits
@pytest.mark.every_run_on("moto")
def test_without_overwrite_a_blob_that_appears_at_the_last_moment_stays(
    driver: Driver, met_at: MakeDriver, reader_of: ReaderOf, verb: str, size: int
) -> None:
    meeting = met_at(verb, lambda: put(driver, "/blob", b"theirs"))
    with pytest.raises(BlobExistsError):
        meeting.write_stream("/blob", 0, reader_of(data(size)), overwrite=False)
    assert content(driver, "/blob") == b"theirs"


# --- somebody else writes meanwhile --------------------------------------------------------------------------------


@both_readers
@commits
def test_at_offset_0_the_last_writer_wins(
    driver: Driver, met_at: MakeDriver, reader_of: ReaderOf, verb: str, size: int
) -> None:
    put(driver, "/blob", b"old")
    met_at(verb, lambda: put(driver, "/blob", b"theirs")).write_stream("/blob", 0, reader_of(data(size)))
    assert content(driver, "/blob") == data(size)


Interfere = Callable[..., None]


@pytest.fixture
def interfere(driver: Driver, met_at: MakeDriver, reader_of: ReaderOf) -> Interfere:
    """Writes while somebody replaces the blob before the verb, by nothing for None: an error, and theirs stays."""

    def write(verb: str, offset: int, size: int, *, at: int = 1, theirs: bytes | None = data(3 * P, seed=9)) -> None:
        def replace() -> None:
            put(driver, "/blob", theirs)
            if theirs is None:
                driver.store.delete_batch([driver.key("/blob")])

        put(driver, "/blob", data(3 * P, seed=1))
        with pytest.raises((SupersededError, SourceChangedError)):
            met_at(verb, replace, at=at).write_stream("/blob", offset, reader_of(data(size)))
        assert content(driver, "/blob") == theirs

    return write


@both_readers
@pytest.mark.parametrize(
    ("verb", "at", "offset", "size"),
    [("get", 1, 100, 10), ("copy_part", 1, 2 * P, 10), ("copy_part", 2, 2 * P, 10), ("upload_part", 2, 2 * P, 3 * P)],
    ids=["before its head is fetched", "before it is copied", "between two ranges", "while parts are sent"],
)
@pytest.mark.every_run_on("moto", "swift", only="before")
def test_a_blob_replaced_during_a_write_at_an_offset_is_an_error_and_never_a_mixture(
    interfere: Interfere, verb: str, at: int, offset: int, size: int
) -> None:
    interfere(verb, offset, size, at=at)


@both_readers
def test_a_blob_replaced_right_before_the_put_is_an_error_and_stays(interfere: Interfere) -> None:
    interfere("put", 100, 10)


@both_readers
@pytest.mark.every_run_on("local")
def test_a_blob_replaced_right_before_completion_is_an_error_and_stays(interfere: Interfere) -> None:
    interfere("complete_upload", 2 * P, 10)


@both_readers
@pytest.mark.every_run_on("local", "moto")
def test_a_blob_deleted_during_a_write_at_an_offset_is_an_error_and_does_not_come_back(interfere: Interfere) -> None:
    interfere("upload_part", 2 * P, 3 * P, theirs=None)


@both_readers
def test_a_blob_is_never_seen_half_written(driver: Driver, on: MakeDriver, reader_of: ReaderOf) -> None:
    old, new = data(3 * P, seed=1), data(3 * P, seed=2)
    put(driver, "/blob", old)
    allowed = (old, written(old, P, new))
    seen: list[bool] = []
    hooked = HookedStore(driver.store, after=lambda verb: seen.append(content(driver, "/blob") in allowed))
    on(hooked).write_stream("/blob", P, reader_of(new))
    assert set(seen) == {True}


def test_a_store_that_takes_parts_of_one_byte_is_written_to_by_the_same_rule(engine: Engine) -> None:
    driver = Driver(MemoryStore(limits=TINY), engine=engine, copying=COPYING)
    put(driver, "/blob", data(100, seed=1))
    driver.write_stream("/blob", 1, BytesSource(data(3 * P, seed=2)))
    assert content(driver, "/blob") == written(data(100, seed=1), 1, data(3 * P, seed=2))
