"""The rules for paths: what is taken, what is refused, and in which order. For a bad one no request is sent."""

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from tests.doubles import RecordingStore
from tests.driver.blobs_and_readers import MakeDriver, Reading, content, data, keys, put
from tests.driver.store_kinds import PART, at_home, cases
from worker.driver import Driver
from worker.errors import InvalidOffsetError, InvalidPathError, InvalidRequestError, PathNotFoundError
from worker.transfer.sources.source import MemorySource

pytestmark = pytest.mark.no_cover

VALID = [
    "/a", "/1", "/Z", "/a/b/c/d", "/a.b", "/.a", "/a.", "/_.a", "/-a", "/a-", "/a--b", "/a..b", "/...", "/..a",
    "/A/B", "/a_b-c.d", "/0.9/_/-", "/a/.b/c.",
]  # fmt: skip
NEVER = {
    "empty": "",
    "no slash": "a",
    "relative": "a/b",
    "an empty first component": "//a",
    "an empty component": "/a//b",
    "a trailing slash": "/a/",
    "only slashes": "//",
    "one dot": "/.",
    "two dots": "/..",
    "one dot within": "/a/./b",
    "two dots within": "/a/../b",
    "two dots at the end": "/a/..",
    "a final newline": "/a\n",
    "a newline within": "/a\n/b",
    "a leading newline": "\n/a",
    "a carriage return": "/a\r",
    "a blank": "/a b",
    "a backslash": "/a\\b",
    "an umlaut": "/ä",
    "a digit that is not ASCII": "/\uff11",
    "a letter that is not ASCII": "/\u212a",
    "a zero byte": "/a\0",
    "a percent sign": "/a%20b",
    "a plus sign": "/a+b",
    "a colon": "/a:b",
    "a question mark": "/a?b",
    "a tilde": "/~a",
    "a surrogate": "/\ud800",
    "too long": "/" + "a" * 1_024,
}
NO_TEXT: dict[str, Any] = {"None": None, "a number": 5, "bytes": b"/a", "a list": ["/a"]}

Operation = Callable[[Driver, Any], object]
BLOB_OPERATIONS: dict[str, Operation] = {
    "get_content": lambda driver, path: driver.get_content(path),
    "put_content": lambda driver, path: driver.put_content(path, b"x"),
    "read_stream": lambda driver, path: driver.read_stream(path),
    "write_stream": lambda driver, path: driver.write_stream(path, 0, Reading(b"x")),
    "move from": lambda driver, path: driver.move(path, "/good"),
    "move to": lambda driver, path: driver.move("/good", path),
    "delete": lambda driver, path: driver.delete(path),
    "url_for": lambda driver, path: driver.url_for(path),
    "look": lambda driver, path: driver.look(path),
}
OPERATIONS = BLOB_OPERATIONS | {
    "stat": lambda driver, path: driver.stat(path),
    "list": lambda driver, path: driver.list(path),
}


@cases("path", ["/a", "/_.a", "/a--b", "/0.9/_/-"], VALID)
@pytest.mark.every_run_on("moto", "swift")
def test_a_valid_path_is_put_got_found_listed_and_deleted(driver: Driver, path: str) -> None:
    driver.put_content(path, data(64))
    assert driver.get_content(path) == data(64)
    assert driver.stat(path).path == path
    parent = path.rpartition("/")[0] or "/"
    assert driver.list(parent) == [path]
    assert keys(driver) == [path[1:]]
    driver.delete(path)
    assert keys(driver) == []


def check_refused(recorded: RecordingStore, driver: Driver, path: Any, *operations: Operation) -> None:
    """Each operation names the path, and no request is sent."""
    for operation in operations:
        with pytest.raises(InvalidPathError) as caught:
            operation(driver, path)
        assert (caught.value.path, caught.value.driver) == (path, recorded.name)
        assert str(caught.value).startswith(f"{recorded.name}: ")
    assert recorded.calls == []


@cases(
    "path", {name: NEVER[name] for name in ("a trailing slash", "two dots within", "a final newline")}, NEVER | NO_TEXT
)
@pytest.mark.every_run_on("local", only="two dots")
def test_an_invalid_path_is_refused_by_every_operation_and_no_request_is_sent(
    recorded: RecordingStore, on: MakeDriver, path: Any
) -> None:
    check_refused(recorded, on(recorded), path, *OPERATIONS.values())


@at_home
@pytest.mark.parametrize("path", ["/" + "a" * 100_000, "b" * 100_000], ids=["too long", "and relative"])
def test_the_error_has_the_callers_path_whole_and_its_message_does_not(driver: Driver, path: str) -> None:
    with pytest.raises(InvalidPathError) as caught:
        driver.get_content(path)
    assert caught.value.path is path
    assert len(str(caught.value)) < 1_000


@at_home
@pytest.mark.parametrize("operation", BLOB_OPERATIONS.values(), ids=BLOB_OPERATIONS)
def test_the_root_is_only_for_list_and_stat(recorded: RecordingStore, on: MakeDriver, operation: Operation) -> None:
    check_refused(recorded, on(recorded), "/", operation)


@pytest.mark.parametrize(("source", "bad"), [("bad source", "bad source"), ("/missing", "bad dest")])
@pytest.mark.every_run_on("moto", only="bad source")
def test_a_moves_source_is_checked_before_its_destination_and_that_before_the_source_is_looked_for(
    driver: Driver, source: str, bad: str
) -> None:
    with pytest.raises(InvalidPathError) as caught:
        driver.move(source, "bad dest")
    assert caught.value.path == bad


