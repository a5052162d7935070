"""Aborting: until no part is left, and only uploads that can be no other program's."""

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.doubles import BytesSource, FaultyStore, HookedStore, When, WrappedStore, known, tiny_store, unfinished
from tests.transfer.bench import BLOB, KEY, PART, Bench, ToldCheckpoint, at, saved
from worker.errors import (
    LeaseLostError,
    NotSupportedError,
    PermissionDeniedError,
    SlowDownError,
    StoreError,
    StoreUnavailableError,
)
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.store import Store
from worker.transfer.checkpoint import VisibleVersion
from worker.transfer.upload.abort import CLOCK_TOLERANCE, abort_upload


class LateParts(WrappedStore):
    """Parts that were in flight land after each of the first aborts."""

    def __init__(self, store: Store, aborts: int) -> None:
        super().__init__(store)
        self.aborts = 0
        self._late = aborts

    def abort_upload(self, key: str, upload_id: str) -> None:
        self.aborts += 1
        if self.aborts > self._late:
            super().abort_upload(key, upload_id)


def test_an_upload_is_aborted_until_the_store_lists_no_part_of_it(memory: MemoryStore) -> None:
    upload_id = memory.create_upload(KEY)
    memory.upload_part(KEY, upload_id, 1, b"late")
    with pytest.raises(StoreUnavailableError, match="still has parts"):  # it stays in the ledger, to be tried again
        abort_upload(LateParts(memory, aborts=99), KEY, upload_id)
    late = LateParts(memory, aborts=2)
    abort_upload(late, KEY, upload_id)
    assert (late.aborts, unfinished(memory)) == (3, [])


# --- uploads whose id was never saved --------------------------------------------------------------------------------


@pytest.fixture
def lost(bench: Bench) -> str:
    """The upload of a run that died between the store's answer to create_upload and its commit."""
    bench.checkpoint.pin_source(95, BytesSource(BLOB).fingerprint)
    bench.checkpoint.opening(KEY, size=95, part_size=PART, base=VisibleVersion())
    return bench.memory.create_upload(KEY)


@pytest.mark.usefixtures("lost")
def test_a_lost_upload_is_found_and_aborted(bench: Bench) -> None:
    bench.write()
    assert (bench.blob, bench.unfinished) == (BLOB, [])


@pytest.mark.usefixtures("lost")
def test_uploads_of_other_programs_are_left_alone(bench: Bench) -> None:
    with_a_part = bench.memory.create_upload(KEY)
    bench.memory.upload_part(KEY, with_a_part, 1, b"theirs")
    at_a_longer_key = bench.memory.create_upload(KEY + ".bak")
    bench.write()
    assert set(bench.unfinished) == {with_a_part, at_a_longer_key}


@pytest.mark.parametrize("direction", [-1, 1])
def test_an_upload_that_was_opened_at_another_time_is_not_ours(direction: int, bench: Bench, lost: str) -> None:
    (entry,) = bench.memory.list_uploads()
    shift = direction * (CLOCK_TOLERANCE + timedelta(minutes=1))
    elsewhere = tiny_store(now=lambda: known(entry.opened_at) + shift)
    theirs = elsewhere.create_upload(KEY)
    bench.write(store=elsewhere)
    assert unfinished(elsewhere) == [theirs]
    assert lost != theirs


@pytest.mark.usefixtures("lost")
def test_an_upload_that_another_row_knows_is_left_alone(bench: Bench) -> None:
    known = bench.memory.create_upload(KEY)

    bench.checkpoint.abandoned.append(replace(saved(bench.checkpoint), upload_id=known))
    bench.write()
    assert bench.unfinished == [known]


@pytest.mark.usefixtures("lost")
@pytest.mark.parametrize("error", [NotSupportedError, PermissionDeniedError])
def test_a_store_that_cannot_list_uploads_does_not_keep_a_job_from_going_on(
    error: type[Exception], bench: Bench
) -> None:
    """Nothing may depend on list_uploads for correctness; it needs a permission of its own, too."""
    bench.write(store=FaultyStore(bench.memory, "list_uploads", times=100, error=lambda: error("no listing")))
    assert bench.blob == BLOB


def test_a_lost_upload_that_somebody_else_aborts_at_the_same_moment_is_no_error(bench: Bench, lost: str) -> None:
    abort_first = at("abort_upload", lambda: bench.memory.abort_upload(KEY, lost))
    bench.write(store=HookedStore(bench.memory, before=abort_first))
    assert bench.blob == BLOB


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_upload_that_could_not_be_opened_at_once_leaves_no_other_behind(when: When, bench: Bench) -> None:
    store = FaultyStore(bench.memory, "create_upload", when=when)
    bench.write(store=store)
    assert (store.fired, bench.blob, bench.unfinished) == (1, BLOB, [])


def test_a_run_that_lost_its_lease_while_it_opened_an_upload_aborts_it(bench: Bench) -> None:
    def lose() -> None:
        raise LeaseLostError("another run owns the job by the time the store has answered")

    with pytest.raises(LeaseLostError):
        bench.write(checkpoint=ToldCheckpoint(bench.checkpoint, at("opened", lose)))
    assert bench.unfinished == []


# --- plain driver calls, without a ledger ----------------------------------------------------------------------------


def test_a_plain_write_aborts_an_upload_whose_create_lost_its_answer(bench: Bench) -> None:
    with pytest.raises(StoreUnavailableError):
        bench.call(FaultyStore(bench.memory, "create_upload", times=99, when="after"))
    assert bench.unfinished == []


@pytest.mark.parametrize("error", [PermissionDeniedError, SlowDownError])
def test_a_create_that_was_refused_aborts_no_other_upload(error: type[StoreError], bench: Bench) -> None:
    theirs = bench.memory.create_upload(KEY)  # just opened, its first part is on its way
    with pytest.raises(error):
        bench.call(FaultyStore(bench.memory, "create_upload", times=99, error=lambda: error("no")))
    assert bench.unfinished == [theirs]


def test_of_two_uploads_that_may_be_the_lost_one_none_is_aborted(bench: Bench) -> None:
    theirs = bench.memory.create_upload(KEY)
    bench.call(FaultyStore(bench.memory, "create_upload", when="after"))
    assert theirs in bench.unfinished
    assert bench.blob == BLOB


@pytest.mark.parametrize("verb", ["list_uploads", "list_parts"])
def test_a_failed_search_for_lost_uploads_does_not_hide_why_a_plain_write_failed(verb: str, bench: Bench) -> None:
    lost = FaultyStore(bench.memory, "create_upload", when="after", error=lambda: LookupError("the true error"))
    with pytest.raises(LookupError, match="the true error"):
        bench.call(FaultyStore(lost, verb, times=99, error=lambda: SlowDownError("while cleaning up")))
