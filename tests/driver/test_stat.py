"""stat: the key itself, then what lies below ``key/``; nothing else makes a path exist."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.driver.blobs_and_readers import MakeDriver, data, put
from tests.driver.store_kinds import PART, SERVERS, cases
from worker.driver import Driver
from worker.errors import PathNotFoundError, PermissionDeniedError, StoreUnavailableError
from worker.stores.store import Store

pytestmark = pytest.mark.no_cover


#: What is stored, a path, and its size; None: it is a directory.
FOUND: dict[str, tuple[dict[str, int], str, int | None]] = {
    "an empty blob": ({"/a/b": 0}, "/a/b", 0),
    "a blob": ({"/a/b": 4_096}, "/a/b", 4_096),
    "a large blob": ({"/a/b": 3 * PART + 1}, "/a/b", 3 * PART + 1),
    "a directory": ({"/a/b/c": 10}, "/a/b", None),
    "a directory of directories": ({"/a/b/c": 10}, "/a", None),
    "the file, of a file and a directory of one name": ({"/a/b": 10, "/a": 5}, "/a", 5),
    "what lies below a file": ({"/a/b": 10, "/a": 5}, "/a/b", 10),
    "a marker": ({"/m/": 0}, "/m", None),
    "the root of an empty store": ({}, "/", None),
    "the root": ({"/a": 1}, "/", None),
}


@cases("stored, path, size", FOUND)
@pytest.mark.every_run_on("local", "moto", "swift", only="a marker")
@pytest.mark.every_run_on("local", "moto", only="root of an empty")
@pytest.mark.every_run_on("moto", "swift", only="-a blob")
def test_a_blob_or_a_directory_is_found(driver: Driver, stored: dict[str, int], path: str, size: int | None) -> None:
    for name, count in stored.items():
        driver.store.put(driver.key(name.rstrip("/")) + "/" * name.endswith("/"), data(count))
    found = driver.stat(path)
    assert (found.path, found.size, found.is_dir) == (path, size or 0, size is None)
    assert (found.mod_time is None) == found.is_dir


@pytest.mark.every_run_on("moto", "swift")
def test_a_time_is_aware_and_utc_and_about_now(driver: Driver) -> None:
    put(driver, "/a", b"x")
    found = driver.stat("/a").mod_time
    assert found is not None
    assert found.utcoffset() == timedelta(0)
    assert abs(found - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_time_grows_when_the_blob_is_replaced(driver: Driver, kind: str) -> None:
    put(driver, "/a", b"one")
    first = driver.stat("/a").mod_time
    if kind in SERVERS:
        time.sleep(1.1)  # S3 tells whole seconds
    put(driver, "/a", b"two")
    second = driver.stat("/a").mod_time
    assert first is not None
    assert second is not None
    assert second > first


@cases(
    "path, other",
    [("/a", "/ab"), ("/a", "/a-b"), ("/a", "/a-b/c"), ("/ab", "/abc/def"), ("/abc/de", "/abc/def"), ("/a/b", "/a")],
    [("/a", other) for other in ("/a.b", "/a-", "/a.", "/a_", "/a0", "/aa/b")],
)
@pytest.mark.every_run_on("local", "swift")
def test_a_path_does_not_exist_because_another_begins_with_its_name_or_is_above(
    driver: Driver, path: str, other: str
) -> None:
    put(driver, other, b"x")
    with pytest.raises(PathNotFoundError) as caught:
        driver.stat(path)
    assert caught.value.path == path


@cases("sibling", ["/a-b", "/a--/c"], ["/a-", "/a.", "/a.b", "/a0"])
@pytest.mark.every_run_on("moto")
def test_a_directory_exists_whatever_sorts_before_it(driver: Driver, sibling: str) -> None:
    put(driver, sibling, b"x")
    put(driver, "/a/b", b"x")
    assert driver.stat("/a").is_dir


def test_once_the_file_is_gone_the_directory_of_its_name_shows(driver: Driver) -> None:
    put(driver, "/a/b", b"x")
    put(driver, "/a", b"x")
    driver.store.delete_batch([driver.key("/a")])
    assert driver.stat("/a").is_dir


@cases("size", [2 * PART + 1], [10])
@pytest.mark.every_run_on("moto")
def test_whenever_stat_shows_a_size_so_many_bytes_can_be_read(driver: Driver, size: int) -> None:
    whole = b""
    for turn in range(2):
        piece = data(size, seed=turn)
        driver.put_content("/piece", piece)
        with driver.read_stream("/piece") as stream:
            driver.write_stream("/a", len(whole), stream)
        whole += piece
        assert driver.stat("/a").size == len(whole)
        with driver.read_stream("/a") as stream:
            assert stream.read() == whole


@pytest.mark.parametrize(("verb", "error"), [("head", PermissionDeniedError), ("list_page", StoreUnavailableError)])
def test_a_refusal_is_not_taken_for_a_missing_path(
    store: Store, refused_at: MakeDriver, verb: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        refused_at(verb, error=error).stat("/a")
