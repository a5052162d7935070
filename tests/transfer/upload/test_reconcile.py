"""Reconciling rows with what the store really holds: nothing is sent twice, and nothing wrong is taken for ours."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import pytest

from blobferry.contract import UploadState
from tests.doubles import (
    BytesSource,
    FaultyStore,
    RecordingStore,
    blob,
    tiny_store,
    write,
)
from worker.errors import SourceChangedError, StoreUnavailableError
from worker.stores.blob_values import PartReceipt
from worker.stores.checksums import checksum_of
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.store import Store
from worker.transfer.body import PartBody
from worker.transfer.checkpoint import MemoryCheckpoint, SentPart, VisibleVersion
from worker.transfer.parts import PartThreads
from worker.transfer.plan import PartPlan
from worker.transfer.upload.engine import Engine
from worker.transfer.upload.reconcile import reconcile
from worker.transfer.upload.server_copy import CopiedPrefix, Copying

BLOB = bytes(range(35))
PLAN = PartPlan(35, 10)


@pytest.fixture
def threads() -> Iterator[PartThreads]:
    threads = PartThreads(1, 4)
    yield threads
    threads.close()


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
    threads: PartThreads, rows: list[SentPart], listed: list[PartReceipt], *, algorithm: str = "crc64nvme"
) -> tuple[dict[int, SentPart], MemoryCheckpoint]:
    checkpoint = MemoryCheckpoint()
    checkpoint.opening("key", size=35, part_size=10, base=VisibleVersion())
    checkpoint.opened("id")
    checkpoint.record(rows, bytes_sent=7)
    upload = checkpoint.load()
    assert upload is not None
    parts = reconcile(
        upload, PLAN, listed, source=BytesSource(BLOB), algorithm=algorithm, threads=threads, checkpoint=checkpoint
    )
    now = checkpoint.load()
    assert now is not None
    assert now.parts == parts  # the checkpoint says the same
    assert checkpoint.bytes_sent == 7  # adopting sends nothing
    return parts, checkpoint


def test_rows_that_the_store_agrees_with_are_kept(threads: PartThreads) -> None:
    parts, _ = result(threads, [row(1), row(4)], [held(1), held(4)])
    assert parts == {1: row(1), 4: row(4)}


def test_quotes_around_an_etag_make_no_difference(threads: PartThreads) -> None:
    parts, _ = result(threads, [row(1)], [held(1, etag=etag(piece(1)).strip('"'))])
    assert set(parts) == {1}


@pytest.mark.parametrize(
    "listed",
    [
        [],
        [held(2)],
        [held(1, etag='"0123"', checksum=None)],
        [held(1, size=9)],
    ],
    ids=["nothing", "another part", "another etag", "another size"],
)
def test_a_row_whose_part_the_store_does_not_show_is_dropped(threads: PartThreads, listed: list[PartReceipt]) -> None:
    parts, _ = result(threads, [row(1)], listed)
    assert 1 not in parts


def test_a_row_with_an_opaque_etag_is_kept_if_the_store_shows_the_same(threads: PartThreads) -> None:
    parts, _ = result(threads, [row(1, etag='"kms-1"')], [held(1, etag='"kms-1"')])
    assert set(parts) == {1}


def test_a_part_without_a_row_is_adopted_by_its_checksum(threads: PartThreads) -> None:
    parts, _ = result(threads, [], [held(2, etag='"opaque"')])
    assert parts == {2: row(2, etag='"opaque"')}


def test_a_part_without_a_row_is_adopted_by_its_md5_etag_where_the_store_echoes_no_checksum(
    threads: PartThreads,
) -> None:
    parts, _ = result(threads, [], [held(4, checksum=None)])
    assert parts == {4: row(4)}


def test_a_part_without_a_row_is_adopted_by_its_etag_where_there_are_no_checksums(threads: PartThreads) -> None:
    parts, _ = result(threads, [], [held(4, checksum=None)], algorithm="none")
    assert parts == {4: row(4, checksum=None)}


def test_a_checksum_of_another_algorithm_says_nothing_and_the_etag_decides(threads: PartThreads) -> None:
    ours, _ = result(threads, [], [held(1, checksum=checksum(1, "crc32c"))])
    theirs, _ = result(threads, [], [held(1, checksum=checksum(1, "crc32c"), etag='"opaque"')])
    assert set(ours) == {1}
    assert theirs == {}


@pytest.mark.parametrize(
    "receipt",
    [
        held(1, checksum=checksum(2), etag=etag(piece(2))),
        held(1, checksum=checksum(2)),
        held(1, checksum=None, etag=etag(piece(2))),
        held(1, checksum=None, etag='"opaque"'),
        held(1, size=9),
        PartReceipt(5, 10, etag(piece(1)), checksum(1)),
    ],
    ids=["other bytes", "other checksum", "other md5", "nothing to compare", "other size", "beyond the plan"],
)
def test_a_part_that_is_not_surely_ours_is_sent_again(threads: PartThreads, receipt: PartReceipt) -> None:
    parts, _ = result(threads, [], [receipt])
    assert parts == {}


def test_a_dropped_row_whose_part_holds_the_right_bytes_after_all_is_adopted(threads: PartThreads) -> None:
    """The row was of an earlier sending of the part; the later one landed, and its row was lost."""
    parts, _ = result(threads, [row(1, etag='"earlier"')], [held(1)])
    assert parts == {1: row(1)}


def test_a_source_that_became_shorter_is_noticed_while_adopting(threads: PartThreads) -> None:
    checkpoint = MemoryCheckpoint()
    checkpoint.opening("key", size=35, part_size=10, base=VisibleVersion())
    upload = checkpoint.load()
    assert upload is not None
    with pytest.raises(SourceChangedError):
        reconcile(
            upload,
            PLAN,
            [held(4)],
            source=BytesSource(BLOB[:31]),
            algorithm="crc64nvme",
            threads=threads,
            checkpoint=checkpoint,
        )


A_KEY = "a"


PART = 10


@pytest.fixture
def wide_engine() -> Iterator[Engine]:
    wide_engine = Engine(part_size=PART, part_threads=3)
    yield wide_engine
    wide_engine.close()


@pytest.fixture
def memory() -> MemoryStore:
    return tiny_store()


class Counting(BytesSource):
    """Counts the parts of which something was read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.begun = set[int]()

    def readinto(self, offset: int, buffer: memoryview) -> None:
        self.begun.add(offset // PART)
        super().readinto(offset, buffer)


def test_a_copied_part_without_a_row_is_copied_again_and_not_read(wide_engine: Engine, memory: MemoryStore) -> None:
    """Reading it to compare would cost more than another copy within the store."""
    checkpoint, old = MemoryCheckpoint(), bytes(range(100, 140))
    memory.put(A_KEY, old)
    head, copying = CopiedPrefix.of(memory.head(A_KEY), len(old)), Copying(threshold=1, part_size=PART, threads=1)
    wished = old + bytes(range(20))

    def run(store: Store) -> None:
        write(wide_engine, store, A_KEY, BytesSource(wished), checkpoint=checkpoint, head=head, copying=copying)

    with pytest.raises(StoreUnavailableError):
        run(FaultyStore(memory, "complete_upload", times=99))
    assert checkpoint.upload is not None
    checkpoint.upload = replace(checkpoint.upload, state=UploadState.OPEN)  # its worker died before it came to that
    checkpoint.drop([2, 3])  # and before these rows were committed
    source = Counting(wished)
    store = RecordingStore(memory)
    write(wide_engine, store, A_KEY, source, checkpoint=checkpoint, head=head, copying=copying)
    assert [call.args[2] for call in store.named("copy_part", "upload_part")] == [2, 3]
    assert source.begun == set()
    assert blob(memory, A_KEY) == wished
