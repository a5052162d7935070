"""Reconciling rows with what the store really holds: nothing is sent twice, and nothing wrong is taken for ours."""

import hashlib
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from blobferry.contract import UploadState
from tests.doubles import BytesSource, FaultyStore
from tests.transfer.bench import KEY, Bench, CountingSource, saved
from worker.errors import SourceChangedError, StoreUnavailableError
from worker.stores.blob_values import PartReceipt
from worker.stores.checksums import checksum_of
from worker.transfer.body import PartBody
from worker.transfer.checkpoint import MemoryCheckpoint, SentPart, VisibleVersion
from worker.transfer.parts import PartThreads
from worker.transfer.plan import PartPlan
from worker.transfer.upload.reconcile import reconcile
from worker.transfer.upload.server_copy import CopiedPrefix, Copying

BLOB = bytes(range(35))
PLAN = PartPlan(35, 10)


def piece(number: int) -> bytes:
    part = PLAN.part(number)
    return BLOB[part.offset : part.offset + part.size]


def etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def checksum(number: int, algorithm: str = "crc64nvme") -> str | None:
    return checksum_of(PartBody(BytesSource(BLOB), PLAN.part(number), memoryview(bytearray(4))), algorithm)


def row(number: int, **changes: object) -> SentPart:
    part = PLAN.part(number)
    values = {"size": part.size, "etag": etag(piece(number)), "checksum": checksum(number)} | changes
    return SentPart(number, part.offset, **values)  # type: ignore[arg-type]


def held(number: int, **changes: object) -> PartReceipt:
    values = {"size": PLAN.part(number).size, "etag": etag(piece(number)), "checksum": checksum(number)} | changes
    return PartReceipt(number, **values)  # type: ignore[arg-type]


def result(
    rows: list[SentPart], listed: list[PartReceipt], *, algorithm: str = "crc64nvme", data: bytes = BLOB
) -> dict[int, SentPart]:
    checkpoint = MemoryCheckpoint()
    checkpoint.opening("key", size=35, part_size=10, base=VisibleVersion())
    checkpoint.opened("id")
    checkpoint.record(rows, bytes_sent=7)
    with closing(PartThreads(1, 4)) as threads:
        how: dict[str, Any] = {"algorithm": algorithm, "threads": threads, "checkpoint": checkpoint}
        parts = reconcile(saved(checkpoint), PLAN, listed, source=BytesSource(data), **how)
    assert saved(checkpoint).parts == parts  # the checkpoint has rows for just these
    assert checkpoint.bytes_sent == 7  # adopting sends nothing
    return parts


def test_rows_that_the_store_agrees_with_are_kept() -> None:
    assert result([row(1), row(4)], [held(1), held(4)]) == {1: row(1), 4: row(4)}


@pytest.mark.parametrize("etag_", [etag(piece(1)).strip('"'), '"kms-1"'], ids=["without quotes", "opaque"])
def test_a_row_is_kept_if_the_store_shows_its_etag_with_or_without_quotes(etag_: str) -> None:
    ours = row(1, etag=f'"{etag_.strip(chr(34))}"')
    assert result([ours], [held(1, etag=etag_)]) == {1: ours}


@pytest.mark.parametrize(
    "listed",
    [[], [held(2)], [held(1, etag='"0123"', checksum=None)], [held(1, size=9)]],
    ids=["nothing", "another part", "another etag", "another size"],
)
def test_a_row_whose_part_the_store_does_not_show_is_dropped(listed: list[PartReceipt]) -> None:
    assert 1 not in result([row(1)], listed)


ADOPTED = {
    "by checksum": (held(2, etag='"opaque"'), "crc64nvme", row(2, etag='"opaque"')),
    "by MD5 where none is echoed": (held(4, checksum=None), "crc64nvme", row(4)),
    "by MD5 where there are none": (held(4, checksum=None), "none", row(4, checksum=None)),
    "by MD5 beside another checksum": (held(1, checksum=checksum(1, "crc32c")), "crc64nvme", row(1)),
}
NOT_OURS = {
    "other bytes": held(1, checksum=checksum(2), etag=etag(piece(2))),
    "other checksum": held(1, checksum=checksum(2)),
    "other md5": held(1, checksum=None, etag=etag(piece(2))),
    "nothing to compare": held(1, checksum=None, etag='"opaque"'),
    "nothing of one algorithm": held(1, checksum=checksum(1, "crc32c"), etag='"opaque"'),
    "other size": held(1, size=9),
    "beyond the plan": PartReceipt(5, 10, etag(piece(1)), checksum(1)),
}


@pytest.mark.parametrize(("receipt", "algorithm", "adopted"), ADOPTED.values(), ids=ADOPTED)
def test_a_part_without_a_row_is_adopted(receipt: PartReceipt, algorithm: str, adopted: SentPart) -> None:
    assert result([], [receipt], algorithm=algorithm) == {adopted.part_number: adopted}


@pytest.mark.parametrize("receipt", NOT_OURS.values(), ids=NOT_OURS)
def test_a_part_that_is_not_surely_ours_is_sent_again(receipt: PartReceipt) -> None:
    assert result([], [receipt]) == {}


def test_a_dropped_row_whose_part_holds_the_right_bytes_after_all_is_adopted() -> None:
    """The row was of an earlier sending of the part; the later one landed, and its row was lost."""
    assert result([row(1, etag='"earlier"')], [held(1)]) == {1: row(1)}


def test_a_source_that_became_shorter_is_noticed_while_adopting() -> None:
    with pytest.raises(SourceChangedError):
        result([], [held(4)], data=BLOB[:31])


def test_a_copied_part_without_a_row_is_copied_again_and_not_read(bench: Bench) -> None:
    """Reading it to compare would cost more than another copy within the store."""
    old = bytes(range(100, 140))
    bench.memory.put(KEY, old)
    head, copying = CopiedPrefix.of(bench.memory.head(KEY), len(old)), Copying(threshold=1, part_size=10, threads=1)
    source = CountingSource(old + bytes(range(20)))
    with pytest.raises(StoreUnavailableError):
        bench.write(source, FaultyStore(bench.memory, "complete_upload", times=99), head=head, copying=copying)
    bench.checkpoint.upload = replace(saved(bench.checkpoint), state=UploadState.OPEN)  # it died before it came to that
    bench.checkpoint.drop([2, 3])  # and before these rows were committed
    source.begun.clear()
    store = bench.record(source, head=head, copying=copying)
    assert [call.args[2] for call in store.named("copy_part", "upload_part")] == [2, 3]
    assert (source.begun, bench.blob) == (set(), source.data)
