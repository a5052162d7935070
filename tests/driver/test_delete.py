"""delete: the key and what lies below ``key/``, nothing else; told by name if some of it would not go."""

import pytest

from tests.driver.blobs_and_readers import MakeDriver, data, keys, put
from tests.driver.small_pages import SmallPages
from tests.driver.store_kinds import cases
from tests.faults import StubbornStore, refusing
from worker.driver import Driver
from worker.errors import DeleteIncompleteError, PathNotFoundError, PermissionDeniedError, StoreUnavailableError

pytestmark = pytest.mark.no_cover


def fill(driver: Driver, *paths: str) -> None:
    for path in paths:
        put(driver, path, b"x")


Case = tuple[str, str, str]


# what is stored, what is deleted, what is left
CASES: dict[str, Case] = {
    "a blob": ("/a", "/a", ""),
    "a sibling that sorts before the slash": ("/a-b /a/c", "/a", "a-b"),
    "the old driver's matrix": (
        "/f1 /f1-2 /f/1 /f/2 /f-v2/1 /f1/x /f12 /f.1 /g/1 /h",
        "/f1",
        "f-v2/1 f.1 f/1 f/2 f1-2 f12 g/1 h",
    ),
    "a file and the directory of its name": ("/a /a/b /a/c/d", "/a", ""),
    "a directory within another": ("/d/a/1 /d/a/2 /d/b", "/d/a", "d/b"),
}
MORE: dict[str, Case] = {
    "a blob beside others": ("/a /b", "/a", "b"),
    "a directory": ("/d/a /d/b /d/c", "/d", ""),
    "a deep directory": ("/d/a/b/c /d/e", "/d", ""),
    "a file keeps its longer sibling": ("/a /ab", "/a", "ab"),
    "a directory keeps its longer sibling": ("/d/a /d2/a /dd", "/d", "d2/a dd"),
    "many siblings that sort first": ("/a /a- /a-b /a-b/c /a. /a.b /a/c /a0 /a_", "/a", "a- a-b a-b/c a. a.b a0 a_"),
    "the last child takes its directory along": ("/d/a", "/d/a", ""),
}


@cases("stored, path, left", CASES, MORE)
@pytest.mark.every_run_on("swift")
def test_a_delete_takes_the_key_and_what_lies_below_and_no_sibling(
    driver: Driver, stored: str, path: str, left: str
) -> None:
    fill(driver, *stored.split())
    answer: object = driver.delete(path)  # type: ignore[func-returns-value]
    assert (answer, keys(driver)) == (None, left.split())
    assert set(driver.list("/")) == {"/" + key.partition("/")[0] for key in left.split()}
    for operation in (driver.stat, driver.delete):
        with pytest.raises(PathNotFoundError):
            operation(path)


@cases("stored", [[], ["/ab"], ["/a-b", "/a.b"], ["/a/b"]], [["/a-b/c"], ["/b/a"]])
def test_nothing_there_is_path_not_found_and_all_else_stays(driver: Driver, stored: list[str]) -> None:
    path = "/a/b/c" if stored == ["/a/b"] else "/a"
    fill(driver, *stored)
    with pytest.raises(PathNotFoundError) as caught:
        driver.delete(path)
    assert (caught.value.path, caught.value.driver) == (path, driver.store.name)
    assert keys(driver) == [each[1:] for each in stored]


@pytest.mark.parametrize("stored", [[], ["/m/a", "/m/b/c"]], ids=str)
@pytest.mark.every_run_on("local", "moto", "swift")
def test_a_marker_is_deleted_with_its_directory(driver: Driver, stored: list[str]) -> None:
    fill(driver, *stored)
    driver.store.put(driver.key("/m") + "/", b"")
    driver.store.put(driver.key("/mm") + "/", b"")
    driver.delete("/m")
    assert keys(driver) == ["mm/"]


def test_what_others_stored_below_goes_as_well(driver: Driver) -> None:
    fill(driver, "/d/a")
    for name in ("//b", "/a b", "/ü", "/./c"):
        driver.store.put(driver.key("/d") + name, b"x")
    driver.delete("/d")
    assert keys(driver) == []


@cases("size", [3], [1, 2, 5])
def test_a_tree_of_many_pages_is_deleted_in_batches(driver: Driver, on: MakeDriver, size: int) -> None:
    fill(driver, "/d", *(f"/d/{number}" for number in range(11)), "/d-", "/d0")
    paged = SmallPages(driver.store, size)
    on(paged).delete("/d")
    assert keys(driver) == ["d-", "d0"]
    assert max(paged.batches) <= size


#: What is stored, what is deleted, what would not go, and why.
STUBBORN: dict[str, tuple[list[str], str, tuple[str, ...], str]] = {
    "keys below": ([f"/d/{number}" for number in range(9)], "/d", ("/d/1", "/d/7"), "ObjectLocked"),
    "a key that may yet go": (["/d/1", "/d/2"], "/d", ("/d/1",), "SlowDown"),
    "the blob itself": (["/a", "/a/b"], "/a", ("/a",), "ObjectLocked"),
}


@cases("stored, path, kept, code", STUBBORN)
@pytest.mark.every_run_on("local", "moto", only="keys below")
def test_keys_that_would_not_go_are_named_and_all_others_go(
    driver: Driver, on: MakeDriver, stored: list[str], path: str, kept: tuple[str, ...], code: str
) -> None:
    fill(driver, *stored)
    stubborn = StubbornStore(SmallPages(driver.store, 4), lambda key: code if key.endswith(kept) else None)
    with pytest.raises(DeleteIncompleteError, match=kept[0]) as caught:
        on(stubborn).delete(path)
    assert (caught.value.path, caught.value.transient) == (path, code == "SlowDown")
    assert sorted(caught.value.failures) == [[key, code] for key in kept]
    assert keys(driver) == [key[1:] for key in kept]


@pytest.mark.parametrize("verb", ["list_page", "delete_batch"])
@pytest.mark.every_run_on("moto")
def test_a_refusal_is_neither_success_nor_path_not_found(driver: Driver, refused_at: MakeDriver, verb: str) -> None:
    fill(driver, "/d/1", "/d/2")
    with pytest.raises(PermissionDeniedError):
        refused_at(verb).delete("/d")
    assert keys(driver) == ["d/1", "d/2"]


@pytest.mark.every_run_on("local", "swift")
def test_a_delete_that_broke_off_goes_on_when_it_is_called_again(driver: Driver, on: MakeDriver) -> None:
    fill(driver, *(f"/d/{number}" for number in range(9)))
    faulty = refusing(SmallPages(driver.store, 2), "delete_batch", fail_at=3, error=StoreUnavailableError)
    with pytest.raises(StoreUnavailableError):
        on(faulty).delete("/d")
    assert 0 < len(keys(driver)) < 9
    driver.delete("/d")
    assert keys(driver) == []


def test_other_blobs_are_still_whole(driver: Driver) -> None:
    put(driver, "/keep/a", data(5_000))
    fill(driver, "/d/a", "/d/b")
    driver.delete("/d")
    assert driver.get_content("/keep/a") == data(5_000)