@at_home
@pytest.mark.parametrize("path", ["", "bad", "/a\n", "/a/../b"])
def test_the_path_is_checked_before_the_offset(driver: Driver, path: str) -> None:
    with pytest.raises(InvalidPathError):
        driver.write_stream(path, -1, Reading(b"x"))
    with pytest.raises(InvalidPathError):
        driver.read_stream(path, -1)


NO_OFFSETS = [True, False, 0.0, 1.5, float("nan"), "0", "", b"0", None, [0], 1j, Decimal(1), Fraction(1)]


@at_home
@pytest.mark.parametrize("offset", NO_OFFSETS, ids=repr)
def test_an_offset_of_another_type_is_a_type_error_before_anything_is_read(
    recorded: RecordingStore, on: MakeDriver, offset: Any
) -> None:
    reader = Reading(b"x")
    calls: list[Callable[[Driver], object]] = [
        lambda driver: driver.write_stream("/a", offset, reader),
        lambda driver: driver.write_stream("/a", offset, MemorySource(memoryview(b"x"))),
        lambda driver: driver.read_stream("/a", offset),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="/a: offset: needs a whole number of bytes, got ") as caught:
            call(on(recorded))
        assert isinstance(caught.value, InvalidRequestError)
        assert caught.value.total_read == 0
    assert (recorded.calls, reader.calls) == ([], 0)


class Whole:
    """A whole number of another library, such as numpy."""

    def __index__(self) -> int:
        return 2


def test_a_whole_number_of_another_library_is_an_offset(driver: Driver) -> None:
    driver.put_content("/a", b"old")
    offset: Any = Whole()
    assert driver.write_stream("/a", offset, Reading(b"new")) == 3
    with driver.read_stream("/a", offset) as stream:
        assert stream.read() == b"new"


WRONG: dict[str, Callable[[Driver, Any], object]] = {
    "a path": lambda driver, wrong: driver.stat("a"),
    "an offset": lambda driver, wrong: driver.read_stream("/a", -1),
    "an offset of too many digits": lambda driver, wrong: driver.write_stream("/a", 10**5_000, Reading(b"")),
    "a method": lambda driver, wrong: driver.url_for("/a", {"method": "POST"}),
    "an expiry": lambda driver, wrong: driver.url_for("/a", {"expiry": wrong}),
    "an option": lambda driver, wrong: driver.url_for("/a", {"x": 1}),
    "no options": lambda driver, wrong: driver.url_for("/a", wrong),
    "a list of options": lambda driver, wrong: driver.url_for("/a", ["method"]),  # type: ignore[arg-type]
    "contents": lambda driver, wrong: driver.put_content("/a", wrong),
    "a reader": lambda driver, wrong: driver.write_stream("/a", 0, wrong),
}


@at_home
@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_a_wrong_argument_is_a_value_error_or_a_type_error_that_can_be_shown(
    recorded: RecordingStore, on: MakeDriver, call: Callable[[Driver, Any], object]
) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        call(on(recorded), 5)
    assert isinstance(caught.value, InvalidRequestError)
    assert 0 < len(str(caught.value)) < 500
    assert recorded.calls == []


def test_the_offset_of_a_read_is_checked_before_the_blob_is_looked_for(
    recorded: RecordingStore, on: MakeDriver
) -> None:
    with pytest.raises(InvalidOffsetError) as caught:
        on(recorded).read_stream("/missing", -1)
    assert (caught.value.path, caught.value.offset, caught.value.driver) == ("/missing", -1, recorded.name)
    assert recorded.calls == []


def test_a_key_with_its_root_has_at_most_1024_bytes(recorded: RecordingStore, on: MakeDriver, root: str) -> None:
    longest = "/" + "a" * (1_024 - len(root) - 1)
    assert len(on(recorded).key(longest)) == 1_024
    check_refused(recorded, on(recorded), longest + "a", *OPERATIONS.values())


def test_a_key_of_1024_bytes_is_a_blob_like_any_other(driver: Driver, root: str) -> None:
    longest = "/" + "/".join(["a" * 200] * 5).ljust(1_024 - len(root) - 1, "b")
    driver.put_content(longest, data(2 * PART))
    assert driver.get_content(longest) == data(2 * PART)
    assert driver.stat(longest).size == 2 * PART
    driver.move(longest, "/short")
    driver.move("/short", longest)
    driver.delete(longest)
    assert keys(driver) == []


@pytest.mark.parametrize("name", ["get_content", "read_stream", "stat", "list", "move from", "delete"])
@pytest.mark.every_run_on("local")
def test_a_missing_path_is_named_as_the_caller_knows_it(driver: Driver, name: str) -> None:
    with pytest.raises(PathNotFoundError) as caught:
        OPERATIONS[name](driver, "/missing/path")
    assert (caught.value.path, caught.value.driver) == ("/missing/path", driver.store.name)
    assert str(caught.value) == f"{driver.store.name}: path not found: /missing/path"


def test_capitals_and_small_letters_are_two_paths(driver: Driver) -> None:
    driver.put_content("/A", b"capital")
    driver.put_content("/a", b"small")
    assert (content(driver, "/A"), content(driver, "/a")) == (b"capital", b"small")
    assert sorted(driver.list("/")) == ["/A", "/a"]


def test_one_component_may_be_as_long_as_the_key_allows(driver: Driver) -> None:
    put(driver, "/" + "c" * 600, b"x")
    assert driver.get_content("/" + "c" * 600) == b"x"
