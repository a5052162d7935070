"""The contract of every store: listings, deletes and copies. See contract.py for deviations."""

from datetime import timedelta

import pytest

from tests.stores.contract import LAST, ODD_NAMES, Deviates, content, exists, keys
from worker.errors import (
    InvalidStoreRequestError,
    NotSupportedError,
    PreconditionFailedError,
)
from worker.stores.blob_values import BlobOptions, Condition
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


def test_an_entry_tells_size_and_time_in_utc(store: Store, prefix: str) -> None:
    store.put(prefix + "a", b"hello")
    (entry,) = store.list_page(prefix).entries
    assert entry.size == 5
    assert entry.mod_time.utcoffset() == timedelta(0)


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
    token = None
    while True:
        page = store.list_page(prefix, delimiter=delimiter, token=token, limit=limit)
        assert len(page.entries) + len(page.prefixes) <= limit
        found += [entry.key for entry in page.entries] + list(page.prefixes)
        token = page.next_token
        if token is None:
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
    store.put(f"{prefix}1/{name}", b"hello")
    store.copy(f"{prefix}1/{name}", f"{prefix}2/{name}")
    assert keys(store, prefix) == [f"{prefix}1/{name}", f"{prefix}2/{name}"]
    assert content(store, f"{prefix}2/{name}") == b"hello"
    assert store.delete_batch([f"{prefix}1/{name}"]) == []
    assert keys(store, prefix) == [f"{prefix}2/{name}"]


@pytest.mark.parametrize("name", ["a b/ü", "a%2Fb+c"])
@pytest.mark.every_run_on("swift")
def test_an_odd_key_survives_an_upload(store: Store, prefix: str, name: str) -> None:
    upload_id = store.create_upload(prefix + name)
    part = store.upload_part(prefix + name, upload_id, 1, LAST)
    store.complete_upload(prefix + name, upload_id, [part])
    assert keys(store, prefix) == [prefix + name]


# --- deletes ---------------------------------------------------------------------------------------------------------


@pytest.mark.every_run_on("swift")
def test_a_batch_deletes_its_keys_and_no_others(store: Store, prefix: str) -> None:
    for name in ("a", "a/b", "ab", "c"):
        store.put(prefix + name, b"")
    assert store.delete_batch([prefix + "a", prefix + "c"]) == []
    assert keys(store, prefix) == [prefix + "a/b", prefix + "ab"]


def test_a_missing_key_counts_as_deleted(store: Store, prefix: str) -> None:
    store.put(prefix + "a", b"")
    assert store.delete_batch([prefix + "nothing", prefix + "a"]) == []
    assert keys(store, prefix) == []


def test_a_batch_of_no_keys_deletes_nothing(store: Store) -> None:
    assert store.delete_batch([]) == []


def test_a_batch_of_too_many_keys_is_refused(store: Store, prefix: str) -> None:
    with pytest.raises(InvalidStoreRequestError):
        store.delete_batch([f"{prefix}{number}" for number in range(store.limits.max_delete + 1)])


def test_a_delete_with_the_right_etag_deletes(store: Store, prefix: str) -> None:
    store.put(prefix + "a", b"one")
    assert store.delete_batch([prefix + "a"], if_match=store.head(prefix + "a").etag) == []
    assert not exists(store, prefix + "a")


@pytest.mark.every_run_on("swift")
def test_a_delete_with_another_etag_keeps_the_blob(store: Store, prefix: str) -> None:
    store.put(prefix + "a", b"one")
    with pytest.raises(PreconditionFailedError):
        store.delete_batch([prefix + "a"], if_match='"0123"')
    assert content(store, prefix + "a") == b"one"


def test_a_delete_with_an_etag_of_a_missing_key_is_done(store: Store, prefix: str) -> None:
    assert store.delete_batch([prefix + "nothing"], if_match='"0123"') == []


# --- copies ----------------------------------------------------------------------------------------------------------


