"""Aborting uploads that no job needs any more: only ours, until the store lists no part of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from blobferry.jobs import control
from blobferry.sql.clock import db_now
from models import Database, PathLockRow, queries
from tests.doubles import (
    DeathError,
    FaultyStore,
    HookedStore,
    WrappedStore,
    tiny_store,
    unfinished,
)
from tests.jobs.job_world import KEY, PART, World
from tests.models.rows import (
    add_upload,
    ago,
    change,
    change_upload,
    claim,
    expire_lease,
    job_row,
    lease_of,
    uploads,
)
from worker.driver import Driver
from worker.errors import LeaseLostError, StoreUnavailableError
from worker.jobs.outcome import Finished, NotClaimed, Outcome, Rescheduled
from worker.jobs.runner import run_job
from worker.jobs.sql_checkpoint import SqlCheckpoint
from worker.maintenance.abort_uploads import BATCH, abort_given_up
from worker.maintenance.caretaker import Caretaker
from worker.runtime import Runtime
from worker.stores.store import Store
from worker.transfer.upload.engine import Engine


def due(world: World, job_id: str) -> None:
    """Time passes until the job may run again."""
    change(world.database, job_id, run_at=ago(1))


def sweep(world: World, store: Store | None = None) -> int:
    """One sweep; how many uploads it aborted."""
    with world.worker(store) as runtime:
        return Caretaker(runtime, lambda message: True).sweep().aborted


def died(world: World, job_id: str, store: Store) -> None:
    """A run whose worker dies, and whose lease runs out."""
    with pytest.raises(DeathError):
        world.run(job_id, store)
    expire_lease(world.database, job_id)


@contextmanager
def worker_with(world: World, **stores: tuple[Store, str]) -> Iterator[Runtime]:
    """A worker with these storages, each a store and its root directory."""
    engine = Engine(part_size=PART, part_threads=1)
    drivers = {name: Driver(store, root=root, engine=engine) for name, (store, root) in stores.items()}
    with world.worker() as usual:
        runtime = Runtime(usual.settings, database=world.database, drivers=drivers)
        try:
            yield runtime
        finally:
            runtime.engine.close()
            engine.close()


def run_with(world: World, job_id: str, **stores: tuple[Store, str]) -> Outcome:
    with worker_with(world, **stores) as runtime:
        return run_job(runtime, job_id)


def half_sent(world: World) -> str:
    """A job whose first run had to stop after five parts."""
    job_id = world.submit()
    assert isinstance(world.run(job_id, FaultyStore(world.memory, "upload_part", fail_at=6, times=100)), Rescheduled)
    due(world, job_id)
    return job_id


def test_an_old_owners_upload_that_is_opened_after_the_takeover_is_aborted_by_itself(world: World) -> None:
    job_id = world.submit()
    others: list[Outcome] = []

    def take_over(verb: str) -> None:
        if verb == "create_upload" and not others:
            expire_lease(world.database, job_id)
            others.append(world.run(job_id))

    assert world.run(job_id, HookedStore(world.memory, before=take_over)) == NotClaimed()
    assert isinstance(others[0], Finished)
    assert job_row(world.database, job_id).state == "succeeded"
    assert unfinished(world.memory) == []


def test_an_upload_whose_create_arrives_after_its_row_was_given_up_is_found_later(world: World) -> None:
    job_id = world.submit()
    died(world, job_id, FaultyStore(world.memory, "create_upload", error=DeathError))
    assert isinstance(world.run(job_id), Finished)
    world.memory.create_upload(KEY)  # the dead worker's
    lost, last = uploads(world.database, job_id)
    assert (lost.state, lost.upload_id, last.state) == ("gone", None, "completed")
    assert lost.recheck_at is not None
    assert sweep(world) == 0
    change_upload(world.database, lost.id, recheck_at=ago(1))
    assert sweep(world) == 1
    assert unfinished(world.memory) == []
    assert sweep(world) == 0


def test_a_rescue_leaves_another_storages_fresh_upload_in_the_same_bucket_alone(world: World) -> None:
    lost, other = world.submit(), world.submit(arguments={"storage": "second"})
    died(world, lost, FaultyStore(world.memory, "create_upload", error=DeathError))
    change(world.database, lost, not_before=db_now(3600), attempt=0)  # a job of its time holds the path, this one not
    with world.database.begin() as session:
        session.execute(delete(PathLockRow))
    run_with(world, other, second=(FaultyStore(world.memory, "upload_part", times=99), ""))
    change(world.database, lost, not_before=None, attempt=1)
    with world.database.begin() as session:
        session.execute(update(PathLockRow).values(job_id=lost))
    (fresh,) = uploads(world.database, other)
    assert unfinished(world.memory) == [fresh.upload_id]
    assert isinstance(world.run(lost), Finished)
    assert unfinished(world.memory) == [fresh.upload_id]
    change(world.database, lost, state="cancelled")
    add_upload(world.database, lost, key=KEY, part_size=PART, upload_id=None, state="aborting")
    assert sweep(world) == 1
    assert unfinished(world.memory) == [fresh.upload_id]


def test_a_stale_owner_is_not_told_of_the_uploads(world: World) -> None:
    job_id = world.submit()
    stale = claim(world.database, job_id)
    checkpoint = SqlCheckpoint(lease_of(world.database, stale), world.memory, max_restarts=3)
    assert checkpoint.load() is None
    expire_lease(world.database, job_id)
    claim(world.database, job_id)
    with pytest.raises(LeaseLostError):
        checkpoint.load()


def test_fifty_uploads_that_cannot_be_aborted_do_not_hold_up_the_next(world: World) -> None:
    failed = world.submit(state="failed")
    for number in range(BATCH):
        add_upload(world.database, failed, storage="retired", upload_id=f"u{number}", state="aborting")
    upload_id = world.memory.create_upload(KEY)
    add_upload(world.database, failed, key=KEY, upload_id=upload_id, state="aborting")
    with world.worker() as runtime:
        assert abort_given_up(runtime) + abort_given_up(runtime) == 1
    assert unfinished(world.memory) == []
    assert [upload.state for upload in uploads(world.database, failed)] == ["aborting"] * BATCH + ["gone"]


def moved_store(what: str) -> Store:
    """The storage's store after somebody has changed its bucket or its endpoint."""
    store = WrappedStore(tiny_store(bucket="other" if what == "bucket" else "memory"))
    if what == "endpoint":
        store.endpoint = "http://elsewhere:9000"
    return store


