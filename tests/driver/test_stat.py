"""stat: the key itself, then what lies below ``key/``; nothing else makes a path exist."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.doubles import FaultyStore
from tests.driver.blobs_and_readers import MakeDriver, data, put
from tests.driver.store_kinds import PART, cases
from worker.driver import Driver
from worker.errors import PathNotFoundError, PermissionDeniedError, StoreUnavailableError
from worker.stores.store import Store

pytestmark = pytest.mark.no_cover


@cases("size", [0, 4_096], [1, 3 * PART + 1])
def test_a_blob_has_its_path_its_size_and_a_time(driver: Driver, size: int) -> None:
    put(driver, "/a/b", data(size))
    found = driver.stat("/a/b")
    assert (found.path, found.size, found.is_dir) == ("/a/b", size, False)
    assert found.mod_time is not None


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
    if kind in ("moto", "swift"):
        time.sleep(1.1)  # S3 tells whole seconds
    put(driver, "/a", b"two")
    second = driver.stat("/a").mod_time
    assert first is not None
    assert second is not None
    assert second > first


def test_a_directory_has_no_size_and_no_time(driver: Driver) -> None:
    put(driver, "/a/b/c", data(10))
    for path in ("/a", "/a/b"):
        found = driver.stat(path)
        assert (found.path, found.size, found.mod_time, found.is_dir) == (path, 0, None, True)


@cases("other", ["/ab", "/a-b", "/a-b/c"], ["/a.b", "/a-", "/a.", "/a_", "/a0", "/aa/b"])
@pytest.mark.every_run_on("local", "swift")
def test_a_path_does_not_exist_because_another_begins_with_its_name(driver: Driver, other: str) -> None:
    put(driver, other, b"x")
    with pytest.raises(PathNotFoundError) as caught:
        driver.stat("/a")
    assert caught.value.path == "/a"


@cases("sibling", ["/a-b", "/a--/c"], ["/a-", "/a.", "/a.b", "/a0"])
@pytest.mark.every_run_on("moto")
def test_a_directory_exists_whatever_sorts_before_it(driver: Driver, sibling: str) -> None:
    put(driver, sibling, b"x")
    put(driver, "/a/b", b"x")
    assert driver.stat("/a").is_dir


def test_a_part_of_a_component_is_no_directory(driver: Driver) -> None:
    put(driver, "/abc/def", b"x")
    for path in ("/ab", "/abc/de"):
        with pytest.raises(PathNotFoundError):
            driver.stat(path)


def test_a_blob_is_no_directory_of_what_is_not_there(driver: Driver) -> None:
    put(driver, "/a", b"x")
    with pytest.raises(PathNotFoundError):
        driver.stat("/a/b")


def test_a_file_and_a_directory_of_one_name_is_the_file(driver: Driver) -> None:
    put(driver, "/a/b", data(10))
    put(driver, "/a", data(5))
    assert (driver.stat("/a").is_dir, driver.stat("/a").size) == (False, 5)
    assert driver.stat("/a/b").size == 10


def test_once_the_file_is_gone_the_directory_of_its_name_shows(driver: Driver) -> None:
    put(driver, "/a/b", b"x")
    put(driver, "/a", b"x")
    driver.store.delete_batch([driver.key("/a")])
    assert driver.stat("/a").is_dir


@pytest.mark.every_run_on("moto")
def test_a_marker_makes_a_directory(driver: Driver) -> None:
    driver.store.put(driver.key("/m") + "/", b"")
    found = driver.stat("/m")
    assert (found.path, found.size, found.mod_time, found.is_dir) == ("/m", 0, None, True)


@pytest.mark.every_run_on("local", "moto")
def test_the_root_of_an_empty_store_is_a_directory(driver: Driver) -> None:
    found = driver.stat("/")
    assert (found.path, found.size, found.mod_time, found.is_dir) == ("/", 0, None, True)


def test_the_root_of_a_store_is_a_directory(driver: Driver) -> None:
    put(driver, "/a", b"x")
    found = driver.stat("/")
    assert (found.path, found.size, found.mod_time, found.is_dir) == ("/", 0, None, True)


def test_a_deleted_blob_is_gone_at_once(driver: Driver) -> None:
    put(driver, "/a", b"x")
    driver.delete("/a")
    with pytest.raises(PathNotFoundError):
        driver.stat("/a")


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


def test_a_refusal_is_not_taken_for_a_missing_path(store: Store, on: MakeDriver) -> None:
    for verb, error in (("head", PermissionDeniedError("no")), ("list_page", StoreUnavailableError("away"))):
        with pytest.raises(type(error)):
            on(FaultyStore(store, verb, times=1_000, error=lambda error=error: error)).stat("/a")  # type: ignore[misc]
