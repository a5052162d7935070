"""The sweep of spooled uploads: it removes what no row needs, and no open transaction may need, and nothing else."""

import io
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from blobferry.contract import check_request
from blobferry.jobs.submission import insert_job
from blobferry.spooling.spool_directory import SpoolDirectory
from blobferry.spooling.spooled import Spooled, new_part_name
from models import Database
from tests.jobs.job_world import World, on_each_database
from tests.models.rows import ago, at_once
from worker.maintenance.spool_marker import MARKER
from worker.maintenance.sweep_spool import Ended, SpoolSweep

GRACE = 3600.0
OLD = GRACE + 60
SECTIONS: dict[str, Any] = {"retention": {"spooled_seconds": GRACE}}


@pytest.fixture
def world(world_database: Database, tmp_path: Path) -> World:
    world = World(world_database, tmp_path / "incoming")
    world.spool_dir = tmp_path / "spool"
    world.spool_dir.mkdir()
    return world


def spool(world: World, *, age: float = OLD) -> Spooled:
    spooled = SpoolDirectory(world.spool_dir).take(io.BytesIO(b"x"))
    made_older(spooled.path, age)
    return spooled


def made_older(path: Path, age: float) -> None:
    status = path.stat()
    os.utime(path, (status.st_atime, status.st_mtime - age))


def submit(world: World, spooled: Spooled, **columns: Any) -> str:
    return world.submit(arguments={"path": "/a", "source": spooled.url}, **columns)


def never(seconds: float) -> bool:
    return False


def sweep(world: World, *, ended: Ended = never, **how: Any) -> int:
    with world.worker(**SECTIONS) as runtime:
        return SpoolSweep(runtime, **how).go_round(ended)


@on_each_database
def test_an_upload_without_a_job_goes_after_its_grace(world: World) -> None:
    old, young = spool(world), spool(world, age=GRACE - 60)
    assert sweep(world) == 1
    assert (old.path.exists(), young.path.exists()) == (False, True)
    made_older(young.path, 120)
    assert sweep(world) == 1
    assert sweep(world) == 0


@on_each_database
@pytest.mark.parametrize("state", ["queued", "running", "verifying", "retrying", "paused", "failed"])
def test_an_upload_of_a_job_that_may_run_stays(world: World, state: str) -> None:
    spooled = spool(world)
    submit(world, spooled, state=state)
    assert sweep(world) == 0
    assert spooled.path.exists()


@on_each_database
def test_an_upload_of_a_cancelled_job_goes_and_that_of_a_failed_one_once_it_is_pruned(world: World) -> None:
    cancelled, failed = spool(world), spool(world)
    submit(world, cancelled, state="cancelled", finished_at=ago(1))
    submit(world, failed, state="failed", finished_at=ago(100))
    assert sweep(world) == 1
    assert (cancelled.path.exists(), failed.path.exists()) == (False, True)
    world.sweep(retention={"job_seconds": 50})
    assert sweep(world) == 1
    assert not failed.path.exists()


@pytest.mark.parametrize("world_database", ["postgres"], indirect=True)
def test_a_transaction_that_lasts_longer_than_the_grace_keeps_its_upload(world: World) -> None:
    committed, rolled_back = spool(world), spool(world)
    waits = list[float]()

    def waited(seconds: float) -> bool:
        waits.append(seconds)
        return False

    with world.database.engine.connect() as connection:
        for spooled in (committed, rolled_back):
            transaction = connection.begin()
            savepoint = connection.begin_nested()
            request = check_request("write_stream", {"path": "/a", "source": spooled.url})
            insert_job(connection, request)
            savepoint.commit()
            # Others come and go meanwhile, so that the open one is not the newest.
            world.submit()
            assert sweep(world, ended=waited, patience=2) == 0
            assert 1.0 in waits, "it was waited for"
            assert committed.path.exists()
            assert rolled_back.path.exists()
            if spooled is committed:
                transaction.commit()
            else:
                transaction.rollback()
    assert sweep(world) == 1
    assert (committed.path.exists(), rolled_back.path.exists()) == (True, False)


def test_what_a_killed_app_was_writing_goes_and_what_is_not_ours_stays(world: World) -> None:
    assert world.spool_dir is not None
    half, foreign = world.spool_dir / new_part_name(), world.spool_dir / "7.mp4"
    directory, link = spool(world).path.name, spool(world).path.name
    for name in (directory, link):
        (world.spool_dir / name).unlink()
    (world.spool_dir / directory).mkdir()
    (world.spool_dir / link).symlink_to(foreign)
    for path in (half, foreign):
        path.write_bytes(b"x")
        made_older(path, OLD)
    made_older(world.spool_dir / directory, OLD)
    assert sweep(world) == 1
    assert not half.exists()
    assert {foreign.name, directory, link, MARKER} == set(os.listdir(world.spool_dir))


def test_the_directory_of_another_database_is_left_alone(world: World, sqlite_url: str, tmp_path: Path) -> None:
    spool(world)
    assert sweep(world) == 1, "the first one has it"
    spooled = spool(world)
    empty = tmp_path / "other.db"
    shutil.copyfile(sqlite_url.removeprefix("sqlite:///"), empty)
    other = Database(f"sqlite:///{empty}")
    with other.begin() as session:
        session.execute(text("DELETE FROM blobferry_spools"))
    with world.worker(database=other, **SECTIONS) as runtime:
        assert SpoolSweep(runtime).go_round() == 0
    other.close()
    assert spooled.path.exists()
    assert sweep(world) == 1


def test_a_mount_point_without_its_mount_is_not_marked(world: World) -> None:
    assert world.spool_dir is not None
    assert sweep(world) == 0
    assert os.listdir(world.spool_dir) == []
    world.spool_dir.rmdir()
    assert sweep(world) == 0


def test_two_sweeps_at_once_claim_one_directory_for_one_database(world: World) -> None:
    spooled = [spool(world) for _ in range(40)]
    counts = list[int]()
    with world.worker(**SECTIONS) as runtime:
        sweeps = [SpoolSweep(runtime) for _ in range(4)]
        at_once(4, lambda number: counts.append(sweeps[number].go_round()))
    assert sum(counts) == 40
    assert not any(each.path.exists() for each in spooled)
    assert world.spool_dir is not None
    assert os.listdir(world.spool_dir) == [MARKER]


def test_a_full_directory_is_swept_in_bounded_steps(world: World) -> None:
    young, needed = spool(world, age=0), spool(world)
    submit(world, needed)
    orphans = [spool(world) for _ in range(120)]
    looked = list[float]()

    def ended(seconds: float) -> bool:
        looked.append(seconds)
        return len(looked) > 2  # after the sources of jobs that have succeeded, and one step

    first = sweep(world, ended=ended, at_once=50)
    assert 0 < first < 120, "it stops between two steps"
    assert first + sweep(world) == 120
    assert not any(each.path.exists() for each in orphans)
    assert young.path.exists()
    assert needed.path.exists()
