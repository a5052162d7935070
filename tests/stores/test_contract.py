"""What every store does. One suite, run on memory, on a directory, and on S3 as moto and OpenStack Swift serve it.

Where a server cannot honour a line of the contract, DEVIATIONS says so by name, and the test asserts what that server
really does instead: a server that learns better makes the test fail.
"""

import base64
import hashlib
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from awscrt import checksums

from tests.stores.reused_buffer import ReusedBuffer
from worker.errors import (
    ChecksumMismatchError,
    InvalidPartError,
    InvalidStoreRequestError,
    KeyNotFoundError,
    NotSupportedError,
    PreconditionFailedError,
    RangeNotSatisfiableError,
    SourceUnavailableError,
    StoreUnavailableError,
    UploadNotFoundError,
)
from worker.stores.blob_values import BlobOptions, Condition, PartReceipt
from worker.stores.store import Store
from worker.units import MIB

pytestmark = pytest.mark.every_run_on("local", "moto")

DEVIATIONS: dict[str, dict[str, str]] = {
    "memory": {
        "URLs": "there is no server that a URL could name",
    },
    "local": {
        "URLs": "there is no server that a URL could name",
    },
    "moto": {
        "checksums are compared": "stores what it is sent, whatever Content-MD5 or x-amz-checksum-* say",
        "copies obey conditions": "ignores If-Match, If-None-Match and x-amz-copy-source-if-match on copies",
        "completion obeys If-Match": "ignores it",
        "an upload belongs to its key": "finds an upload by its id alone",
        "unknown uploads are refused": "answers HTTP 500 to a part or a completion of an upload that it lacks",
        "completed uploads are gone": "completes a second time, and says 200",
        "part 0 is refused as such": "answers NoSuchUpload",
        "part order is checked": "answers EntityTooSmall, since the last part in the list is not the last of the blob",
        "a missing part source is told": "answers 404 without a code",
        "ranges of part sources are checked": "copies what there is, and fewer bytes than asked",
        "long keys are refused": "stores them",
        "signatures are checked": "needs none",
    },
    "swift": {
        "If-Match on writes": "answers 501 to If-Match on put, copy and complete",
        "tags": "answers 501",
        "completed uploads are gone": "completes a second time, and says 200",
        "parts are gone after completion": "lists them still",
        "a late part leaves the blob alone": "takes it, and the blob that it belonged to is broken: GET answers 409",
        "checksums of the whole are compared": "ignores them at completion",
        "long keys are stored": "a key's metadata must fit into a file's extended attributes: 4 KiB in all on ext4; "
        "asking for more takes the disk out of service for a minute",
        "ranges of part sources are checked": "copies what there is, and fewer bytes than asked",
    },
}

Deviates = Callable[[str], bool]
"""Whether the server at hand cannot honour a line of the contract."""

FIRST = os.urandom(5 * MIB)  # as small as a part may be that is not the last
LAST = b"the last part may be small"
ODD_NAMES = ("a b", "a+b", "a%20b", "ü", "a&b", "<x>", "a'b", 'a"b', "a=b", "a?b#c", "a;b,c", "~a!b*c(d)")
ALGORITHMS = ("CRC64NVME", "CRC32C", "MD5")


@pytest.fixture
def deviates(kind: str) -> Deviates:
    return lambda behaviour: behaviour in DEVIATIONS[kind]


def checksum(algorithm: str, data: bytes) -> str:
    digests: dict[str, Callable[[], bytes]] = {
        "CRC64NVME": lambda: checksums.crc64nvme(data).to_bytes(8, "big"),
        "CRC32C": lambda: checksums.crc32c(data).to_bytes(4, "big"),
        "MD5": lambda: hashlib.md5(data).digest(),
    }
    digest = digests[algorithm]()
    return f"{algorithm}:{base64.b64encode(digest).decode()}"


def content(store: Store, key: str) -> bytes:
    with store.get(key) as reader:
        return reader.read()


def exists(store: Store, key: str) -> bool:
    try:
        store.head(key)
    except KeyNotFoundError:
        return False
    return True


def keys(store: Store, prefix: str) -> list[str]:
    return [entry.key for entry in store.list_page(prefix).entries]


def upload_one_part(store: Store, key: str) -> tuple[str, PartReceipt]:
    upload_id = store.create_upload(key)
    return upload_id, store.upload_part(key, upload_id, 1, LAST)


