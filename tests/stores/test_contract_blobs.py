"""The contract of every store: blobs, conditions, options and URLs. See contract.py for deviations."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from tests.doubles import blob, known
from tests.fetching import fetch
from tests.stores.contract import ALGORITHMS, FIRST, LAST, Deviates, checksum, error_of, keys, md5_etag
from tests.stores.open_upload import OpenUpload
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
from worker.stores.blob_values import BlobHead, BlobOptions, KeyEntry
from worker.stores.store import Store

pytestmark = pytest.mark.every_run_on("local", "moto")
LARGE = os.urandom(300_001)


# --- put, get, head --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [bytes, ReusedBuffer])
@pytest.mark.parametrize("data", [b"hello", b"", LARGE], ids=["small", "empty", "large"])
@pytest.mark.every_run_on("swift", only="large")
def test_a_blob_that_was_put_is_read_back(
    store: Store, key: str, data: bytes, body: type[bytes | ReusedBuffer]
) -> None:
    store.put(key, body(data))
    assert (blob(store, key), store.head(key).size) == (data, len(data))


@pytest.mark.every_run_on("swift")
def test_a_body_may_be_put_again_by_another_call(store: Store, key: str) -> None:
    """It is at its end by then: whoever does not rewind it announces bytes that never come."""
    body = ReusedBuffer(b"x" * 100_000)
    for name in (key, f"{key}b"):
        store.put(name, body)
        assert blob(store, name) == b"x" * 100_000


def test_a_put_replaces_the_whole_blob_and_its_metadata(store: Store, key: str) -> None:
    store.put(key, b"a long blob", options=BlobOptions(metadata={"a": "1"}))
    store.put(key, b"short")
    assert (blob(store, key), store.head(key).metadata) == (b"short", {})


@pytest.mark.every_run_on("swift")
def test_an_error_of_the_body_comes_out_as_it_was_raised(store: Store, key: str) -> None:
    class Broken(ReusedBuffer):
        def read(self, size: int = -1, /) -> memoryview:
            if self.tell() >= 128 * 1024:
                raise SourceUnavailableError("the source went away")
            return super().read(size)

    with pytest.raises(SourceUnavailableError, match="the source went away"):
        store.put(key, Broken(bytes(300_000)))
    assert blob(store, key) is None


@pytest.mark.parametrize(
    ("offset", "size", "expected"),
    [(2, 3, b"234"), (7, None, b"789"), (7, 100, b"789"), (4, 0, b"")],
    ids=["half-open", "to the end", "beyond the end", "no bytes"],
)
@pytest.mark.every_run_on("swift", only="half-open")
def test_a_range_gives_the_bytes_that_there_are(
    store: Store, key: str, offset: int, size: int | None, expected: bytes
) -> None:
    store.put(key, b"0123456789")
    with store.get(key, offset, size) as reader:
        assert reader.read() == expected


@pytest.mark.parametrize(("data", "offset", "size"), [(b"01234", 5, None), (b"01234", 6, None), (b"", 0, 5)])
def test_an_offset_at_or_past_the_end_is_refused_at_the_call(
    store: Store, key: str, data: bytes, offset: int, size: int | None
) -> None:
    store.put(key, data)
    assert error_of(store.get, key, offset, size) is RangeNotSatisfiableError


def test_a_reader_gives_no_more_than_asked_and_nothing_at_the_end(store: Store, key: str) -> None:
    store.put(key, b"0123456789")
    with store.get(key) as reader:
        assert [reader.read(4), reader.read(0), reader.read(4), reader.read(4), reader.read(4), reader.read()] == [
            b"0123", b"", b"4567", b"89", b"", b"",
        ]  # fmt: skip


def test_a_reader_may_be_left_before_the_end(store: Store, key: str) -> None:
    store.put(key, FIRST)
    with store.get(key) as reader:
        assert reader.read(3) == FIRST[:3]
    assert blob(store, key) == FIRST


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
    store: Store, key: str, call: Callable[[Store, str], object]
) -> None:
    assert error_of(call, store, key) is KeyNotFoundError


def test_a_prefix_of_keys_is_no_key(store: Store, key: str) -> None:
    store.put(f"{key}/b", b"")
    assert error_of(store.head, key) is KeyNotFoundError


@pytest.mark.parametrize("made", ["put", "uploaded"])
@pytest.mark.parametrize("size", [None, 2, 0])
@pytest.mark.every_run_on("swift")
def test_a_reader_tells_the_etag_that_head_shows_and_to_which_it_may_be_pinned(
    store: Store, key: str, made: str, size: int | None
) -> None:
    if made == "put":
        store.put(key, LAST)
    else:
        OpenUpload(store, key, LAST).complete()
    etag = store.head(key).etag
    with store.get(key, 0, size) as reader:
        assert reader.etag == etag
    with store.get(key, 1, size, if_match=etag) as reader:  # which pins a later connection
        assert (reader.etag, reader.read()) == (etag, LAST[1:][:size])


def test_a_listing_tells_the_stores_clock(store: Store, prefix: str) -> None:
    before = store.list_page(prefix).served_at
    store.put(prefix + "a", b"one")
    page = store.list_page(prefix)
    assert before <= page.served_at
    assert abs(page.served_at - known(page.entries[0].mod_time)) <= timedelta(seconds=2)


@pytest.mark.parametrize("size", [None, 2, 0])
def test_a_get_pinned_to_an_etag_of_the_past_is_refused(store: Store, key: str, size: int | None) -> None:
    store.put(key, b"one")
    store.put(key, b"two")
    assert error_of(store.get, key, 0, size, if_match=md5_etag(b"one")) is PreconditionFailedError


def test_head_and_a_listing_tell_size_and_time_in_utc(store: Store, prefix: str, key: str) -> None:
    before = datetime.now(UTC)
    store.put(key, b"hello")
    both: list[BlobHead | KeyEntry] = [store.head(key), *store.list_page(prefix).entries]
    for told in both:
        assert (told.key, told.size, known(told.mod_time).utcoffset()) == (key, 5, timedelta(0))
        assert abs(known(told.mod_time) - before) < timedelta(seconds=30)


def test_the_time_of_a_blob_does_not_go_back(store: Store, key: str) -> None:
    store.put(key, b"one")
    first = known(store.head(key).mod_time)
    store.put(key, b"two")
    assert known(store.head(key).mod_time) >= first


@pytest.mark.parametrize("data", [b"hello", b"other"])
def test_one_etag_is_told_by_put_head_and_listing_quotes_included(
    store: Store, prefix: str, key: str, data: bytes
) -> None:
    receipt = store.put(key, data)
    (entry,) = store.list_page(prefix).entries
    assert receipt.etag == store.head(key).etag == entry.etag == md5_etag(data)


@pytest.mark.every_run_on("swift")
def test_a_blob_tells_what_it_carries_with_names_in_lower_case(store: Store, key: str) -> None:
    headers = {"Cache-Control": "no-store", "Content-Encoding": "gzip", "Content-Disposition": "attachment"}
    metadata = {"Blobferry-Job": "17", "other": "x y"}
    store.put(key, b"hello", options=BlobOptions(content_type="video/mp4", metadata=metadata, headers=headers))
    head, found = store.head(key), store.options_of(key)
    assert (head.content_type, head.metadata) == ("video/mp4", {"blobferry-job": "17", "other": "x y"})
    assert (found.content_type, found.metadata) == (head.content_type, head.metadata)
    assert (found.headers, found.tags) == (headers, {})


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.every_run_on("swift")
def test_a_put_is_taken_with_its_own_checksum_only(store: Store, key: str, algorithm: str, deviates: Deviates) -> None:
    expected = None if deviates("checksums are compared") else ChecksumMismatchError
    assert error_of(store.put, key, b"hello", checksum=checksum(algorithm, b"other")) is expected
    assert blob(store, key) == (None if expected else b"hello")
    store.put(key, b"own", checksum=checksum(algorithm, b"own"))
    assert blob(store, key) == b"own"


def test_an_unknown_checksum_algorithm_is_refused(store: Store, key: str) -> None:
    assert error_of(store.put, key, b"hello", checksum="ADLER32:AAAAAA==") is InvalidStoreRequestError


def test_a_key_has_1_to_1024_bytes(store: Store, prefix: str, deviates: Deviates) -> None:
    longest = prefix.ljust(400 if deviates("long keys are stored") else 1_024, "k")
    store.put(longest, b"hello")
    assert blob(store, longest) == b"hello"
    assert error_of(store.put, "", b"") is InvalidStoreRequestError
    expected = None if deviates("long keys are refused") else InvalidStoreRequestError
    assert error_of(store.put, prefix.ljust(1_025, "k"), b"") is expected


def test_many_threads_may_share_a_store(store: Store, prefix: str) -> None:
    def put_and_get(number: int) -> bool:
        data = os.urandom(10_000)
        store.put(f"{prefix}{number}", data)
        return blob(store, f"{prefix}{number}") == data

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(put_and_get, range(32)))
    assert len(keys(store, prefix)) == 32


# --- what a blob carries ---------------------------------------------------------------------------------------------


@pytest.mark.every_run_on("swift")
def test_tags_are_kept(store: Store, key: str, deviates: Deviates) -> None:
    options = BlobOptions(tags={"team": "a + b", "sum": "1+1=2/@:._-"})
    store.put(key, b"hello", options=options)  # a store without tags is asked without them
    assert store.options_of(key).tags == ({} if deviates("tags") else options.tags)


# --- URLs ------------------------------------------------------------------------------------------------------------


on_servers = pytest.mark.parametrize("kind", ["moto", "swift"])


@on_servers
@pytest.mark.every_run_on("swift")
def test_a_presigned_url_reads_the_blob(store: Store, prefix: str) -> None:
    store.put(prefix + "a b+ü", b"hello")
    assert fetch(store.presign("GET", prefix + "a b+ü", 60))[:2] == (200, b"hello")


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
def test_a_url_for_head_does_not_read(store: Store, key: str, deviates: Deviates) -> None:
    store.put(key, b"hello")
    url = store.presign("HEAD", key, 60)
    assert fetch(url, "HEAD")[:2] == (200, b"")
    assert fetch(url)[0] == (200 if deviates("signatures are checked") else 403)


@pytest.mark.parametrize("kind", ["memory", "local"])
def test_a_store_without_a_server_has_no_urls(store: Store, key: str) -> None:
    assert error_of(store.presign, "GET", key, 60) is NotSupportedError