@pytest.mark.parametrize("what", ["bucket", "endpoint"])
def test_an_upload_in_a_bucket_that_the_storage_names_no_longer_stays_in_the_ledger(what: str, world: World) -> None:
    job_id = half_sent(world)
    change(world.database, job_id, cancel_requested=True)
    assert sweep(world, moved_store(what)) == 0
    assert job_row(world.database, job_id).state == "cancelled"
    (upload,) = uploads(world.database, job_id)
    assert upload.state == "aborting"
    assert unfinished(world.memory) == [upload.upload_id]


def test_an_upload_is_aborted_by_another_name_of_its_store(world: World) -> None:
    job_id = half_sent(world)
    change(world.database, job_id, cancel_requested=True)
    renamed = WrappedStore(world.memory)
    renamed.endpoint = "http://elsewhere:9000"
    assert sweep(world, renamed) == 1
    assert [upload.state for upload in uploads(world.database, job_id)] == ["gone"]
    assert unfinished(world.memory) == []


def test_a_search_for_a_lost_upload_spares_one_that_was_opened_by_another_name_of_the_store(world: World) -> None:
    lost, other = world.submit(state="cancelled"), world.submit(state="failed")
    upload_id = world.memory.create_upload(KEY)
    add_upload(world.database, other, key=KEY, upload_id=upload_id, endpoint="http://private:9000")
    add_upload(world.database, lost, key=KEY, upload_id=None, state="aborting")
    assert sweep(world) == 1
    assert unfinished(world.memory) == [upload_id]


@pytest.fixture
def each_world(database: Database, tmp_path: Path) -> World:
    directory = tmp_path / "incoming"
    directory.mkdir()
    return World(database, directory, size=400)


def test_a_search_for_a_lost_upload_spares_one_that_is_just_being_opened(each_world: World) -> None:
    lost = each_world.submit()

    def refuse(called: str) -> None:
        if called == "create_upload":
            raise StoreUnavailableError("no answer")

    each_world.run(lost, HookedStore(each_world.memory, before=refuse))
    control.cancel(each_world.database.engine, lost)
    with each_world.database.begin() as session:
        queries.apply_requests(session, limit=10, paused_upload_seconds=60)
    job_id, swept = each_world.submit(), list[int]()

    def look(called: str) -> None:
        if called == "create_upload" and not swept:
            with each_world.worker() as runtime:
                swept.append(abort_given_up(runtime))

    assert isinstance(each_world.run(job_id, HookedStore(each_world.memory, after=look)), Finished)
    assert (swept, job_row(each_world.database, job_id).restarts) == ([0], 0)


def test_uploads_that_cannot_be_aborted_do_not_crowd_out_the_others(each_world: World) -> None:
    failed = each_world.submit(state="failed")
    old = add_upload(each_world.database, failed, state="aborting", updated_at=ago(60))
    with each_world.database.begin() as session:
        (first,) = queries.uploads_to_abort(session, limit=1, files_of="")
        queries.put_off_abort(session, first.id, -1)
    new = add_upload(each_world.database, failed, state="aborting", updated_at=ago(30))
    with each_world.database.begin() as session:
        (second,) = queries.uploads_to_abort(session, limit=1, files_of="")
    assert (first.id, second.id) == (old, new)
