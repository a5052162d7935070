"""What keys look like from above, page by page. The driver's suite has all the stores and the paths."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.doubles import RecordingStore, WrappedStore, tiny_store
from tests.faults import refusing
from worker.driver.directories import children, is_directory
from worker.errors import PermissionDeniedError
from worker.stores.blob_values import Page
from worker.stores.local import LocalStore
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.store import Store


class EmptyPages(WrappedStore):
    """Every page comes after an empty one that says there is more: S3 may answer so, and after many deletes does."""

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if name != "list_page":
            return super()._do(name, args, keywords)
        kind, _, token = (keywords.get("token") or "empty:").partition(":")
        if kind == "empty":
            return Page([], [], f"full:{token}")
        page: Page = super()._do(name, args, keywords | {"token": token or None, "limit": 1})
        return replace(page, next_token=page.next_token and f"empty:{page.next_token}")


@pytest.fixture(params=["memory", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Any) -> Store:
    return tiny_store() if request.param == "memory" else LocalStore(tmp_path / "bucket")


def fill(store: Store, *keys: str) -> None:
    for key in keys:
        store.put(key, b"")


CASES: dict[str, tuple[list[str], list[str] | None]] = {
    "nothing": ([], None),
    "only siblings": (["d", "d-x", "d.x", "d0"], None),
    "keys": (["d/a", "d/b"], ["/d/a", "/d/b"]),
    "a directory": (["d/a/1", "d/a/2"], ["/d/a"]),
    "key and directory of one name": (["d/a", "d/a/1"], ["/d/a"]),
    "only the marker": (["d/"], []),
    "the marker and a key": (["d/", "d/a"], ["/d/a"]),
    "the marker of a child": (["d/m/"], ["/d/m"]),
    "an empty name": (["d//a", "d/a"], ["/d/a"]),
    "only an empty name": (["d//a"], []),
    "byte order of names, which is not that of keys": (
        ["d/a", "d/a-", "d/a.b", "d/a/x", "d/a0", "d/B", "d/_"],
        ["/d/B", "/d/_", "/d/a", "/d/a-", "/d/a.b", "/d/a0"],
    ),
}


@pytest.mark.parametrize("pages", [WrappedStore, EmptyPages], ids=["full pages", "empty pages that are not the last"])
@pytest.mark.parametrize(("keys", "expected"), CASES.values(), ids=CASES)
def test_children_are_direct_once_each_in_byte_order(
    store: Store, pages: Callable[[Store], Store], keys: list[str], expected: list[str] | None
) -> None:
    fill(store, *keys)
    assert children(pages(store), "d/", "/d") == expected
    assert is_directory(pages(store), "d/") == (expected is not None)


def test_the_root_of_a_bucket_has_an_empty_prefix_and_a_prefix_may_differ_from_the_path(store: Store) -> None:
    fill(store, "a", "b/c", "root/d/a", "d/b")
    assert children(store, "", "/") == ["/a", "/b", "/d", "/root"]
    assert children(store, "root/d/", "/d") == ["/d/a"]


def test_a_directory_of_many_pages_is_listed_whole() -> None:
    memory = MemoryStore()
    fill(memory, *(f"d/{number}" for number in range(1_500)), *(f"d/x{number}/y" for number in range(700)))
    store = RecordingStore(memory)
    found = children(store, "d/", "/d") or []
    assert found == sorted(set(found))
    assert (len(found), len(store.calls)) == (2_200, 3)


def test_one_key_of_one_page_tells_whether_a_directory_is_there() -> None:
    memory = MemoryStore()
    fill(memory, *(f"d/{number}" for number in range(10)))
    store = RecordingStore(memory)
    assert is_directory(store, "d/")
    assert [(call.verb, call.keywords["limit"]) for call in store.calls] == [("list_page", 1)]


@pytest.mark.parametrize("look", [lambda store: children(store, "d/", "/d"), lambda store: is_directory(store, "d/")])
def test_an_error_on_a_later_page_is_no_shorter_answer(store: Store, look: Callable[[Store], object]) -> None:
    fill(store, "d/a", "d/b")
    with pytest.raises(PermissionDeniedError):
        look(refusing(EmptyPages(store), "list_page", fail_at=2))


def test_all_blobs_below_a_prefix_are_listed_without_markers(store: Store) -> None:
    fill(store, "a", "d/", "d/x", "d/e/y", "d/e/f/", "d/g//z", "dd")
    for seen in (store, EmptyPages(store)):
        assert children(seen, "d/", "/d", recursive=True) == ["/d/e/y", "/d/x"]
        assert children(seen, "", "/", recursive=True) == ["/a", "/d/e/y", "/d/x", "/dd"]
        assert children(seen, "n/", "/n", recursive=True) is None
