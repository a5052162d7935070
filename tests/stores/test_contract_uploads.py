"""The contract of every store: uploads in parts. See contract.py for deviations."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from tests.doubles import blob, known
from tests.stores.contract import ALGORITHMS, FIRST, LAST, Deviates, checksum, error_of, keys, md5_etag
from tests.stores.open_upload import OpenUpload
from tests.stores.reused_buffer import ReusedBuffer
from worker.errors import (
    ChecksumMismatchError,
    InvalidPartError,
    InvalidStoreRequestError,
    KeyNotFoundError,
    PreconditionFailedError,
    StoreError,
    StoreUnavailableError,
    UploadNotFoundError,
)
from worker.stores.blob_values import BlobOptions, Condition, PartReceipt
from worker.stores.store import Store

pytestmark = pytest.mark.every_run_on("local", "moto")


# --- uploads: parts --------------------------------------------------------------------------------------------------


@pytest.mark.every_run_on("swift")
def test_parts_become_one_blob_at_completion_and_not_before(store: Store, prefix: str, key: str) -> None:
    upload = OpenUpload(store, key, FIRST, LAST)
    assert (blob(store, key), keys(store, prefix)) == (None, [])
    receipt = upload.complete(size=len(FIRST + LAST))
    assert blob(store, key) == FIRST + LAST
    assert receipt.etag == store.head(key).etag


def test_the_etag_of_an_upload_is_made_of_its_parts_md5s(store: Store, key: str) -> None:
    receipt = OpenUpload(store, key, FIRST, LAST).complete()
    digests = hashlib.md5(FIRST).digest() + hashlib.md5(LAST).digest()
    assert receipt.etag == f'"{hashlib.md5(digests).hexdigest()}-2"'


def test_an_upload_replaces_the_blob_that_was_there(store: Store, key: str) -> None:
    store.put(key, b"before")
    upload = OpenUpload(store, key, LAST)
    assert blob(store, key) == b"before"
    upload.complete()
    assert blob(store, key) == LAST


@pytest.mark.every_run_on("swift")
def test_a_part_sent_again_replaces_the_first_whose_receipt_no_longer_completes(store: Store, key: str) -> None:
    upload = OpenUpload(store, key, b"first try")
    again = upload.send(1, b"second")
    assert [(part.part_number, part.size, part.etag) for part in upload.listed()] == [(1, 6, again.etag)]
    assert error_of(upload.complete) is InvalidPartError
    assert blob(store, key) is None
    upload.complete(again)
    assert blob(store, key) == b"second"


def test_parts_may_be_sent_in_any_order_and_with_gaps(store: Store, key: str) -> None:
    upload = OpenUpload(store, key)
    last, first = upload.send(9, LAST), upload.send(4, FIRST)
    upload.complete(first, last)
    assert blob(store, key) == FIRST + LAST


@pytest.mark.parametrize(("chosen", "expected"), [(slice(1, 2), LAST), (slice(0, 2), FIRST + LAST)], ids=["one", "all"])
def test_an_upload_becomes_the_parts_that_its_completion_names_be_they_sent_or_listed(
    store: Store, key: str, chosen: slice, expected: bytes
) -> None:
    upload = OpenUpload(store, key, FIRST, LAST)
    upload.complete(*upload.listed()[chosen])
    assert blob(store, key) == expected


def test_a_part_whose_reads_share_one_buffer_is_stored_whole(store: Store, key: str) -> None:
    upload = OpenUpload(store, key)
    part = upload.send(1, ReusedBuffer(FIRST))
    upload.complete(part)
    assert (part.size, blob(store, key)) == (len(FIRST), FIRST)


def test_parts_are_listed_by_number_as_their_receipts_say(store: Store, key: str) -> None:
    upload = OpenUpload(store, key)
    assert upload.listed() == []
    sent = {number: upload.send(number, b"x" * number) for number in (3, 1, 2)}
    listed = [(part.part_number, part.size, part.etag) for part in upload.listed()]
    assert listed == [(number, number, sent[number].etag) for number in (1, 2, 3)]
    assert sent[1].etag == md5_etag(b"x")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_part_is_taken_with_its_own_checksum_only(store: Store, key: str, algorithm: str, deviates: Deviates) -> None:
    upload = OpenUpload(store, key)
    expected = None if deviates("checksums are compared") else ChecksumMismatchError
    assert error_of(upload.send, 1, LAST, checksum=checksum(algorithm, b"other")) is expected
    assert len(upload.listed()) == (0 if expected else 1)
    part = upload.send(1, LAST, checksum=checksum(algorithm, LAST))
    assert part.checksum in (None, checksum(algorithm, LAST))


def test_part_numbers_are_1_to_10000(store: Store, key: str, deviates: Deviates) -> None:
    upload = OpenUpload(store, key)
    expected = UploadNotFoundError if deviates("part 0 is refused as such") else InvalidStoreRequestError
    assert error_of(upload.send, 0, b"x") is expected
    upload.send(10_000, b"x")
    assert error_of(upload.send, 10_001, b"x") is InvalidStoreRequestError


def test_two_uploads_to_one_key_do_not_meet(store: Store, key: str) -> None:
    first, second = OpenUpload(store, key, b"first"), OpenUpload(store, key, b"second")
    assert first.id != second.id
    first.complete()
    assert blob(store, key) == b"first"
    assert [part.size for part in second.listed()] == [6]


def test_parts_may_be_sent_by_many_threads(store: Store, key: str) -> None:
    upload = OpenUpload(store, key)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: upload.send(number, b"x" * number), range(1, 13)))
    assert [part.size for part in upload.listed()] == list(range(1, 13))


# --- uploads: copied parts -------------------------------------------------------------------------------------------


def test_a_part_may_be_copied_out_of_another_key(store: Store, prefix: str, key: str) -> None:
    store.put(prefix + "source ü+%", b"<<" + FIRST + b">>")
    upload = OpenUpload(store, key)
    first = upload.copy(1, prefix + "source ü+%", 2, len(FIRST))
    upload.complete(first, upload.send(2, LAST), size=len(FIRST + LAST))
    assert (first.part_number, first.size, first.etag) == (1, len(FIRST), md5_etag(FIRST))
    assert blob(store, key) == FIRST + LAST


def test_a_part_of_a_missing_source_is_key_not_found(store: Store, key: str, deviates: Deviates) -> None:
    expected = UploadNotFoundError if deviates("a missing part source is told") else KeyNotFoundError
    assert error_of(OpenUpload(store, key).copy, 1, f"{key} that is missing", 0, 1) is expected


def test_a_part_beyond_the_end_of_its_source_is_refused(store: Store, key: str, deviates: Deviates) -> None:
    store.put(key, b"hello")
    upload = OpenUpload(store, key)
    expected = None if deviates("ranges of part sources are checked") else InvalidStoreRequestError
    assert error_of(upload.copy, 1, key, 3, 10) is expected
    assert [part.size for part in upload.listed()] == ([] if expected else [2])


# --- uploads: completion ---------------------------------------------------------------------------------------------


def test_what_was_given_at_creation_is_carried_by_the_blob(store: Store, key: str) -> None:
    options = BlobOptions(content_type="video/mp4", metadata={"blobferry-job": "17"})
    OpenUpload(store, key, LAST, options=options).complete()
    head = store.head(key)
    assert (head.content_type, head.metadata) == ("video/mp4", {"blobferry-job": "17"})


@pytest.mark.every_run_on("swift")
def test_parts_out_of_order_complete_nothing(store: Store, key: str, deviates: Deviates) -> None:
    upload = OpenUpload(store, key, FIRST, LAST)
    with pytest.raises(InvalidPartError, match="EntityTooSmall" if deviates("part order is checked") else "order"):
        upload.complete(*upload.parts[::-1])
    assert blob(store, key) is None


WRONG_LISTS: dict[str, Callable[[list[PartReceipt]], list[PartReceipt]]] = {
    "another ETag": lambda parts: [replace(parts[0], etag=md5_etag(b"other"))],
    "a part that was never sent": lambda parts: [*parts, PartReceipt(3, 1, parts[0].etag)],
    "a small part before the last": lambda parts: [parts[1], replace(parts[1], part_number=3)],
    "no parts": lambda parts: [],
}


@pytest.mark.parametrize("named", WRONG_LISTS.values(), ids=WRONG_LISTS)
def test_a_wrong_list_of_parts_completes_nothing(
    store: Store, key: str, named: Callable[[list[PartReceipt]], list[PartReceipt]]
) -> None:
    upload = OpenUpload(store, key, FIRST, LAST)
    upload.send(3, LAST)
    wrong = named(upload.parts)
    expected = InvalidPartError if wrong else InvalidStoreRequestError
    assert error_of(store.complete_upload, key, upload.id, wrong) is expected
    assert blob(store, key) is None


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"size": len(LAST) + 1}, InvalidStoreRequestError),
        ({"condition": Condition(if_none_match=True)}, PreconditionFailedError),
    ],
    ids=["size", "condition"],
)
@pytest.mark.every_run_on("swift", only="condition")
def test_a_refused_completion_changes_nothing_and_the_upload_stays_open(
    store: Store, key: str, wrong: dict[str, Any], error: type[StoreError]
) -> None:
    store.put(key, b"there")
    upload = OpenUpload(store, key, LAST)
    assert error_of(upload.complete, **wrong) is error
    assert blob(store, key) == b"there"
    assert [part.part_number for part in upload.listed()] == [1]
    upload.complete(size=len(LAST))
    assert blob(store, key) == LAST


def test_the_checksum_of_the_whole_completes(store: Store, key: str) -> None:
    upload = OpenUpload(store, key)
    pieces = enumerate((FIRST, LAST), 1)
    parts = [upload.send(number, data, checksum=checksum("CRC64NVME", data)) for number, data in pieces]
    whole = checksum("CRC64NVME", FIRST + LAST)
    upload.complete(*parts, checksum=whole, size=len(FIRST + LAST))
    assert blob(store, key) == FIRST + LAST
    assert store.head(key).checksum in (None, whole)


def test_the_checksum_of_other_bytes_completes_nothing(store: Store, key: str, deviates: Deviates) -> None:
    is_ignored = deviates("checksums are compared") or deviates("checksums of the whole are compared")
    expected = None if is_ignored else ChecksumMismatchError
    wrong = checksum("CRC64NVME", b"other")
    assert error_of(OpenUpload(store, key, LAST).complete, checksum=wrong) is expected
    assert blob(store, key) == (None if expected else LAST)


@pytest.fixture
def completed(store: Store, key: str) -> OpenUpload:
    """An upload that is open no more."""
    upload = OpenUpload(store, key, LAST)
    upload.complete()
    return upload


@pytest.mark.every_run_on("swift")
def test_a_completed_upload_cannot_be_completed_again(
    store: Store, key: str, deviates: Deviates, completed: OpenUpload
) -> None:
    etag = store.head(key).etag
    expected = None if deviates("completed uploads are gone") else UploadNotFoundError
    assert error_of(completed.complete) is expected
    assert (blob(store, key), store.head(key).etag) == (LAST, etag)


def test_a_completed_upload_has_no_parts_any_more(deviates: Deviates, completed: OpenUpload) -> None:
    if deviates("parts are gone after completion"):
        assert len(completed.listed()) == 1
    else:
        assert error_of(completed.listed) is UploadNotFoundError


@pytest.mark.every_run_on("swift")
def test_a_part_that_comes_after_completion_is_refused_and_leaves_the_blob_alone(
    store: Store, key: str, deviates: Deviates, completed: OpenUpload
) -> None:
    if deviates("a late part leaves the blob alone"):
        completed.send(1, b"late")
        with pytest.raises(StoreUnavailableError, match="BrokenMPU"):
            store.get(key)
        return
    expected = StoreUnavailableError if deviates("unknown uploads are refused") else UploadNotFoundError
    assert error_of(completed.send, 1, b"late") is expected
    assert blob(store, key) == LAST


def test_aborting_a_completed_upload_leaves_the_blob_alone(store: Store, key: str, completed: OpenUpload) -> None:
    assert error_of(completed.abort) is UploadNotFoundError
    assert blob(store, key) == LAST


# --- uploads: abort, unknown ids, listing ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["unknown", "aborted"])
@pytest.mark.every_run_on("swift", only="aborted")
def test_a_dead_upload_id_is_upload_not_found_to_every_verb_and_nothing_became_visible(
    store: Store, prefix: str, key: str, deviates: Deviates, how: str
) -> None:
    upload = OpenUpload(store, key, FIRST, LAST)
    if how == "aborted":
        upload.abort()
    else:
        upload.id = "bm8gc3VjaCB1cGxvYWQ"
    store.put(prefix + "source", b"hello")
    refused = StoreUnavailableError if deviates("unknown uploads are refused") else UploadNotFoundError
    assert error_of(upload.listed) is UploadNotFoundError
    assert error_of(upload.abort) is UploadNotFoundError
    assert error_of(upload.send, 1, LAST) is refused
    assert error_of(upload.copy, 1, prefix + "source", 0, 5) is refused
    assert error_of(upload.complete) is refused
    assert blob(store, key) is None


def test_an_upload_belongs_to_its_key(store: Store, key: str, deviates: Deviates) -> None:
    upload = OpenUpload(store, key)
    upload.key = f"{key}b"
    if deviates("an upload belongs to its key"):
        assert upload.listed() == []
        return
    assert error_of(upload.listed) is UploadNotFoundError
    assert error_of(upload.send, 1, LAST) is UploadNotFoundError
    assert error_of(upload.abort) is UploadNotFoundError


@pytest.mark.every_run_on("swift")
def test_unfinished_uploads_are_listed_by_prefix(store: Store, prefix: str) -> None:
    upload = OpenUpload(store, prefix + "a/open")
    OpenUpload(store, prefix + "a/aborted").abort()
    OpenUpload(store, prefix + "a/completed", LAST).complete()
    OpenUpload(store, prefix + "b")
    (listed,) = store.list_uploads(prefix + "a/")
    assert (listed.key, listed.upload_id) == (upload.key, upload.id)
    assert known(listed.opened_at).utcoffset() is not None
