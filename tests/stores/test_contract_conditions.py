"""The contract of every store: what a commit call or a copy does where its condition does not hold."""

from collections.abc import Callable

import pytest

from tests.doubles import blob
from tests.stores.contract import LAST, Deviates, error_of, md5_etag
from tests.stores.open_upload import OpenUpload
from worker.errors import NotSupportedError, PreconditionFailedError, StoreError
from worker.stores.blob_values import Condition
from worker.stores.store import Store

pytestmark = pytest.mark.every_run_on("local", "moto")


def put(store: Store, key: str, condition: Condition) -> None:
    store.put(key, LAST, condition=condition)


def copy(store: Store, key: str, condition: Condition) -> None:
    store.put(f"{key} source", LAST)
    store.copy(f"{key} source", key, condition=condition)


def completion(store: Store, key: str, condition: Condition) -> None:
    OpenUpload(store, key, LAST).complete(condition=condition)


CREATE, REPLACE = Condition(if_none_match=True), Condition(if_match=md5_etag(b"there"))
SITUATIONS: dict[str, tuple[bytes | None, Condition, bool]] = {  # what is there, the condition, does it hold
    "create where nothing is": (None, CREATE, True),
    "create where a blob is": (b"there", CREATE, False),
    "replace the blob that is there": (b"there", REPLACE, True),
    "replace a blob that is no longer there": (b"another", REPLACE, False),
    "replace a blob where nothing is": (None, REPLACE, False),
}


@pytest.mark.parametrize("commit", [put, copy, completion])
@pytest.mark.parametrize(("there", "condition", "holds"), SITUATIONS.values(), ids=SITUATIONS)
@pytest.mark.every_run_on("swift", only="create where a blob is")
@pytest.mark.every_run_on("swift", only="replace the blob")
def test_a_commit_call_whose_condition_does_not_hold_leaves_alone_what_is_there(
    store: Store,
    key: str,
    deviates: Deviates,
    commit: Callable[[Store, str, Condition], None],
    there: bytes | None,
    condition: Condition,
    holds: bool,
) -> None:
    if there is not None:
        store.put(key, there)
    is_ignored = (commit is copy and deviates("copies obey conditions")) or (
        commit is completion and condition is REPLACE and deviates("completion obeys If-Match")
    )
    expected: type[StoreError] | None = None if holds or is_ignored else PreconditionFailedError
    if condition is REPLACE and deviates("If-Match on writes"):
        expected = NotSupportedError
    if commit is copy and condition is CREATE and deviates("a copy may create"):
        expected = PreconditionFailedError
    assert error_of(commit, store, key, condition) is expected
    assert blob(store, key) == (there if expected else LAST)


def whole(store: Store, source: str, key: str, etag: str) -> None:
    store.copy(source, key, source_if_match=etag)


def in_parts(store: Store, source: str, key: str, etag: str) -> None:
    upload = OpenUpload(store, key)
    upload.complete(upload.copy(1, source, 0, 5, source_if_match=etag))


@pytest.mark.parametrize("copied", [whole, in_parts])
@pytest.mark.every_run_on("swift", only="whole")
def test_a_source_is_copied_as_long_as_it_is_the_one_that_was_meant(
    store: Store, prefix: str, deviates: Deviates, copied: Callable[[Store, str, str, str], None]
) -> None:
    store.put(prefix + "source", b"hello")
    copied(store, prefix + "source", prefix + "a", store.head(prefix + "source").etag)
    assert blob(store, prefix + "a") == b"hello"

    expected = None if deviates("copies obey conditions") else PreconditionFailedError
    assert error_of(copied, store, prefix + "source", prefix + "b", '"0123"') is expected
    assert blob(store, prefix + "b") == (None if expected else b"hello")


@pytest.mark.every_run_on("swift", only="wrong")
@pytest.mark.parametrize("etag", [md5_etag(b"one"), '"0123"'], ids=["right", "wrong"])
def test_a_delete_with_an_etag_deletes_that_blob_only(store: Store, key: str, etag: str) -> None:
    assert store.delete_batch([key], if_match=etag) == []  # it is not there
    store.put(key, b"one")
    expected = PreconditionFailedError if etag == '"0123"' else None
    assert error_of(store.delete_batch, [key], if_match=etag) is expected
    assert blob(store, key) == (b"one" if expected else None)