def upload_two_parts(store: Store, key: str, *, options: BlobOptions | None = None) -> tuple[str, list[PartReceipt]]:
    upload_id = store.create_upload(key, options=options)
    parts = [store.upload_part(key, upload_id, 1, FIRST), store.upload_part(key, upload_id, 2, LAST)]
    return upload_id, parts


# --- put, get, head ----------------------------------------------------------------------------------------------


@pytest.mark.every_run_on("swift")
def test_a_blob_that_was_put_is_read_back(store: Store, prefix: str) -> None:
    store.put(prefix + "a", b"hello")
    assert content(store, prefix + "a") == b"hello"


def test_an_empty_blob_is_read_back_as_nothing(store: Store, prefix: str) -> None:
    store.put(prefix + "a", b"")
    assert content(store, prefix + "a") == b""
    assert store.head(prefix + "a").size == 0


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


def test_a_body_whose_reads_share_one_buffer_is_stored_whole(store: Store, prefix: str) -> None:
    data = os.urandom(300_001)
    store.put(prefix + "a", ReusedBuffer(data))
    assert content(store, prefix + "a") == data


def test_an_empty_body_is_an_empty_blob(store: Store, prefix: str) -> None:
    store.put(prefix + "a", ReusedBuffer(b""))
    assert store.head(prefix + "a").size == 0


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


@pytest.mark.every_run_on("swift")
def test_a_range_is_half_open(store: Store, prefix: str) -> None:
    store.put(prefix + "a", b"0123456789")
    with store.get(prefix + "a", 2, 3) as reader:
        assert reader.read() == b"234"


def test_a_range_without_a_size_goes_to_the_end(store: Store, prefix: str) -> None:
    store.put(prefix + "a", b"0123456789")
    with store.get(prefix + "a", 7) as reader:
        assert reader.read() == b"789"


def test_a_range_beyond_the_end_gives_what_there_is(store: Store, prefix: str) -> None:
    store.put(prefix + "a", b"0123456789")
    with store.get(prefix + "a", 7, 100) as reader:
        assert reader.read() == b"789"


def test_a_range_of_no_bytes_is_empty(store: Store, prefix: str) -> None:
    store.put(prefix + "a", b"0123456789")
    with store.get(prefix + "a", 4, 0) as reader:
        assert reader.read() == b""


def test_a_range_of_no_bytes_of_a_missing_key_is_key_not_found(store: Store, prefix: str) -> None:
    with pytest.raises(KeyNotFoundError):
        store.get(prefix + "a", 0, 0)


@pytest.mark.parametrize("offset", [10, 11])
def test_an_offset_at_or_past_the_end_is_refused_at_the_call(store: Store, prefix: str, offset: int) -> None:
    store.put(prefix + "a", b"0123456789")
    with pytest.raises(RangeNotSatisfiableError):
        store.get(prefix + "a", offset)


def test_an_empty_blob_has_no_ranges(store: Store, prefix: str) -> None:
    store.put(prefix + "a", b"")
    with pytest.raises(RangeNotSatisfiableError):
        store.get(prefix + "a", 0, 5)


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


def test_get_of_a_missing_key_is_key_not_found_at_the_call(store: Store, prefix: str) -> None:
    with pytest.raises(KeyNotFoundError):
        store.get(prefix + "nothing")


@pytest.mark.every_run_on("swift")
def test_head_of_a_missing_key_is_key_not_found(store: Store, prefix: str) -> None:
    with pytest.raises(KeyNotFoundError):
        store.head(prefix + "nothing")


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


# --- conditions --------------------------------------------------------------------------------------------------


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


def test_if_match_leaves_another_blob_alone(store: Store, prefix: str, deviates: Deviates) -> None:
    store.put(prefix + "a", b"one")
    expected = NotSupportedError if deviates("If-Match on writes") else PreconditionFailedError
    with pytest.raises(expected):
        store.put(prefix + "a", b"two", condition=Condition(if_match='"0123"'))
    assert content(store, prefix + "a") == b"one"


def test_if_match_publishes_nothing_where_nothing_is(store: Store, prefix: str, deviates: Deviates) -> None:
    expected = NotSupportedError if deviates("If-Match on writes") else PreconditionFailedError
    with pytest.raises(expected):
        store.put(prefix + "a", b"two", condition=Condition(if_match='"0123"'))
    assert not exists(store, prefix + "a")


# --- what a blob carries -----------------------------------------------------------------------------------------


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


