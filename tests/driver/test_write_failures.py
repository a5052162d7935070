"""Writes that fail: the blob is exactly what it was, no upload is left, and the error tells what was read and why.

A blob's ETag and time are part of what it was. That no upload is left is checked after every test, by its store.
"""

import io
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.doubles import BytesSource, FaultyStore, RecordingStore
from tests.driver.blobs_and_readers import (
    Breaking,
    BreakingSource,
    MakeDriver,
    ReaderOf,
    Reading,
    VanishingSource,
    blob_of,
    chain,
    content,
    data,
    file_source,
    identity,
    put,
    total_read,
    uploads_at,
    written,
)
from tests.driver.store_kinds import MIN, PART, at_home, both_readers, cases
from tests.faults import refusing
from worker.driver import Driver
from worker.errors import (
    BlobExistsError,
    BlobferryError,
    InvalidOffsetError,
    PermissionDeniedError,
    SourceChangedError,
    SourceUnavailableError,
)

pytestmark = pytest.mark.no_cover

P, M = PART, MIN

SITUATIONS: dict[str, tuple[int | None, int]] = {  # old size, offset
    "nothing there": (None, 0),
    "a small blob": (100, 0),
    "a large blob": (3 * P + 5, 0),
    "after a small head": (100, 50),
    "after a large head": (3 * P + 5, 2 * P),
    "after a gap": (100, 2 * P),
}


class TheReaderBrokeError(OSError):
    """What a caller's reader may raise."""


def broken(read: int) -> Breaking:
    """A reader that breaks after so many bytes."""
    return Breaking(data(read), TheReaderBrokeError("gone"))


Caught = pytest.ExceptionInfo[BaseException]


@contextmanager
def unchanged(driver: Driver, old_size: int | None, *errors: type[BaseException], read: int = -1) -> Iterator[Caught]:
    """Put what is there before; what is done inside raises one of the errors, after ``read`` bytes, and leaves all."""
    put(driver, "/blob", blob_of(old_size))
    before = identity(driver, "/blob")
    with pytest.raises(errors) as caught:
        yield caught
    assert (identity(driver, "/blob"), content(driver, "/blob")) == (before, blob_of(old_size))
    assert uploads_at(driver, "/blob") == []
    assert read < 0 or total_read(caught.value) == read


# --- readers that fail ---------------------------------------------------------------------------------------------


@cases(
    "old_size, offset, read",
    {name: (*situation, 2 * P + 7) for name, situation in SITUATIONS.items()} | {"at once": (3 * P, 2 * P, 0)},
    {f"{name} after {read}": (*situation, read) for name, situation in SITUATIONS.items() for read in (0, 1, P)},
)
@pytest.mark.every_run_on("swift", only="head")
def test_a_reader_that_breaks_leaves_the_blob_as_it_was(
    driver: Driver, old_size: int | None, offset: int, read: int
) -> None:
    reader = broken(read)
    with unchanged(driver, old_size, SourceUnavailableError, read=read) as caught:
        driver.write_stream("/blob", offset, reader)
    assert reader.error in chain(caught.value)


NO_BYTES = {"text": "text", "empty text": "", "None": None, "a number": 5}


@cases(
    "read, answer",
    {name: (2 * P, answer) for name, answer in NO_BYTES.items()},
    {f"{name} after {read}": (read, answer) for name, answer in NO_BYTES.items() for read in (0, 10)},
)
def test_a_reader_that_gives_no_bytes_is_an_error_and_never_the_end(driver: Driver, read: int, answer: Any) -> None:
    with unchanged(driver, 100, TypeError, BlobferryError, read=read):
        driver.write_stream("/blob", 0, Breaking(data(read), answer=answer))


def test_a_text_file_is_refused(driver: Driver) -> None:
    with unchanged(driver, 100, TypeError, BlobferryError):
        driver.write_stream("/blob", 0, io.StringIO("text"))


@at_home
@pytest.mark.parametrize("reader", [b"bytes", "text", None, 5, []], ids=repr)
def test_what_cannot_be_read_is_a_type_error_and_no_request_is_sent(
    recorded: RecordingStore, on: MakeDriver, reader: Any
) -> None:
    with pytest.raises(TypeError):
        on(recorded).write_stream("/blob", 0, reader)
    assert recorded.calls == []


