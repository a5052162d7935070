"""The contract of every store: blobs, conditions, options and URLs. See contract.py for deviations."""

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from tests.doubles import blob
from tests.stores.contract import ALGORITHMS, FIRST, Deviates, checksum, content, exists, keys, upload_two_parts
from tests.stores.reused_buffer import ReusedBuffer
from worker.errors import (
    ChecksumMismatchError,
    InvalidStoreRequestError,
    KeyNotFoundError,
    NotSupportedError,
    PreconditionFailedError,
    RangeNotSatisfiableError,
    SourceUnavailableError,
)
from worker.stores.blob_values import BlobOptions, Condition
from worker.stores.store import Body, Store

pytestmark = pytest.mark.every_run_on("local", "moto")
LARGE = os.urandom(300_001)


# --- put, get, head --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [bytes, ReusedBuffer])
@pytest.mark.parametrize("data", [b"hello", b"", LARGE], ids=["small", "empty", "large"])
@pytest.mark.every_run_on("swift", only="large")
def test_a_blob_that_was_put_is_read_back(
    store: Store, prefix: str, data: bytes, body: Callable[[bytes], Body | bytes]
) -> None:
    store.put(prefix + "a", body(data))
    assert content(store, prefix + "a") == data
    assert store.head(prefix + "a").size == len(data)


@pytest.mark.every_run_on("swift")
def test_a_body_may_be_put_again_by_another_call(store: Store, prefix: str) -> None:
    """It is at its end by then: whoever does not rewind it announces bytes that never come."""
    body = ReusedBuffer(b"x" * 100_000)
    for name in ("a", "b"):
        store.put(prefix + name, body)
        assert content(store, prefix + name) == b"x" * 100_000


def test_a_put_replaces_the_whole_blob(store: Store, prefix: str) -> None:
    store.put(prefix + "a", b"a long blob")
    store.put(prefix + "a", b"short")
    assert content(store, prefix + "a") == b"short"


@pytest.mark.every_run_on("swift")
def test_an_error_of_the_body_comes_out_as_it_was_raised(store: Store, prefix: str) -> None:
    class Broken(ReusedBuffer):
        def read(self, size: int = -1, /) -> memoryview:
            if self.tell() >= 128 * 1024:
                raise SourceUnavailableError("the source went away")
            return super().read(size)

    with pytest.raises(SourceUnavailableError, match="the source went away"):
        store.put(prefix + "a", Broken(bytes(300_000)))
    assert not exists(store, prefix + "a")


@pytest.mark.parametrize(
    ("offset", "size", "expected"),
    [(2, 3, b"234"), (7, None, b"789"), (7, 100, b"789"), (4, 0, b"")],
    ids=["half-open", "to the end", "beyond the end", "no bytes"],
)
@pytest.mark.every_run_on("swift", only="half-open")
def test_a_range_gives_the_bytes_that_there_are(
    store: Store, prefix: str, offset: int, size: int | None, expected: bytes
) -> None:
    store.put(prefix + "a", b"0123456789")
    with store.get(prefix + "a", offset, size) as reader:
        assert reader.read() == expected


@pytest.mark.parametrize(
    ("data", "offset", "size"), [(b"0123456789", 10, None), (b"0123456789", 11, None), (b"", 0, 5)]
)
def test_an_offset_at_or_past_the_end_is_refused_at_the_call(
    store: Store, prefix: str, data: bytes, offset: int, size: int | None
) -> None:
    store.put(prefix + "a", data)
    with pytest.raises(RangeNotSatisfiableError):
        store.get(prefix + "a", offset, size)


def test_a_reader_gives_no_more_than_asked_and_nothing_at_the_end(store: Store, prefix: str) -> None:
    store.put(prefix + "a", b"0123456789")
    with store.get(prefix + "a") as reader:
        assert [reader.read(4), reader.read(0), reader.read(4), reader.read(4), reader.read(4), reader.read()] == [
            b"0123", b"", b"4567", b"89", b"", b"",
        ]  # fmt: skip