@pytest.mark.every_run_on("swift")
def test_a_copy_carries_bytes_type_metadata_and_headers(store: Store, prefix: str) -> None:
    options = BlobOptions(content_type="text/css", metadata={"a": "1"}, headers={"Cache-Control": "no-store"})
    store.put(prefix + "a", b"hello", options=options)
    receipt = store.copy(prefix + "a", prefix + "b")
    copied = store.options_of(prefix + "b")
    assert content(store, prefix + "b") == content(store, prefix + "a") == b"hello"
    assert (copied.content_type, copied.metadata, copied.headers) == ("text/css", {"a": "1"}, options.headers)
    assert receipt.etag == store.head(prefix + "b").etag


def test_a_copy_carries_tags(store: Store, prefix: str, deviates: Deviates) -> None:
    if deviates("tags"):
        store.put(prefix + "a", b"hello")
        store.copy(prefix + "a", prefix + "b")
        assert store.options_of(prefix + "b").tags == {}
        return
    store.put(prefix + "a", b"hello", options=BlobOptions(tags={"team": "video"}))
    store.copy(prefix + "a", prefix + "b")
    assert store.options_of(prefix + "b").tags == {"team": "video"}


def test_options_given_to_a_copy_replace_those_of_the_source(store: Store, prefix: str) -> None:
    store.put(prefix + "a", b"hello", options=BlobOptions(content_type="text/css", metadata={"a": "1"}))
    store.copy(prefix + "a", prefix + "b", options=BlobOptions(content_type="text/html", metadata={"b": "2"}))
    head = store.head(prefix + "b")
    assert (head.content_type, head.metadata) == ("text/html", {"b": "2"})


def test_a_copy_replaces_what_is_there(store: Store, prefix: str) -> None:
    store.put(prefix + "a", b"hello")
    store.put(prefix + "b", b"something longer")
    store.copy(prefix + "a", prefix + "b")
    assert content(store, prefix + "b") == b"hello"


def test_a_copy_onto_itself_without_a_change_is_refused_and_loses_nothing(store: Store, prefix: str) -> None:
    store.put(prefix + "a", b"hello")
    with pytest.raises(InvalidStoreRequestError):
        store.copy(prefix + "a", prefix + "a")
    assert content(store, prefix + "a") == b"hello"


@pytest.mark.every_run_on("swift")
def test_a_copy_of_a_source_that_changed_is_refused(store: Store, prefix: str, deviates: Deviates) -> None:
    store.put(prefix + "a", b"hello")
    if deviates("copies obey conditions"):
        store.copy(prefix + "a", prefix + "b", source_if_match='"0123"')
        return
    with pytest.raises(PreconditionFailedError):
        store.copy(prefix + "a", prefix + "b", source_if_match='"0123"')
    assert not exists(store, prefix + "b")


def test_a_copy_of_the_source_that_was_meant_is_made(store: Store, prefix: str) -> None:
    store.put(prefix + "a", b"hello")
    store.copy(prefix + "a", prefix + "b", source_if_match=store.head(prefix + "a").etag)
    assert content(store, prefix + "b") == b"hello"


@pytest.mark.parametrize("condition", [Condition(if_none_match=True), Condition(if_match='"0123"')], ids=str)
def test_a_copy_whose_condition_does_not_hold_leaves_alone_what_is_there(
    store: Store, prefix: str, deviates: Deviates, condition: Condition
) -> None:
    store.put(prefix + "a", b"hello")
    store.put(prefix + "b", b"there")
    if deviates("copies obey conditions"):
        store.copy(prefix + "a", prefix + "b", condition=condition)
        assert content(store, prefix + "b") == b"hello"
        return
    is_unknown = condition.if_match and deviates("If-Match on writes")
    with pytest.raises(NotSupportedError if is_unknown else PreconditionFailedError):
        store.copy(prefix + "a", prefix + "b", condition=condition)
    assert content(store, prefix + "b") == b"there"