def test_options_of_a_missing_key_is_key_not_found(store: Store, prefix: str) -> None:
    with pytest.raises(KeyNotFoundError):
        store.options_of(prefix + "nothing")


# --- listings ----------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_pages_join_to_the_whole_listing(store: Store, prefix: str, limit: int) -> None:
    names = [f"{prefix}{number}" for number in range(7)]
    for name in names:
        store.put(name, b"")
    found: list[str] = []
    token = None
    while True:
        page = store.list_page(prefix, token=token, limit=limit)
        assert len(page.entries) <= limit
        found += [entry.key for entry in page.entries]
        token = page.next_token
        if token is None:
            break
    assert found == names


def test_a_common_prefix_counts_once_and_on_one_page(store: Store, prefix: str) -> None:
    for name in ("a/1", "a/2", "a/3", "b", "c/1", "c/2", "d"):
        store.put(prefix + name, b"")
    found: list[str] = []
    token = None
    while True:
        page = store.list_page(prefix, delimiter="/", token=token, limit=1)
        assert len(page.entries) + len(page.prefixes) <= 1
        found += [entry.key for entry in page.entries] + list(page.prefixes)
        token = page.next_token
        if token is None:
            break
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


# --- deletes -----------------------------------------------------------------------------------------------------


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


# --- copies ------------------------------------------------------------------------------------------------------


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


def test_a_copy_of_a_missing_key_is_key_not_found(store: Store, prefix: str) -> None:
    with pytest.raises(KeyNotFoundError):
        store.copy(prefix + "nothing", prefix + "b")


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


def test_a_copy_with_if_none_match_leaves_alone_what_is_there(store: Store, prefix: str, deviates: Deviates) -> None:
    store.put(prefix + "a", b"hello")
    store.put(prefix + "b", b"there")
    if deviates("copies obey conditions"):
        store.copy(prefix + "a", prefix + "b", condition=Condition(if_none_match=True))
        assert content(store, prefix + "b") == b"hello"
        return
    with pytest.raises(PreconditionFailedError):
        store.copy(prefix + "a", prefix + "b", condition=Condition(if_none_match=True))
    assert content(store, prefix + "b") == b"there"


def test_a_copy_with_if_match_leaves_another_blob_alone(store: Store, prefix: str, deviates: Deviates) -> None:
    store.put(prefix + "a", b"hello")
    store.put(prefix + "b", b"there")
    if deviates("copies obey conditions"):
        store.copy(prefix + "a", prefix + "b", condition=Condition(if_match='"0123"'))
        assert content(store, prefix + "b") == b"hello"
        return
    with pytest.raises(NotSupportedError if deviates("If-Match on writes") else PreconditionFailedError):
        store.copy(prefix + "a", prefix + "b", condition=Condition(if_match='"0123"'))
    assert content(store, prefix + "b") == b"there"


# --- uploads: parts ----------------------------------------------------------------------------------------------


@pytest.mark.every_run_on("swift")
def test_parts_become_one_blob_at_completion_and_not_before(store: Store, prefix: str) -> None:
    upload_id, parts = upload_two_parts(store, prefix + "a")
    assert not exists(store, prefix + "a")
    assert keys(store, prefix) == []
    receipt = store.complete_upload(prefix + "a", upload_id, parts, size=len(FIRST + LAST))
    assert content(store, prefix + "a") == FIRST + LAST
    assert receipt.etag == store.head(prefix + "a").etag


def test_the_etag_of_an_upload_is_made_of_its_parts_md5s(store: Store, prefix: str) -> None:
    upload_id, parts = upload_two_parts(store, prefix + "a")
    receipt = store.complete_upload(prefix + "a", upload_id, parts)
    digests = hashlib.md5(FIRST).digest() + hashlib.md5(LAST).digest()
    assert receipt.etag == f'"{hashlib.md5(digests).hexdigest()}-2"'


def test_an_upload_replaces_the_blob_that_was_there(store: Store, prefix: str) -> None:
    store.put(prefix + "a", b"before")
    upload_id, part = upload_one_part(store, prefix + "a")
    assert content(store, prefix + "a") == b"before"
    store.complete_upload(prefix + "a", upload_id, [part])
    assert content(store, prefix + "a") == LAST


@pytest.mark.every_run_on("swift")
def test_a_part_sent_again_replaces_the_first(store: Store, prefix: str) -> None:
    upload_id = store.create_upload(prefix + "a")
    store.upload_part(prefix + "a", upload_id, 1, b"first try")
    again = store.upload_part(prefix + "a", upload_id, 1, b"second")
    assert [(part.part_number, part.size, part.etag) for part in store.list_parts(prefix + "a", upload_id)] == [
        (1, 6, again.etag)
    ]
    store.complete_upload(prefix + "a", upload_id, [again])
    assert content(store, prefix + "a") == b"second"