@pytest.mark.parametrize("size", [10, 3 * P])
@pytest.mark.every_run_on("swift")
def test_a_reader_that_gives_more_than_asked_loses_nothing(driver: Driver, size: int) -> None:
    class Generous(Reading):
        def read(self, size: int, /) -> Any:
            return super().read(size + 5)

    assert driver.write_stream("/blob", 0, Generous(data(size))) == size
    assert content(driver, "/blob") == data(size)


@cases("read", [2 * P], [0])
def test_an_error_of_our_own_kind_in_a_reader_stays_in_the_chain(driver: Driver, read: int) -> None:
    reader = Breaking(data(read), SourceChangedError("another one"))
    with unchanged(driver, 100, BlobferryError, read=read) as caught:
        driver.write_stream("/blob", 0, reader)
    assert reader.error in chain(caught.value)


@cases("read, offset", [(2 * P, 0)], [(0, 0), (10, 2 * P)])
def test_ctrl_c_in_a_reader_comes_out_and_leaves_the_blob_as_it_was(driver: Driver, read: int, offset: int) -> None:
    with unchanged(driver, 3 * P, KeyboardInterrupt):
        driver.write_stream("/blob", offset, Breaking(data(read), KeyboardInterrupt()))


def test_a_reader_that_breaks_with_overwrite_off_leaves_nothing(driver: Driver) -> None:
    with unchanged(driver, None, SourceUnavailableError):
        driver.write_stream("/blob", 0, broken(2 * P), overwrite=False)


def test_a_refused_overwrite_tells_how_much_was_read(driver: Driver) -> None:
    reader = Reading(data(3 * P))
    with unchanged(driver, 100, BlobExistsError) as caught:
        driver.write_stream("/blob", 0, reader, overwrite=False)
    assert total_read(caught.value) == reader.given


# --- sources that fail ---------------------------------------------------------------------------------------------


@cases(
    "old_size, offset, at",
    {name: (*situation, P + 1) for name, situation in SITUATIONS.items()},
    {f"{name} at once": (*situation, 0) for name, situation in SITUATIONS.items()},
)
@pytest.mark.every_run_on("moto")
def test_a_source_that_breaks_leaves_the_blob_as_it_was(
    driver: Driver, old_size: int | None, offset: int, at: int
) -> None:
    error = SourceUnavailableError("disk error")
    with unchanged(driver, old_size, SourceUnavailableError) as caught:
        driver.write_stream("/blob", offset, BreakingSource(data(2 * P + 7), error, at=at))
    assert error in chain(caught.value)
    assert 0 <= total_read(caught.value) <= 2 * P + 7


@cases("offset, size", [(0, 3 * P), (2 * P, 10)], [(0, 10), (50, 10), (50, 3 * P), (2 * P, 3 * P)])
def test_a_source_that_was_replaced_meanwhile_makes_no_blob(driver: Driver, size: int, offset: int) -> None:
    with unchanged(driver, 3 * P + 5, SourceChangedError) as caught:
        driver.write_stream("/blob", offset, VanishingSource(data(size)))
    assert 0 <= total_read(caught.value) <= size


@cases("size, seed", {"shorter": (P, 0)}, {"longer": (4 * P, 0), "other": (3 * P, 7)})
@pytest.mark.every_run_on("local")
def test_a_file_that_changes_while_it_is_sent_makes_no_blob(
    driver: Driver, met_at: MakeDriver, tmp_path: Path, size: int, seed: int
) -> None:
    meeting = met_at("create_upload", lambda: (tmp_path / "source.bin").write_bytes(data(size, seed)))
    with closing(file_source(tmp_path, data(3 * P))) as source, unchanged(driver, 100, SourceChangedError):
        meeting.write_stream("/blob", 0, source)


def test_a_source_is_not_closed_by_the_driver(driver: Driver, tmp_path: Path) -> None:
    with closing(file_source(tmp_path, data(10))) as source:
        driver.write_stream("/blob", 0, source)
        driver.write_stream("/blob", 10, source)
    assert content(driver, "/blob") == data(10) * 2


# --- stores that fail ----------------------------------------------------------------------------------------------

# verb, old size, offset, size of the data
REFUSALS = {
    "the look before": ("head", 100, 0, 10),
    "a put": ("put", 100, 0, 10),
    "a put onto a small head": ("put", 100, 50, 10),
    "fetching the head": ("get", 100, 50, 10),
    "opening the upload": ("create_upload", 100, 0, 3 * P),
    "copying the head": ("copy_part", 3 * P, 2 * P, 10),
    "a part": ("upload_part", 100, 0, 3 * P),
    "a part after a copied head": ("upload_part", 3 * P, 2 * P, 3 * P),
    "completion": ("complete_upload", 100, 0, 3 * P),
    "completion after a copied head": ("complete_upload", 3 * P, 2 * P, 10),
}


