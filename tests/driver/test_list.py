"""list: direct children, absolute, each once, without trailing slashes, on any number of pages."""

import pytest

from tests.driver.blobs_and_readers import MakeDriver
from tests.driver.small_pages import SmallPages
from tests.driver.store_kinds import cases
from worker.driver import Driver
from worker.errors import PathNotFoundError, PermissionDeniedError
from worker.stores.store import Store

pytestmark = pytest.mark.no_cover


def fill(driver: Driver, *paths: str) -> None:
    """Store these; a path that ends with a slash is the marker of a directory."""
    for path in paths:
        driver.store.put(driver.key(path.rstrip("/")) + "/" * path.endswith("/"), b"x")


#: What is stored, and the children of some directories.
TREES: dict[str, tuple[tuple[str, ...], dict[str, list[str]]]] = {
    "direct children once each, as absolute paths": (
        ("/dir/a", "/dir/b/1", "/dir/b/2", "/dir/b/c/3", "/other"),
        {"/dir": ["/dir/a", "/dir/b"], "/dir/b": ["/dir/b/1", "/dir/b/2", "/dir/b/c"]},
    ),
    "the root": (("/a", "/b/c", "/d/e/f"), {"/": ["/a", "/b", "/d"]}),
    "the root of an empty store": ((), {"/": []}),
    "a file and a directory of one name are one child": (
        ("/dir/a", "/dir/a/b", "/dir/a-b", "/dir/a.b"),
        {"/dir": ["/dir/a", "/dir/a-b", "/dir/a.b"], "/dir/a": ["/dir/a/b"]},
    ),
    "a marker alone": (("/m/",), {"/": ["/m"], "/m": []}),
    "a marker is no child": (("/m/", "/m/a"), {"/": ["/m"], "/m": ["/m/a"]}),
    "the marker of a child is the child": (("/dir/m/", "/dir/m/a", "/dir/b"), {"/dir": ["/dir/b", "/dir/m"]}),
    "every level of a deep path": (
        ("/a/b/c/d",),
        {"/": ["/a"], "/a": ["/a/b"], "/a/b": ["/a/b/c"], "/a/b/c": ["/a/b/c/d"]},
    ),
}


@cases("paths, children", TREES)
@pytest.mark.every_run_on("local", "moto", "swift", only="once each")
@pytest.mark.every_run_on("moto", "swift", only="marker")
def test_a_directory_lists_its_children(driver: Driver, paths: tuple[str, ...], children: dict[str, list[str]]) -> None:
    fill(driver, *paths)
    found = {path: driver.list(path) for path in children}
    assert {path: sorted(listed) for path, listed in found.items()} == children
    assert all(isinstance(listed, list) for listed in found.values())


@pytest.mark.parametrize(
    ("stored", "path"), [("/a/b", "/c"), ("/a/b", "/a/c"), ("/a/b", "/a/b/c"), ("/a", "/a")], ids=str
)
def test_a_missing_directory_or_a_file_is_path_not_found(driver: Driver, stored: str, path: str) -> None:
    fill(driver, stored, "/ab", "/a-b/c")
    with pytest.raises(PathNotFoundError) as caught:
        driver.list(path)
    assert (caught.value.path, caught.value.driver) == (path, driver.store.name)


@cases("sibling", ["/dira", "/dir-/a"], ["/dir-a", "/dir.a", "/dir0/a"])
@pytest.mark.every_run_on("local", "swift")
def test_what_begins_with_the_same_name_is_no_child(driver: Driver, sibling: str) -> None:
    fill(driver, sibling, "/dir/a")
    assert driver.list("/dir") == ["/dir/a"]


def test_what_others_stored_under_no_valid_path_is_not_listed_as_one(driver: Driver) -> None:
    fill(driver, "/dir/a")
    driver.store.put(driver.key("/dir") + "//b", b"x")
    assert driver.list("/dir") == ["/dir/a"]


#: What is stored below a directory on pages of a few keys, and its children.
PAGED: dict[str, tuple[list[str], list[str]]] = {
    "many children": (["a", "b/1", "b/2", "b/3", "b-", "b.", "c", "d/1", "e"], ["a", "b", "b-", "b.", "c", "d", "e"]),
    "a file and a directory of one name": (["a", "a-1", "a-2", "a.3", "a/b"], ["a", "a-1", "a-2", "a.3"]),
    "a marker alone on the first page": (["", "a", "b"], ["a", "b"]),
}


@cases(
    "size, stored, children",
    {name: (2 if "many" in name else 1, *case) for name, case in PAGED.items()},
    {f"{name}, pages of {size}": (size, *case) for name, case in PAGED.items() for size in (1, 2, 3)},
)
@pytest.mark.every_run_on("local", "moto", only="many")
def test_children_on_many_pages_are_all_listed_once(
    driver: Driver, on: MakeDriver, size: int, stored: list[str], children: list[str]
) -> None:
    fill(driver, *(f"/dir/{name}" for name in stored))
    paged = SmallPages(driver.store, size)
    assert sorted(on(paged).list("/dir")) == [f"/dir/{name}" for name in children]
    assert (paged.pages > 1) == (size < len(stored))


@pytest.mark.parametrize("kind", ["memory"])
def test_more_children_than_one_page_holds_are_all_listed(driver: Driver) -> None:
    children = [f"/dir/{number}" for number in range(2_500)] + [f"/dir/d{number}" for number in range(1_200)]
    fill(driver, *(f"{child}/x" if "d" in child[5:] else child for child in children))
    assert sorted(driver.list("/dir")) == sorted(children)


@pytest.mark.every_run_on("moto", "swift")
def test_a_new_blob_is_listed_at_once_and_a_deleted_one_no_more(driver: Driver) -> None:
    driver.put_content("/dir/a", b"x")
    driver.put_content("/dir/b", b"x")
    assert sorted(driver.list("/dir")) == ["/dir/a", "/dir/b"]
    driver.delete("/dir/a")
    assert driver.list("/dir") == ["/dir/b"]


def test_an_unfinished_upload_is_not_listed(driver: Driver) -> None:
    upload_id = driver.store.create_upload(driver.key("/dir/a"))
    fill(driver, "/dir/b")
    assert driver.list("/dir") == ["/dir/b"]
    driver.store.abort_upload(driver.key("/dir/a"), upload_id)


@pytest.mark.parametrize("path", ["/", "/a"])
def test_a_refusal_is_not_taken_for_a_missing_path(store: Store, refused_at: MakeDriver, path: str) -> None:
    with pytest.raises(PermissionDeniedError):
        refused_at("list_page").list(path)