def test_the_receipt_of_a_replaced_part_no_longer_completes(store: Store, prefix: str) -> None:
    upload_id = store.create_upload(prefix + "a")
    first = store.upload_part(prefix + "a", upload_id, 1, b"first try")
    store.upload_part(prefix + "a", upload_id, 1, b"second")
    with pytest.raises(InvalidPartError):
        store.complete_upload(prefix + "a", upload_id, [first])
    assert not exists(store, prefix + "a")


def test_parts_may_be_sent_in_any_order_and_with_gaps(store: Store, prefix: str) -> None:
    upload_id = store.create_upload(prefix + "a")
    last = store.upload_part(prefix + "a", upload_id, 9, LAST)
    first = store.upload_part(prefix + "a", upload_id, 4, FIRST)
    store.complete_upload(prefix + "a", upload_id, [first, last])
    assert content(store, prefix + "a") == FIRST + LAST


def test_a_part_of_an_upload_may_be_left_out(store: Store, prefix: str) -> None:
    upload_id, parts = upload_two_parts(store, prefix + "a")
    store.complete_upload(prefix + "a", upload_id, parts[1:])
    assert content(store, prefix + "a") == LAST


def test_a_part_whose_reads_share_one_buffer_is_stored_whole(store: Store, prefix: str) -> None:
    upload_id = store.create_upload(prefix + "a")
    part = store.upload_part(prefix + "a", upload_id, 1, ReusedBuffer(FIRST))
    store.complete_upload(prefix + "a", upload_id, [part])
    assert part.size == len(FIRST)
    assert content(store, prefix + "a") == FIRST


def test_parts_are_listed_by_number_as_their_receipts_say(store: Store, prefix: str) -> None:
    upload_id = store.create_upload(prefix + "a")
    sent = [store.upload_part(prefix + "a", upload_id, number, b"x" * number) for number in (3, 1, 2)]
    listed = list(store.list_parts(prefix + "a", upload_id))
    assert [(part.part_number, part.size, part.etag) for part in listed] == [
        (number, number, part.etag) for number, part in ((1, sent[1]), (2, sent[2]), (3, sent[0]))
    ]
    assert sent[1].etag == f'"{hashlib.md5(b"x").hexdigest()}"'


def test_a_listed_part_completes_as_well_as_its_receipt(store: Store, prefix: str) -> None:
    upload_id, _ = upload_two_parts(store, prefix + "a")
    store.complete_upload(prefix + "a", upload_id, list(store.list_parts(prefix + "a", upload_id)))
    assert content(store, prefix + "a") == FIRST + LAST


def test_an_upload_without_parts_lists_none(store: Store, prefix: str) -> None:
    upload_id = store.create_upload(prefix + "a")
    assert list(store.list_parts(prefix + "a", upload_id)) == []


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_part_with_its_checksum_is_taken(store: Store, prefix: str, algorithm: str) -> None:
    upload_id = store.create_upload(prefix + "a")
    part = store.upload_part(prefix + "a", upload_id, 1, LAST, checksum=checksum(algorithm, LAST))
    assert part.checksum in (None, checksum(algorithm, LAST))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_part_with_the_checksum_of_other_bytes_is_refused(
    store: Store, prefix: str, algorithm: str, deviates: Deviates
) -> None:
    upload_id = store.create_upload(prefix + "a")
    wrong = checksum(algorithm, b"other")
    if deviates("checksums are compared"):
        store.upload_part(prefix + "a", upload_id, 1, LAST, checksum=wrong)
        return
    with pytest.raises(ChecksumMismatchError):
        store.upload_part(prefix + "a", upload_id, 1, LAST, checksum=wrong)
    assert list(store.list_parts(prefix + "a", upload_id)) == []


def test_part_number_0_is_refused(store: Store, prefix: str, deviates: Deviates) -> None:
    upload_id = store.create_upload(prefix + "a")
    expected = UploadNotFoundError if deviates("part 0 is refused as such") else InvalidStoreRequestError
    with pytest.raises(expected):
        store.upload_part(prefix + "a", upload_id, 0, b"x")