@both_readers
@pytest.mark.parametrize(("verb", "old_size", "offset", "size"), REFUSALS.values(), ids=REFUSALS)
@pytest.mark.every_run_on("local")
@pytest.mark.every_run_on("swift", only="part")
def test_a_store_that_refuses_leaves_the_blob_as_it_was(
    driver: Driver, on: MakeDriver, reader_of: ReaderOf, verb: str, old_size: int, offset: int, size: int
) -> None:
    faulty, reader = refusing(driver.store, verb), reader_of(data(size))
    with unchanged(driver, old_size, PermissionDeniedError) as caught:
        on(faulty).write_stream("/blob", offset, reader)
    assert faulty.fired
    read = total_read(caught.value)
    assert read == reader.given if isinstance(reader, Reading) else 0 <= read <= size


@both_readers
def test_the_second_part_may_fail_as_well_as_the_first(
    driver: Driver, refused_at: MakeDriver, reader_of: ReaderOf
) -> None:
    with unchanged(driver, 100, PermissionDeniedError):
        refused_at("upload_part", fail_at=2).write_stream("/blob", 0, reader_of(data(5 * P)))


@both_readers
@pytest.mark.parametrize(("verb", "offset", "size"), [("put", 0, 10), ("complete_upload", 2 * P, 3 * P)])
@pytest.mark.every_run_on("moto", "swift")
def test_a_publishing_call_whose_answer_was_lost_is_a_success(
    driver: Driver, on: MakeDriver, reader_of: ReaderOf, verb: str, offset: int, size: int
) -> None:
    old, new = data(3 * P, seed=1), data(size)
    put(driver, "/blob", old)
    lost = FaultyStore(driver.store, verb, when="after")
    assert on(lost).write_stream("/blob", offset, reader_of(new)) == size
    assert (lost.fired, content(driver, "/blob")) == (1, written(old, offset, new))


def test_an_upload_that_cannot_be_aborted_does_not_hide_the_error(
    driver: Driver, refused_at: MakeDriver, known_leaks: set[str]
) -> None:
    put(driver, "/blob", data(100, seed=1))
    before = identity(driver, "/blob")
    with pytest.raises(SourceUnavailableError) as caught:
        refused_at("abort_upload").write_stream("/blob", 0, broken(2 * P))
    assert (total_read(caught.value), identity(driver, "/blob")) == (2 * P, before)
    (left,) = uploads_at(driver, "/blob")
    driver.store.abort_upload(driver.key("/blob"), left)
    known_leaks.add(left)


def test_uploads_of_others_to_the_same_path_are_left_alone(driver: Driver) -> None:
    theirs = driver.store.create_upload(driver.key("/blob"))
    driver.write_stream("/blob", 0, Reading(data(3 * P)))
    with pytest.raises(SourceUnavailableError):
        driver.write_stream("/blob", 0, broken(2 * P))
    assert uploads_at(driver, "/blob") == [theirs]
    driver.store.abort_upload(driver.key("/blob"), theirs)


@pytest.mark.every_run_on("moto", "swift")
def test_many_failed_writes_leave_no_upload_behind(driver: Driver) -> None:
    for number in range(5):
        with unchanged(driver, None, SourceUnavailableError):
            driver.write_stream("/blob", 0, broken(P * number // 2))


# --- offsets -------------------------------------------------------------------------------------------------------


@at_home
@pytest.mark.parametrize("offset", [-1, -(2**70)])
def test_a_negative_offset_is_named_and_nothing_is_read_or_sent(
    recorded: RecordingStore, on: MakeDriver, offset: int
) -> None:
    reader = Reading(data(10))
    with pytest.raises(InvalidOffsetError) as caught:
        on(recorded).write_stream("/blob", offset, reader)
    assert (caught.value.path, caught.value.offset, caught.value.driver) == ("/blob", offset, recorded.name)
    assert (recorded.calls, reader.calls) == ([], 0)


def test_what_was_read_is_no_offset_to_go_on_from(driver: Driver) -> None:
    with unchanged(driver, 100, SourceUnavailableError, read=2 * P):
        driver.write_stream("/blob", 100, broken(2 * P))
    assert driver.stat("/blob").size == 100
    driver.write_stream("/blob", 100, BytesSource(data(2 * P)))
    assert content(driver, "/blob") == data(100, seed=1) + data(2 * P)
