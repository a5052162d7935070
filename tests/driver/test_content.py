"""get_content and put_content: whole blobs, in memory."""

import array
import io
import mmap
from collections.abc import Callable
from typing import Any

import pytest

from tests.doubles import FaultyStore, RecordingStore
from tests.driver.blobs_and_readers import MakeDriver, content, data, identity, keys, put
from tests.driver.store_kinds import PART, at_home, cases
from worker.driver import Driver
from worker.errors import BlobExistsError, PathNotFoundError, PermissionDeniedError
from worker.stores.blob_values import BlobOptions

pytestmark = pytest.mark.no_cover


@cases("size", [0, PART + 1], [1, 2, 32, PART - 1, PART, 3 * PART + 7, 40_000])
@pytest.mark.every_run_on("local", "swift")
def test_what_was_put_is_got(driver: Driver, size: int) -> None:
    answer: object = driver.put_content("/a/b", data(size))  # type: ignore[func-returns-value]
    found = driver.get_content("/a/b")
    assert (answer, found, type(found), keys(driver)) == (None, data(size), bytes, ["a/b"])


def test_bytes_that_are_no_text_survive(driver: Driver) -> None:
    driver.put_content("/a", b"\x80\x80\x80\x80\0\r\n\xff")
    assert driver.get_content("/a") == b"\x80\x80\x80\x80\0\r\n\xff"


def mapped(content: bytes) -> mmap.mmap:
    """A file in memory."""
    file = mmap.mmap(-1, len(content))
    file[:] = content
    return file


BYTES_LIKE: dict[str, tuple[Callable[[], Any], bytes]] = {
    "bytes": (lambda: b"hello", b"hello"),
    "bytearray": (lambda: bytearray(b"hello"), b"hello"),
    "a view": (lambda: memoryview(b"hello"), b"hello"),
    "a view with steps": (lambda: memoryview(b"h.e.l.l.o")[::2], b"hello"),
    "a view backwards": (lambda: memoryview(b"olleh")[::-1], b"hello"),
    "a view of numbers": (lambda: memoryview(array.array("H", [0x6568, 0x6C6C])), b"hell"),
    "an array": (lambda: array.array("B", b"hello"), b"hello"),
    "an empty view": (lambda: memoryview(b""), b""),
    "a large bytearray": (lambda: bytearray(data(3 * PART)), data(3 * PART)),
    "a mapped file": (lambda: mapped(data(4_096)), data(4_096)),
}


@at_home
@pytest.mark.parametrize(("make", "expected"), BYTES_LIKE.values(), ids=BYTES_LIKE)
def test_anything_like_bytes_is_put(driver: Driver, make: Callable[[], Any], expected: bytes) -> None:
    driver.put_content("/a", make())
    assert driver.get_content("/a") == expected


def test_what_was_put_may_be_changed_afterwards(driver: Driver) -> None:
    contents = bytearray(b"hello")
    driver.put_content("/a", contents)
    contents[:] = b"other"
    contents.extend(b"!")  # nobody holds on to it
    assert driver.get_content("/a") == b"hello"


@at_home
@pytest.mark.parametrize("contents", ["text", "", None, 5, 1.5, ["a"], {"a": 1}], ids=repr)
def test_anything_else_is_a_type_error_and_nothing_is_sent(
    recorded: RecordingStore, on: MakeDriver, contents: Any
) -> None:
    with pytest.raises(TypeError):
        on(recorded).put_content("/a", contents)
    assert recorded.calls == []


@cases("first, second", [(4_096, 2_048), (10, 0)], [(3 * PART, 10), (10, 3 * PART), (0, 10)])
@pytest.mark.every_run_on("moto")
def test_a_put_replaces_entirely(driver: Driver, first: int, second: int) -> None:
    driver.put_content("/a", data(first, seed=1))
    driver.put_content("/a", data(second, seed=2))
    assert driver.get_content("/a") == data(second, seed=2)


@pytest.mark.parametrize("size", [10, 3 * PART])
def test_options_of_a_put_are_the_blobs(driver: Driver, size: int) -> None:
    driver.put_content("/a", data(size), options=BlobOptions(content_type="text/css", metadata={"a": "1"}))
    head = driver.store.head(driver.key("/a"))
    assert (head.content_type, head.metadata) == ("text/css", {"a": "1"})


@cases("size", [0, 3 * PART], [10])
@pytest.mark.every_run_on("moto", "swift")
def test_a_blob_without_a_content_type_is_an_octet_stream(driver: Driver, size: int) -> None:
    driver.put_content("/put", data(size))
    driver.write_stream("/written", 0, io.BytesIO(data(size)), options=BlobOptions(metadata={"a": "1"}))
    driver.write_stream("/behind-a-gap", 7, io.BytesIO(data(size)))
    for path in ("/put", "/written", "/behind-a-gap"):
        assert driver.head(path).content_type == "application/octet-stream"


def test_a_put_without_options_carries_no_metadata(driver: Driver) -> None:
    driver.put_content("/a", b"x", options=BlobOptions(metadata={"a": "1"}))
    driver.put_content("/a", b"x")
    assert driver.store.head(driver.key("/a")).metadata == {}


@cases("size", [10, 3 * PART], [0])
def test_without_overwrite_a_put_leaves_what_is_there(driver: Driver, size: int) -> None:
    driver.put_content("/a", b"there", overwrite=False)
    before = identity(driver, "/a")
    with pytest.raises(BlobExistsError):
        driver.put_content("/a", data(size), overwrite=False)
    assert identity(driver, "/a") == before


@pytest.mark.every_run_on("local", "moto", "swift")
def test_without_overwrite_a_put_leaves_what_appears_at_the_last_moment(driver: Driver, met_at: MakeDriver) -> None:
    with pytest.raises(BlobExistsError):
        met_at("put", lambda: put(driver, "/a", b"theirs")).put_content("/a", b"ours", overwrite=False)
    assert content(driver, "/a") == b"theirs"


def test_the_last_of_two_puts_wins(driver: Driver, met_at: MakeDriver) -> None:
    met_at("put", lambda: put(driver, "/a", b"theirs")).put_content("/a", b"ours")
    assert content(driver, "/a") == b"ours"


@pytest.mark.parametrize("size", [10, 3 * PART])
@pytest.mark.every_run_on("moto")
def test_a_put_that_is_refused_leaves_the_blob_as_it_was(driver: Driver, refused_at: MakeDriver, size: int) -> None:
    put(driver, "/a", b"there")
    before = identity(driver, "/a")
    with pytest.raises(PermissionDeniedError):
        refused_at("put", "complete_upload").put_content("/a", data(size))
    assert identity(driver, "/a") == before


@pytest.mark.every_run_on("moto")
def test_a_put_whose_answer_was_lost_is_a_success(driver: Driver, on: MakeDriver) -> None:
    on(FaultyStore(driver.store, "put", when="after")).put_content("/a", b"ours")
    assert content(driver, "/a") == b"ours"


@pytest.mark.parametrize("path", ["/missing", "/dir"])
@pytest.mark.every_run_on("swift")
def test_content_of_a_missing_path_or_a_directory_is_path_not_found(driver: Driver, path: str) -> None:
    put(driver, "/dir/file", b"x")
    with pytest.raises(PathNotFoundError) as caught:
        driver.get_content(path)
    assert caught.value.path == path


def test_a_file_and_a_directory_of_one_name_have_the_files_content(driver: Driver) -> None:
    put(driver, "/a/b", b"below")
    put(driver, "/a", b"file")
    assert driver.get_content("/a") == b"file"
    assert driver.get_content("/a/b") == b"below"