def test_a_reader_may_be_left_before_the_end(store: Store, prefix: str) -> None:
    store.put(prefix + "a", FIRST)
    with store.get(prefix + "a") as reader:
        assert reader.read(3) == FIRST[:3]
    assert content(store, prefix + "a") == FIRST


CALLS_ON_A_KEY: dict[str, Callable[[Store, str], object]] = {
    "get": lambda store, key: store.get(key),
    "get nothing": lambda store, key: store.get(key, 0, 0),
    "head": lambda store, key: store.head(key),
    "options_of": lambda store, key: store.options_of(key),
    "copy": lambda store, key: store.copy(key, key + "b"),
}


@pytest.mark.parametrize("call", CALLS_ON_A_KEY.values(), ids=CALLS_ON_A_KEY)
@pytest.mark.every_run_on("swift", only="head")
def test_a_missing_key_is_key_not_found_at_the_call(
    store: Store, prefix: str, call: Callable[[Store, str], object]
) -> None:
    with pytest.raises(KeyNotFoundError):
        call(store, prefix + "nothing")


def test_a_prefix_of_keys_is_no_key(store: Store, prefix: str) -> None:
    store.put(prefix + "a/b", b"")
    assert not exists(store, prefix + "a")


def test_a_get_may_be_pinned_to_an_etag(store: Store, prefix: str) -> None:
    store.put(prefix + "a", b"one")
    etag = store.head(prefix + "a").etag
    with store.get(prefix + "a", 1, if_match=etag) as reader:
        assert reader.read() == b"ne"


@pytest.mark.every_run_on("swift")
def test_a_reader_tells_the_etag_that_head_shows(store: Store, prefix: str) -> None:
    store.put(prefix + "a", b"one")
    upload_id, parts = upload_two_parts(store, prefix + "b")
    store.complete_upload(prefix + "b", upload_id, parts)
    for name, size in (("a", None), ("a", 0), ("b", 2)):
        etag = store.head(prefix + name).etag
        with store.get(prefix + name, 0, size) as reader:
            assert reader.etag == etag
        with store.get(prefix + name, 1, size, if_match=etag) as reader:  # which pins a later connection
            assert reader.etag == etag


def test_a_listing_tells_the_stores_clock(store: Store, prefix: str) -> None:
    before = store.list_page(prefix).served_at
    store.put(prefix + "a", b"one")
    page = store.list_page(prefix)
    assert before <= page.served_at
    assert abs(page.served_at - page.entries[0].mod_time) <= timedelta(seconds=2)


@pytest.mark.parametrize("size", [None, 2, 0])
def test_a_get_pinned_to_an_etag_of_the_past_is_refused(store: Store, prefix: str, size: int | None) -> None:
    store.put(prefix + "a", b"one")
    etag = store.head(prefix + "a").etag
    store.put(prefix + "a", b"two")
    with pytest.raises(PreconditionFailedError):
        store.get(prefix + "a", 0, size, if_match=etag)


def test_head_tells_size_and_time_in_utc(store: Store, prefix: str) -> None:
    before = datetime.now(UTC)
    store.put(prefix + "a", b"hello")
    head = store.head(prefix + "a")
    assert head.key == prefix + "a"
    assert head.size == 5
    assert head.mod_time.utcoffset() == timedelta(0)
    assert abs(head.mod_time - before) < timedelta(seconds=30)


def test_the_time_of_a_blob_does_not_go_back(store: Store, prefix: str) -> None:
    store.put(prefix + "a", b"one")
    first = store.head(prefix + "a").mod_time
    store.put(prefix + "a", b"two")
    assert store.head(prefix + "a").mod_time >= first