def test_part_number_10000_is_taken_and_10001_refused(store: Store, prefix: str) -> None:
    upload_id = store.create_upload(prefix + "a")
    store.upload_part(prefix + "a", upload_id, 10_000, b"x")
    with pytest.raises(InvalidStoreRequestError):
        store.upload_part(prefix + "a", upload_id, 10_001, b"x")


def test_two_uploads_to_one_key_do_not_meet(store: Store, prefix: str) -> None:
    first, second = store.create_upload(prefix + "a"), store.create_upload(prefix + "a")
    assert first != second
    part = store.upload_part(prefix + "a", first, 1, b"first")
    store.upload_part(prefix + "a", second, 1, b"second")
    store.complete_upload(prefix + "a", first, [part])
    assert content(store, prefix + "a") == b"first"
    assert [part.size for part in store.list_parts(prefix + "a", second)] == [6]


def test_parts_may_be_sent_by_many_threads(store: Store, prefix: str) -> None:
    upload_id = store.create_upload(prefix + "a")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: store.upload_part(prefix + "a", upload_id, number, b"x" * number), range(1, 13)))
    assert [part.size for part in store.list_parts(prefix + "a", upload_id)] == list(range(1, 13))


# --- uploads: copied parts ---------------------------------------------------------------------------------------


def test_a_part_may_be_copied_out_of_another_key(store: Store, prefix: str) -> None:
    store.put(prefix + "source ü+%", b"<<" + FIRST + b">>")
    upload_id = store.create_upload(prefix + "a")
    first = store.copy_part(prefix + "a", upload_id, 1, prefix + "source ü+%", 2, len(FIRST))
    last = store.upload_part(prefix + "a", upload_id, 2, LAST)
    store.complete_upload(prefix + "a", upload_id, [first, last], size=len(FIRST + LAST))
    assert (first.part_number, first.size, first.etag) == (1, len(FIRST), f'"{hashlib.md5(FIRST).hexdigest()}"')
    assert content(store, prefix + "a") == FIRST + LAST


def test_a_part_of_a_missing_source_is_key_not_found(store: Store, prefix: str, deviates: Deviates) -> None:
    upload_id = store.create_upload(prefix + "a")
    expected = UploadNotFoundError if deviates("a missing part source is told") else KeyNotFoundError
    with pytest.raises(expected):
        store.copy_part(prefix + "a", upload_id, 1, prefix + "nothing", 0, 1)


def test_a_part_of_a_source_that_changed_is_refused(store: Store, prefix: str, deviates: Deviates) -> None:
    store.put(prefix + "source", b"hello")
    upload_id = store.create_upload(prefix + "a")
    if deviates("copies obey conditions"):
        store.copy_part(prefix + "a", upload_id, 1, prefix + "source", 0, 5, source_if_match='"0123"')
        return
    with pytest.raises(PreconditionFailedError):
        store.copy_part(prefix + "a", upload_id, 1, prefix + "source", 0, 5, source_if_match='"0123"')


def test_a_part_of_the_source_that_was_meant_is_copied(store: Store, prefix: str) -> None:
    store.put(prefix + "source", b"hello")
    upload_id = store.create_upload(prefix + "a")
    etag = store.head(prefix + "source").etag
    assert store.copy_part(prefix + "a", upload_id, 1, prefix + "source", 1, 3, source_if_match=etag).size == 3


def test_a_part_beyond_the_end_of_its_source_is_refused(store: Store, prefix: str, deviates: Deviates) -> None:
    store.put(prefix + "source", b"hello")
    upload_id = store.create_upload(prefix + "a")
    if deviates("ranges of part sources are checked"):
        store.copy_part(prefix + "a", upload_id, 1, prefix + "source", 3, 10)
        assert [part.size for part in store.list_parts(prefix + "a", upload_id)] == [2]
        return
    with pytest.raises(InvalidStoreRequestError):
        store.copy_part(prefix + "a", upload_id, 1, prefix + "source", 3, 10)


# --- uploads: completion -----------------------------------------------------------------------------------------


def test_what_was_given_at_creation_is_carried_by_the_blob(store: Store, prefix: str) -> None:
    upload_id = store.create_upload(
        prefix + "a", options=BlobOptions(content_type="video/mp4", metadata={"blobferry-job": "17"})
    )
    part = store.upload_part(prefix + "a", upload_id, 1, LAST)
    store.complete_upload(prefix + "a", upload_id, [part])
    head = store.head(prefix + "a")
    assert (head.content_type, head.metadata) == ("video/mp4", {"blobferry-job": "17"})


