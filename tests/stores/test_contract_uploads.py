"""The contract of every store: uploads in parts. See contract.py for deviations."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests.stores.contract import (
    ALGORITHMS,
    FIRST,
    LAST,
    Deviates,
    checksum,
    content,
    exists,
    keys,
    upload_one_part,
    upload_two_parts,
)
from tests.stores.reused_buffer import ReusedBuffer
from worker.errors import (
    ChecksumMismatchError,
    InvalidPartError,
    InvalidStoreRequestError,
    KeyNotFoundError,
    NotSupportedError,
    PreconditionFailedError,
    StoreUnavailableError,
    UploadNotFoundError,
)
from worker.stores.blob_values import BlobOptions, Condition, PartReceipt
from worker.stores.store import Store

pytestmark = pytest.mark.every_run_on("local", "moto")


# --- uploads: parts --------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(("chosen", "expected"), [(slice(1, 2), LAST), (slice(0, 2), FIRST + LAST)], ids=["one", "all"])
def test_an_upload_becomes_the_parts_that_its_completion_names_be_they_sent_or_listed(
    store: Store, prefix: str, chosen: slice, expected: bytes
) -> None:
    upload_id, _ = upload_two_parts(store, prefix + "a")
    store.complete_upload(prefix + "a", upload_id, list(store.list_parts(prefix + "a", upload_id))[chosen])
    assert content(store, prefix + "a") == expected


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


# --- uploads: copied parts -------------------------------------------------------------------------------------------


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


# --- uploads: completion ---------------------------------------------------------------------------------------------


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


WRONG_LISTS: dict[str, Callable[[list[PartReceipt]], list[PartReceipt]]] = {
    "another ETag": lambda parts: [replace(parts[0], etag=f'"{hashlib.md5(b"other").hexdigest()}"')],
    "a part that was never sent": lambda parts: [*parts, PartReceipt(3, 1, parts[0].etag)],
    "a small part before the last": lambda parts: [parts[1], replace(parts[1], part_number=3)],
    "no parts": lambda parts: [],
}


@pytest.mark.parametrize("named", WRONG_LISTS.values(), ids=WRONG_LISTS)
def test_a_wrong_list_of_parts_completes_nothing(
    store: Store, prefix: str, named: Callable[[list[PartReceipt]], list[PartReceipt]]
) -> None:
    upload_id, parts = upload_two_parts(store, prefix + "a")
    store.upload_part(prefix + "a", upload_id, 3, LAST)
    wrong = named(parts)
    with pytest.raises(InvalidPartError if wrong else InvalidStoreRequestError):
        store.complete_upload(prefix + "a", upload_id, wrong)
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


# --- uploads: abort, unknown ids, listing ----------------------------------------------------------------------------


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