def test_one_etag_is_told_by_put_head_and_listing_quotes_included(store: Store, prefix: str) -> None:
    receipt = store.put(prefix + "a", b"hello")
    (entry,) = store.list_page(prefix).entries
    assert receipt.etag == store.head(prefix + "a").etag == entry.etag == f'"{hashlib.md5(b"hello").hexdigest()}"'


def test_other_bytes_have_another_etag(store: Store, prefix: str) -> None:
    assert store.put(prefix + "a", b"one").etag != store.put(prefix + "a", b"two").etag


@pytest.mark.every_run_on("swift")
def test_content_type_and_metadata_are_kept_and_names_are_lower_case(store: Store, prefix: str) -> None:
    options = BlobOptions(content_type="video/mp4", metadata={"Blobferry-Job": "17", "other": "x y"})
    store.put(prefix + "a", b"hello", options=options)
    head = store.head(prefix + "a")
    assert head.content_type == "video/mp4"
    assert head.metadata == {"blobferry-job": "17", "other": "x y"}


def test_a_put_drops_the_metadata_of_the_blob_that_it_replaces(store: Store, prefix: str) -> None:
    store.put(prefix + "a", b"hello", options=BlobOptions(metadata={"a": "1"}))
    store.put(prefix + "a", b"hello")
    assert store.head(prefix + "a").metadata == {}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_put_with_its_checksum_is_taken(store: Store, prefix: str, algorithm: str) -> None:
    store.put(prefix + "a", b"hello", checksum=checksum(algorithm, b"hello"))
    assert content(store, prefix + "a") == b"hello"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.every_run_on("swift")
def test_a_put_with_the_checksum_of_other_bytes_stores_nothing(
    store: Store, prefix: str, algorithm: str, deviates: Deviates
) -> None:
    wrong = checksum(algorithm, b"other")
    if deviates("checksums are compared"):
        store.put(prefix + "a", b"hello", checksum=wrong)
        return
    with pytest.raises(ChecksumMismatchError):
        store.put(prefix + "a", b"hello", checksum=wrong)
    assert not exists(store, prefix + "a")


def test_an_unknown_checksum_algorithm_is_refused(store: Store, prefix: str) -> None:
    with pytest.raises(InvalidStoreRequestError):
        store.put(prefix + "a", b"hello", checksum="ADLER32:AAAAAA==")


def test_a_key_of_1025_bytes_is_refused(store: Store, prefix: str, deviates: Deviates) -> None:
    key = prefix.ljust(1_025, "k")
    if deviates("long keys are refused"):
        store.put(key, b"")
        return
    with pytest.raises(InvalidStoreRequestError):
        store.put(key, b"")


def test_a_key_of_1024_bytes_is_taken(store: Store, prefix: str, deviates: Deviates) -> None:
    key = prefix.ljust(400 if deviates("long keys are stored") else 1_024, "k")
    store.put(key, b"hello")
    assert content(store, key) == b"hello"


def test_an_empty_key_is_refused(store: Store) -> None:
    with pytest.raises(InvalidStoreRequestError):
        store.put("", b"")


def test_many_threads_may_share_a_store(store: Store, prefix: str) -> None:
    def put_and_get(number: int) -> bool:
        data = os.urandom(10_000)
        store.put(f"{prefix}{number}", data)
        return content(store, f"{prefix}{number}") == data

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(put_and_get, range(32)))
    assert len(keys(store, prefix)) == 32


# --- conditions ------------------------------------------------------------------------------------------------------


def test_if_none_match_publishes_where_nothing_is(store: Store, prefix: str) -> None:
    store.put(prefix + "a", b"one", condition=Condition(if_none_match=True))
    assert content(store, prefix + "a") == b"one"


@pytest.mark.every_run_on("swift")
def test_if_none_match_leaves_alone_what_is_there(store: Store, prefix: str) -> None:
    store.put(prefix + "a", b"one")
    with pytest.raises(PreconditionFailedError):
        store.put(prefix + "a", b"two", condition=Condition(if_none_match=True))
    assert content(store, prefix + "a") == b"one"