@pytest.mark.every_run_on("swift")
def test_parts_out_of_order_complete_nothing(store: Store, prefix: str, deviates: Deviates) -> None:
    upload_id, parts = upload_two_parts(store, prefix + "a")
    with pytest.raises(InvalidPartError, match="EntityTooSmall" if deviates("part order is checked") else "order"):
        store.complete_upload(prefix + "a", upload_id, parts[::-1])
    assert not exists(store, prefix + "a")


def test_a_part_with_another_etag_completes_nothing(store: Store, prefix: str) -> None:
    upload_id, part = upload_one_part(store, prefix + "a")
    with pytest.raises(InvalidPartError):
        store.complete_upload(
            prefix + "a", upload_id, [PartReceipt(1, part.size, f'"{hashlib.md5(b"other").hexdigest()}"')]
        )
    assert not exists(store, prefix + "a")


def test_a_part_that_was_never_sent_completes_nothing(store: Store, prefix: str) -> None:
    upload_id, parts = upload_two_parts(store, prefix + "a")
    with pytest.raises(InvalidPartError):
        store.complete_upload(prefix + "a", upload_id, [*parts, PartReceipt(3, 1, parts[0].etag)])
    assert not exists(store, prefix + "a")


def test_only_the_last_part_may_be_small(store: Store, prefix: str) -> None:
    upload_id = store.create_upload(prefix + "a")
    parts = [store.upload_part(prefix + "a", upload_id, number, b"small") for number in (1, 2)]
    with pytest.raises(InvalidPartError):
        store.complete_upload(prefix + "a", upload_id, parts)
    assert not exists(store, prefix + "a")


def test_no_parts_complete_nothing(store: Store, prefix: str) -> None:
    upload_id = store.create_upload(prefix + "a")
    with pytest.raises(InvalidStoreRequestError):
        store.complete_upload(prefix + "a", upload_id, [])
    assert not exists(store, prefix + "a")


def test_another_size_completes_nothing_and_the_upload_stays_open(store: Store, prefix: str) -> None:
    upload_id, part = upload_one_part(store, prefix + "a")
    with pytest.raises(InvalidStoreRequestError):
        store.complete_upload(prefix + "a", upload_id, [part], size=len(LAST) + 1)
    assert not exists(store, prefix + "a")
    store.complete_upload(prefix + "a", upload_id, [part], size=len(LAST))
    assert content(store, prefix + "a") == LAST


def test_the_checksum_of_the_whole_completes(store: Store, prefix: str) -> None:
    key, whole = prefix + "a", FIRST + LAST
    upload_id = store.create_upload(key)
    parts = [
        store.upload_part(key, upload_id, number, data, checksum=checksum("CRC64NVME", data))
        for number, data in ((1, FIRST), (2, LAST))
    ]
    store.complete_upload(key, upload_id, parts, checksum=checksum("CRC64NVME", whole), size=len(whole))
    assert content(store, key) == whole
    assert store.head(key).checksum in (None, checksum("CRC64NVME", whole))


def test_the_checksum_of_other_bytes_completes_nothing(store: Store, prefix: str, deviates: Deviates) -> None:
    upload_id, part = upload_one_part(store, prefix + "a")
    wrong = checksum("CRC64NVME", b"other")
    if deviates("checksums are compared") or deviates("checksums of the whole are compared"):
        store.complete_upload(prefix + "a", upload_id, [part], checksum=wrong)
        assert content(store, prefix + "a") == LAST
        return
    with pytest.raises(ChecksumMismatchError):
        store.complete_upload(prefix + "a", upload_id, [part], checksum=wrong)
    assert not exists(store, prefix + "a")


@pytest.mark.every_run_on("swift")
def test_completion_with_if_none_match_leaves_alone_what_is_there(store: Store, prefix: str) -> None:
    store.put(prefix + "a", b"there")
    upload_id, part = upload_one_part(store, prefix + "a")
    with pytest.raises(PreconditionFailedError):
        store.complete_upload(prefix + "a", upload_id, [part], condition=Condition(if_none_match=True))
    assert content(store, prefix + "a") == b"there"
    assert [part.part_number for part in store.list_parts(prefix + "a", upload_id)] == [1]


def test_completion_with_if_none_match_publishes_where_nothing_is(store: Store, prefix: str) -> None:
    upload_id, part = upload_one_part(store, prefix + "a")
    store.complete_upload(prefix + "a", upload_id, [part], condition=Condition(if_none_match=True))
    assert content(store, prefix + "a") == LAST


