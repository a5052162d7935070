"""The contract of every store: listings, deletes and copies. See contract.py for deviations."""

import pytest

from tests.doubles import blob
from tests.stores.contract import LAST, ODD_NAMES, Deviates, error_of, keys, pages
from tests.stores.open_upload import OpenUpload
from worker.errors import InvalidStoreRequestError
from worker.stores.blob_values import BlobOptions
from worker.stores.store import Store

pytestmark = pytest.mark.every_run_on("local", "moto")


# --- listings --------------------------------------------------------------------------------------------------------


@pytest.mark.every_run_on("swift")
def test_a_listing_is_in_byte_order_of_the_keys(store: Store, prefix: str) -> None:
    names = ["B", "a", "a-b", "a.b", "a/b", "a0", "z", "~", "ü", "\uffee", "\U0001f600"]
    for name in reversed(names):
        store.put(prefix + name, b"")
    assert keys(store, prefix) == [prefix + name for name in names]


def test_a_listing_holds_the_keys_with_the_prefix_and_no_others(store: Store, prefix: str) -> None:
    for name in ("a", "ab", "b"):
        store.put(prefix + name, b"")
    assert keys(store, prefix + "a") == [prefix + "a", prefix + "ab"]


def test_a_listing_of_nothing_is_one_empty_page(store: Store, prefix: str) -> None:
    page = store.list_page(prefix)
    assert (list(page.entries), list(page.prefixes), page.next_token) == ([], [], None)


@pytest.mark.every_run_on("swift")
def test_a_delimiter_gathers_what_lies_deeper(store: Store, prefix: str) -> None:
    for name in ("a", "b/1", "b/2", "b/c/3", "b-", "d/"):
        store.put(prefix + name, b"")
    page = store.list_page(prefix, delimiter="/")
    assert [entry.key for entry in page.entries] == [prefix + "a", prefix + "b-"]
    assert list(page.prefixes) == [prefix + "b/", prefix + "d/"]


def all_items(store: Store, prefix: str, *, limit: int, delimiter: str = "") -> list[str]:
    """Keys and common prefixes of all pages, in order."""
    found: list[str] = []
    for page in pages(store, prefix, limit=limit, delimiter=delimiter):
        assert len(page.entries) + len(page.prefixes) <= limit
        found += [*(entry.key for entry in page.entries), *page.prefixes]
    return found


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_pages_join_to_the_whole_listing(store: Store, prefix: str, limit: int) -> None:
    names = [f"{prefix}{number}" for number in range(7)]
    for name in names:
        store.put(name, b"")
    assert all_items(store, prefix, limit=limit) == names


def test_a_common_prefix_counts_once_and_on_one_page(store: Store, prefix: str) -> None:
    for name in ("a/1", "a/2", "a/3", "b", "c/1", "c/2", "d"):
        store.put(prefix + name, b"")
    found = all_items(store, prefix, limit=1, delimiter="/")
    assert found == [prefix + name for name in ("a/", "b", "c/", "d")]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_an_odd_key_survives_put_list_copy_and_delete(store: Store, prefix: str, name: str) -> None:
    first, second = f"{prefix}1/{name}", f"{prefix}2/{name}"
    store.put(first, b"hello")
    store.copy(first, second)
    assert keys(store, prefix) == [first, second]
    assert blob(store, second) == b"hello"
    assert store.delete_batch([first]) == []
    assert keys(store, prefix) == [second]


@pytest.mark.parametrize("name", ["a b/ü", "a%2Fb+c"])
@pytest.mark.every_run_on("swift")
def test_an_odd_key_survives_an_upload(store: Store, prefix: str, name: str) -> None:
    OpenUpload(store, prefix + name, LAST).complete()
    assert keys(store, prefix) == [prefix + name]


# --- deletes ---------------------------------------------------------------------------------------------------------


@pytest.mark.every_run_on("swift")
def test_a_batch_deletes_its_keys_and_no_others_and_a_missing_one_counts_as_deleted(store: Store, prefix: str) -> None:
    for name in ("a", "a/b", "ab", "c"):
        store.put(prefix + name, b"")
    assert store.delete_batch([prefix + "nothing", prefix + "a", prefix + "c"]) == []
    assert keys(store, prefix) == [prefix + "a/b", prefix + "ab"]


def test_a_batch_of_no_keys_deletes_nothing(store: Store) -> None:
    assert store.delete_batch([]) == []


def test_a_batch_of_too_many_keys_is_refused(store: Store, prefix: str) -> None:
    too_many = [f"{prefix}{number}" for number in range(store.limits.max_delete + 1)]
    assert error_of(store.delete_batch, too_many) is InvalidStoreRequestError


# --- copies ----------------------------------------------------------------------------------------------------------


@pytest.mark.every_run_on("swift")
def test_a_copy_carries_bytes_type_metadata_and_headers_and_replaces_what_is_there(store: Store, prefix: str) -> None:
    options = BlobOptions(content_type="text/css", metadata={"a": "1"}, headers={"Cache-Control": "no-store"})
    store.put(prefix + "a", b"hello", options=options)
    store.put(prefix + "b", b"something longer")
    receipt = store.copy(prefix + "a", prefix + "b")
    copied = store.options_of(prefix + "b")
    assert blob(store, prefix + "b") == blob(store, prefix + "a") == b"hello"
    assert (copied.content_type, copied.metadata, copied.headers) == ("text/css", {"a": "1"}, options.headers)
    assert receipt.etag == store.head(prefix + "b").etag


def test_a_copy_carries_tags(store: Store, prefix: str, deviates: Deviates) -> None:
    tags = {} if deviates("tags") else {"team": "video"}
    store.put(prefix + "a", b"hello", options=BlobOptions(tags=tags))
    store.copy(prefix + "a", prefix + "b")
    assert store.options_of(prefix + "b").tags == tags


def test_options_given_to_a_copy_replace_those_of_the_source(store: Store, prefix: str) -> None:
    store.put(prefix + "a", b"hello", options=BlobOptions(content_type="text/css", metadata={"a": "1"}))
    store.copy(prefix + "a", prefix + "b", options=BlobOptions(content_type="text/html", metadata={"b": "2"}))
    head = store.head(prefix + "b")
    assert (head.content_type, head.metadata) == ("text/html", {"b": "2"})


def test_a_copy_onto_itself_without_a_change_is_refused_and_loses_nothing(store: Store, key: str) -> None:
    store.put(key, b"hello")
    assert error_of(store.copy, key, key) is InvalidStoreRequestError
    assert blob(store, key) == b"hello"