@pytest.mark.every_run_on("swift")
def test_if_match_replaces_the_blob_that_it_names(store: Store, prefix: str, deviates: Deviates) -> None:
    store.put(prefix + "a", b"one")
    condition = Condition(if_match=store.head(prefix + "a").etag)
    if deviates("If-Match on writes"):
        with pytest.raises(NotSupportedError):
            store.put(prefix + "a", b"two", condition=condition)
        assert content(store, prefix + "a") == b"one"
        return

    store.put(prefix + "a", b"two", condition=condition)
    assert content(store, prefix + "a") == b"two"


@pytest.mark.parametrize("there", [b"one", None])
def test_if_match_changes_nothing_where_another_blob_or_none_is(
    store: Store, prefix: str, deviates: Deviates, there: bytes | None
) -> None:
    if there is not None:
        store.put(prefix + "a", there)
    with pytest.raises(NotSupportedError if deviates("If-Match on writes") else PreconditionFailedError):
        store.put(prefix + "a", b"two", condition=Condition(if_match='"0123"'))
    assert blob(store, prefix + "a") == there


# --- what a blob carries ---------------------------------------------------------------------------------------------


@pytest.mark.every_run_on("swift")
def test_options_of_a_blob_tell_what_it_carries(store: Store, prefix: str) -> None:
    headers = {"Cache-Control": "no-store", "Content-Encoding": "gzip", "Content-Disposition": "attachment"}
    given = BlobOptions(content_type="text/plain", metadata={"a": "1"}, headers=headers)
    store.put(prefix + "a", b"hello", options=given)
    found = store.options_of(prefix + "a")
    assert found.content_type == "text/plain"
    assert found.metadata == {"a": "1"}
    assert found.headers == headers
    assert found.tags == {}


@pytest.mark.every_run_on("swift")
def test_tags_are_kept(store: Store, prefix: str, deviates: Deviates) -> None:
    options = BlobOptions(tags={"team": "a + b", "sum": "1+1=2/@:._-"})
    if deviates("tags"):
        with pytest.raises(NotSupportedError):
            store.put(prefix + "a", b"hello", options=options)
        return
    store.put(prefix + "a", b"hello", options=options)
    assert store.options_of(prefix + "a").tags == options.tags


# --- URLs ------------------------------------------------------------------------------------------------------------


on_servers = pytest.mark.parametrize("kind", ["moto", "swift"])


def fetch(url: str, method: str = "GET") -> tuple[int, bytes]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, method=method), timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, b""


@on_servers
@pytest.mark.every_run_on("swift")
def test_a_presigned_url_reads_the_blob(store: Store, prefix: str) -> None:
    store.put(prefix + "a b+ü", b"hello")
    assert fetch(store.presign("GET", prefix + "a b+ü", 60)) == (200, b"hello")


@on_servers
@pytest.mark.every_run_on("swift")
def test_a_tampered_url_is_refused(store: Store, prefix: str, deviates: Deviates) -> None:
    for name in ("a", "b"):
        store.put(prefix + name, b"hello")
    url = store.presign("GET", prefix + "a", 60)
    other = url.replace(f"{prefix}a?", f"{prefix}b?")
    assert other != url
    assert fetch(other)[0] == (200 if deviates("signatures are checked") else 403)


@on_servers
def test_a_url_for_head_does_not_read(store: Store, prefix: str, deviates: Deviates) -> None:
    store.put(prefix + "a", b"hello")
    url = store.presign("HEAD", prefix + "a", 60)
    assert fetch(url, "HEAD") == (200, b"")
    assert fetch(url)[0] == (200 if deviates("signatures are checked") else 403)


@pytest.mark.parametrize("kind", ["memory", "local"])
def test_a_store_without_a_server_has_no_urls(store: Store, prefix: str) -> None:
    with pytest.raises(NotSupportedError):
        store.presign("GET", prefix + "a", 60)