@pytest.mark.parametrize("right", [True, False])
def test_completion_with_if_match_replaces_the_blob_that_it_names_and_no_other(
    store: Store, prefix: str, deviates: Deviates, right: bool
) -> None:
    store.put(prefix + "a", b"there")
    condition = Condition(if_match=store.head(prefix + "a").etag if right else '"0123"')
    upload_id, part = upload_one_part(store, prefix + "a")
    expected = NotSupportedError if deviates("If-Match on writes") else PreconditionFailedError
    if deviates("completion obeys If-Match") or (right and expected is PreconditionFailedError):
        store.complete_upload(prefix + "a", upload_id, [part], condition=condition)
        assert content(store, prefix + "a") == LAST
        return
    with pytest.raises(expected):
        store.complete_upload(prefix + "a", upload_id, [part], condition=condition)
    assert content(store, prefix + "a") == b"there"


@pytest.mark.every_run_on("swift")
def test_a_completed_upload_cannot_be_completed_again(store: Store, prefix: str, deviates: Deviates) -> None:
    upload_id, part = upload_one_part(store, prefix + "a")
    receipt = store.complete_upload(prefix + "a", upload_id, [part])
    if deviates("completed uploads are gone"):
        assert store.complete_upload(prefix + "a", upload_id, [part]).etag == receipt.etag
    else:
        with pytest.raises(UploadNotFoundError):
            store.complete_upload(prefix + "a", upload_id, [part])
    assert content(store, prefix + "a") == LAST


def test_a_completed_upload_has_no_parts_any_more(store: Store, prefix: str, deviates: Deviates) -> None:
    upload_id, part = upload_one_part(store, prefix + "a")
    store.complete_upload(prefix + "a", upload_id, [part])
    if deviates("parts are gone after completion"):
        assert len(list(store.list_parts(prefix + "a", upload_id))) == 1
        return
    with pytest.raises(UploadNotFoundError):
        list(store.list_parts(prefix + "a", upload_id))


@pytest.mark.every_run_on("swift")
def test_a_part_that_comes_after_completion_is_refused_and_leaves_the_blob_alone(
    store: Store, prefix: str, deviates: Deviates
) -> None:
    upload_id, part = upload_one_part(store, prefix + "a")
    store.complete_upload(prefix + "a", upload_id, [part])
    if deviates("a late part leaves the blob alone"):
        store.upload_part(prefix + "a", upload_id, 1, b"late")
        with pytest.raises(StoreUnavailableError, match="BrokenMPU"):
            store.get(prefix + "a")
        return
    with pytest.raises(StoreUnavailableError if deviates("unknown uploads are refused") else UploadNotFoundError):
        store.upload_part(prefix + "a", upload_id, 1, b"late")
    assert content(store, prefix + "a") == LAST


# --- uploads: abort, unknown ids, listing ------------------------------------------------------------------------


@pytest.mark.every_run_on("swift")
def test_an_aborted_upload_is_gone_and_nothing_became_visible(store: Store, prefix: str) -> None:
    upload_id, _ = upload_two_parts(store, prefix + "a")
    store.abort_upload(prefix + "a", upload_id)
    with pytest.raises(UploadNotFoundError):
        list(store.list_parts(prefix + "a", upload_id))
    assert not exists(store, prefix + "a")


def test_an_upload_cannot_be_aborted_twice(store: Store, prefix: str) -> None:
    upload_id = store.create_upload(prefix + "a")
    store.abort_upload(prefix + "a", upload_id)
    with pytest.raises(UploadNotFoundError):
        store.abort_upload(prefix + "a", upload_id)


def test_aborting_a_completed_upload_leaves_the_blob_alone(store: Store, prefix: str) -> None:
    upload_id, part = upload_one_part(store, prefix + "a")
    store.complete_upload(prefix + "a", upload_id, [part])
    with pytest.raises(UploadNotFoundError):
        store.abort_upload(prefix + "a", upload_id)
    assert content(store, prefix + "a") == LAST


