"""Aborting uploads that no job needs any more: only ours, until the store lists no part of them."""

import pytest
from sqlalchemy import delete, update

from blobferry.jobs import control
from blobferry.sql.clock import db_now
from models import PathLockRow
from tests.doubles import FaultyStore, HookedStore, unfinished
from tests.jobs.job_world import KEY, PART, World, at, by_another_name, on_each_database
from tests.models.rows import ago
from worker.errors import LeaseLostError
from worker.jobs.outcome import Finished, NotClaimed
from worker.jobs.sql_checkpoint import SqlCheckpoint
from worker.maintenance.abort_uploads import BATCH, abort_given_up


def test_an_old_owners_upload_that_is_opened_after_the_takeover_is_aborted_by_itself(world: World) -> None:
    job_id = world.submit()

    def take_over() -> None:
        world.expire_lease(job_id)
        world.succeed(job_id)

    assert world.run(job_id, HookedStore(world.memory, before=at("create_upload", do=take_over))) == NotClaimed()
    assert (world.job_row(job_id).state, unfinished(world.memory)) == ("succeeded", [])


def test_an_upload_whose_create_arrives_after_its_row_was_given_up_is_found_later(world: World) -> None:
    job_id = world.submit()
    world.crash(job_id, world.dying("create_upload"))
    world.succeed(job_id)
    world.memory.create_upload(KEY)  # the dead worker's
    lost, last = world.uploads(job_id)
    assert (lost.state, lost.upload_id, last.state) == ("gone", None, "completed")
    assert lost.recheck_at is not None
    assert world.sweep().aborted == 0
    world.change_upload(lost.id, recheck_at=ago(1))
    assert (world.sweep().aborted, unfinished(world.memory)) == (1, [])
    assert world.sweep().aborted == 0


def test_a_rescue_leaves_another_storages_fresh_upload_in_the_same_bucket_alone(world: World) -> None:
    lost, other = world.submit(), world.submit(arguments={"storage": "second"})
    world.crash(lost, world.dying("create_upload"))
    world.change(lost, not_before=db_now(3600), attempt=0)  # a job of its time holds the path, this one not
    with world.database.begin() as session:
        session.execute(delete(PathLockRow))
    world.run(other, stores={"second": FaultyStore(world.memory, "upload_part", times=99)})
    world.change(lost, not_before=None, attempt=1)
    with world.database.begin() as session:
        session.execute(update(PathLockRow).values(job_id=lost))
    (fresh,) = world.uploads(other)
    assert unfinished(world.memory) == [fresh.upload_id]
    assert isinstance(world.run(lost), Finished)
    assert unfinished(world.memory) == [fresh.upload_id]
    world.change(lost, state="cancelled")
    world.add_upload(lost, key=KEY, part_size=PART, upload_id=None, state="aborting")
    assert (world.sweep().aborted, unfinished(world.memory)) == (1, [fresh.upload_id])


def test_a_stale_owner_is_not_told_of_the_uploads(world: World) -> None:
    stale = world.claim(world.submit())
    checkpoint = SqlCheckpoint(world.lease_of(stale), world.memory, max_restarts=3)
    assert checkpoint.load() is None
    world.taken_over(stale.id)
    with pytest.raises(LeaseLostError):
        checkpoint.known_upload_ids(KEY)


def test_fifty_uploads_that_cannot_be_aborted_do_not_hold_up_the_next(world: World) -> None:
    failed = world.submit(state="failed")
    for number in range(BATCH):
        world.add_upload(failed, storage="retired", upload_id=f"u{number}", state="aborting")
    upload_id = world.memory.create_upload(KEY)
    world.add_upload(failed, key=KEY, upload_id=upload_id, state="aborting")
    with world.worker() as runtime:
        assert abort_given_up(runtime) + abort_given_up(runtime) == 1
    assert unfinished(world.memory) == []
    assert [upload.state for upload in world.uploads(failed)] == ["aborting"] * BATCH + ["gone"]


def test_an_upload_whose_abort_meets_a_bug_does_not_hold_up_the_next(world: World) -> None:
    failed = world.submit(state="failed")
    for number in range(2):
        upload_id = world.memory.create_upload(f"{KEY}{number}")
        world.add_upload(failed, key=f"{KEY}{number}", upload_id=upload_id, state="aborting")
    with world.worker(FaultyStore(world.memory, "abort_upload", error=RuntimeError)) as runtime:
        assert abort_given_up(runtime) == 1
    assert [upload.state for upload in world.uploads(failed)] == ["aborting", "gone"]


@pytest.mark.parametrize("what", ["bucket", "endpoint"])
def test_an_upload_in_a_bucket_that_the_storage_names_no_longer_stays_in_the_ledger(what: str, world: World) -> None:
    job_id = world.half_sent()
    world.change(job_id, cancel_requested=True)
    assert world.sweep(world.moved_store(what)).aborted == 0
    assert world.job_row(job_id).state == "cancelled"
    (upload,) = world.uploads(job_id)
    assert (upload.state, unfinished(world.memory)) == ("aborting", [upload.upload_id])


@on_each_database
def test_a_search_for_a_lost_upload_spares_one_that_is_just_being_opened(world: World) -> None:
    lost = world.submit()
    world.put_off(lost, FaultyStore(world.memory, "create_upload", times=100))
    control.cancel(world.database.engine, lost)
    world.apply_requests(limit=10, paused_upload_seconds=60)
    job_id, swept = world.submit(), list[int]()

    def look() -> None:
        with world.worker() as runtime:
            swept.append(abort_given_up(runtime))

    world.succeed(job_id, HookedStore(world.memory, after=at("create_upload", do=look)))
    assert (swept, world.job_row(job_id).restarts) == ([0], 0)


def test_an_upload_is_aborted_by_another_name_of_its_store(world: World) -> None:
    job_id = world.half_sent()
    world.change(job_id, cancel_requested=True)
    assert world.sweep(by_another_name(world.memory)).aborted == 1
    assert [upload.state for upload in world.uploads(job_id)] == ["gone"]
    assert unfinished(world.memory) == []


def test_a_search_for_a_lost_upload_spares_one_that_was_opened_by_another_name_of_the_store(world: World) -> None:
    lost, other = world.submit(state="cancelled"), world.submit(state="failed")
    upload_id = world.memory.create_upload(KEY)
    world.add_upload(other, key=KEY, upload_id=upload_id, endpoint="http://private:9000")
    world.add_upload(lost, key=KEY, upload_id=None, state="aborting")
    assert (world.sweep().aborted, unfinished(world.memory)) == (1, [upload_id])


@on_each_database
def test_uploads_that_cannot_be_aborted_do_not_crowd_out_the_others(world: World) -> None:
    failed = world.submit(state="failed")
    old = world.add_upload(failed, state="aborting", updated_at=ago(60))
    (first,) = world.uploads_to_abort(limit=1, files_of="")
    world.put_off_abort(first.id, -1)
    new = world.add_upload(failed, state="aborting", updated_at=ago(30))
    (second,) = world.uploads_to_abort(limit=1, files_of="")
    assert (first.id, second.id) == (old, new)