@pytest.mark.parametrize("how", ["unknown", "aborted"])
def test_a_dead_upload_id_is_upload_not_found_to_every_verb(
    store: Store, prefix: str, deviates: Deviates, how: str
) -> None:
    key, upload_id = prefix + "a", "bm8gc3VjaCB1cGxvYWQ"
    if how == "aborted":
        upload_id = store.create_upload(key)
        store.abort_upload(key, upload_id)
    store.put(prefix + "source", b"hello")
    part = PartReceipt(1, len(LAST), f'"{hashlib.md5(LAST).hexdigest()}"')
    refused = StoreUnavailableError if deviates("unknown uploads are refused") else UploadNotFoundError
    with pytest.raises(UploadNotFoundError):
        list(store.list_parts(key, upload_id))
    with pytest.raises(UploadNotFoundError):
        store.abort_upload(key, upload_id)
    with pytest.raises(refused):
        store.upload_part(key, upload_id, 1, LAST)
    with pytest.raises(refused):
        store.copy_part(key, upload_id, 1, prefix + "source", 0, 5)
    with pytest.raises(refused):
        store.complete_upload(key, upload_id, [part])


def test_an_upload_belongs_to_its_key(store: Store, prefix: str, deviates: Deviates) -> None:
    upload_id = store.create_upload(prefix + "a")
    if deviates("an upload belongs to its key"):
        assert list(store.list_parts(prefix + "b", upload_id)) == []
        return
    with pytest.raises(UploadNotFoundError):
        list(store.list_parts(prefix + "b", upload_id))
    with pytest.raises(UploadNotFoundError):
        store.upload_part(prefix + "b", upload_id, 1, LAST)
    with pytest.raises(UploadNotFoundError):
        store.abort_upload(prefix + "b", upload_id)


@pytest.mark.every_run_on("swift")
def test_unfinished_uploads_are_listed_by_prefix(store: Store, prefix: str) -> None:
    open_id = store.create_upload(prefix + "a/open")
    aborted_id = store.create_upload(prefix + "a/aborted")
    completed_id = store.create_upload(prefix + "a/completed")
    store.create_upload(prefix + "b")
    store.abort_upload(prefix + "a/aborted", aborted_id)
    part = store.upload_part(prefix + "a/completed", completed_id, 1, LAST)
    store.complete_upload(prefix + "a/completed", completed_id, [part])
    listed = list(store.list_uploads(prefix + "a/"))
    assert [(entry.key, entry.upload_id) for entry in listed] == [(prefix + "a/open", open_id)]
    assert listed[0].opened_at.utcoffset() is not None


# --- URLs --------------------------------------------------------------------------------------------------------


def fetch(url: str, method: str = "GET") -> tuple[int, bytes]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, method=method), timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, b""


@pytest.mark.every_run_on("swift")
def test_a_presigned_url_reads_the_blob(store: Store, prefix: str, deviates: Deviates) -> None:
    store.put(prefix + "a b+ü", b"hello")
    if deviates("URLs"):
        with pytest.raises(NotSupportedError):
            store.presign("GET", prefix + "a b+ü", 60)
        return
    assert fetch(store.presign("GET", prefix + "a b+ü", 60)) == (200, b"hello")


@pytest.mark.every_run_on("swift")
def test_a_tampered_url_is_refused(store: Store, prefix: str, deviates: Deviates) -> None:
    if deviates("URLs"):
        with pytest.raises(NotSupportedError):
            store.presign("GET", prefix + "a", 60)
        return
    for name in ("a", "b"):
        store.put(prefix + name, b"hello")
    url = store.presign("GET", prefix + "a", 60)
    other = url.replace(f"{prefix}a?", f"{prefix}b?")
    assert other != url
    assert fetch(other)[0] == (200 if deviates("signatures are checked") else 403)


def test_a_url_for_head_does_not_read(store: Store, prefix: str, deviates: Deviates) -> None:
    if deviates("URLs"):
        with pytest.raises(NotSupportedError):
            store.presign("HEAD", prefix + "a", 60)
        return
    store.put(prefix + "a", b"hello")
    url = store.presign("HEAD", prefix + "a", 60)
    assert fetch(url, "HEAD") == (200, b"")
    assert fetch(url)[0] == (200 if deviates("signatures are checked") else 403)


# --- the suite itself --------------------------------------------------------------------------------------------


def test_every_deviation_is_asserted_by_a_test() -> None:
    source = Path(__file__).read_text()
    for behaviours in DEVIATIONS.values():
        for behaviour in behaviours:
            assert f'deviates("{behaviour}")' in source


def test_every_deviation_that_is_asserted_is_listed() -> None:
    asserted = set(re.findall(r'deviates\("([^"{]+)"\)', Path(__file__).read_text()))
    assert asserted == {behaviour for behaviours in DEVIATIONS.values() for behaviour in behaviours}
