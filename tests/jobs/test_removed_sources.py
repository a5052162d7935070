"""Sources that are removed: after success and proof, never before, and only the very file that was sent."""

import io
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from blobferry import seal
from blobferry.contract import JobState
from blobferry.jobs import control
from blobferry.jobs.replaced_source import ReplacedSource
from blobferry.sealing import Sealer
from blobferry.spooling.spool_directory import SpoolDirectory
from blobferry.spooling.spooled import Spooled
from models import Database
from tests.doubles import FaultyStore, HookedStore, blob
from tests.jobs.batch.batch_world import BatchWorld, Told
from tests.jobs.job_world import AT_ONCE, KEY, PATH, QUICK, World, on_each_database
from tests.transfer.sources.hanging_mount import mounted
from worker.errors import PermissionDeniedError, StoreUnavailableError
from worker.jobs.outcome import Cancelled, Finished
from worker.jobs.runner import run_job
from worker.maintenance.sweep_spool import SpoolSweep

DATA = bytes(range(95))


@pytest.fixture
def world(world_database: Database, tmp_path: Path) -> BatchWorld:
    (tmp_path / "spool").mkdir()
    world = BatchWorld(world_database, tmp_path / "incoming", of_files=True)
    world.spool_dir = tmp_path / "spool"
    return world


def spool(world: World, data: bytes = DATA, **how: Any) -> Spooled:
    return SpoolDirectory(world.spool_dir).take(io.BytesIO(data), **how)


def submit(world: World, spooled: Spooled, path: str = PATH, **columns: Any) -> str:
    return world.submit(arguments={"path": path, "source": spooled.url}, **columns)


def marks(world: World, job_id: str) -> tuple[Any, bool]:
    row = world.job_row(job_id)
    return row.spooled, row.removes_source


def succeed_only(world: World, job_id: str, **sections: Any) -> None:
    """The job succeeds, and its worker is killed before the removal."""
    world.change(job_id, removes_source=False)
    world.succeed(job_id, **sections)
    world.change(job_id, removes_source=True)


def sweep(world: World, **sections: Any) -> int:
    with world.worker(**sections) as runtime:
        return SpoolSweep(runtime).go_round(lists=False)


@on_each_database
def test_an_upload_is_removed_once_its_job_has_succeeded(world: World) -> None:
    spooled = spool(world)
    job_id = submit(world, spooled)
    looked = list[bool]()
    store = HookedStore(world.memory, after=lambda verb: looked.append(spooled.path.exists()))
    world.succeed(job_id, store)
    assert all(looked), "it is there until the last request, the one that proves the blob"
    assert looked
    assert not spooled.path.exists()
    assert blob(world.memory, KEY) == DATA
    assert marks(world, job_id) == (None, False)


@on_each_database
def test_the_uploads_of_a_batch_are_removed(world: BatchWorld) -> None:
    uploads = [spool(world, f"job {number}".encode()) for number in range(4)]
    ids = [
        world.ask("write_stream", path=f"/small/{number}", source=upload.url) for number, upload in enumerate(uploads)
    ]
    world._urls |= {job_id: upload.url for job_id, upload in zip(ids, uploads, strict=True)}
    world.run_batch(ids[0])
    assert [world.job_row(job_id).state for job_id in ids] == ["succeeded"] * 4
    assert os.listdir(str(world.spool_dir)) == []
    assert [marks(world, job_id) for job_id in ids] == [(None, False)] * 4


@pytest.mark.parametrize("how", ["sealed", "percent-encoded", "in capitals", "sealed for the retry"])
def test_an_upload_is_known_however_its_url_is_spelled(how: str, world: World) -> None:
    """Otherwise the sweep takes it for an orphan while its job waits."""
    spooled, key = spool(world), Fernet.generate_key().decode()
    url = {
        "percent-encoded": spooled.url.replace("/ferry-", "/%66erry-"),
        "in capitals": spooled.url.replace("file:", "FILE:"),
    }.get(how) or seal(spooled.url, key)
    if how == "sealed for the retry":
        job_id = world.submit(arguments={"source": (world.file.parent / "missing").as_uri()})
        world.fail(job_id, "source_not_found")
        replaced = ReplacedSource.of(url, Sealer([key]))
        control.retry(world.database.engine, job_id, replaced)
    else:
        job_id = world.submit(arguments={"source": url}, sealer=Sealer([key]))
    assert marks(world, job_id) == (spooled.path.name, True)
    with world.worker() as runtime:
        runtime.sealer = Sealer([key])
        assert isinstance(run_job(runtime, job_id), Finished)
    assert world.has_ended(job_id, JobState.SUCCEEDED)
    assert (blob(world.memory, KEY), spooled.path.exists()) == (DATA, False)


def test_an_upload_stays_while_its_job_may_be_retried_and_goes_after_the_retry(world: World) -> None:
    spooled = spool(world)
    job_id = submit(world, spooled)
    world.put_off(job_id, FaultyStore(world.memory, "upload_part", times=100, error=StoreUnavailableError))
    assert spooled.path.exists()
    world.fail(
        job_id,
        "permission_denied",
        FaultyStore(world.memory, "create_upload", "upload_part", "put", times=100, error=PermissionDeniedError),
        **AT_ONCE,
    )
    assert spooled.path.exists()
    world.change(job_id, state="queued", finished_at=None, error_code=None, attempt=0)
    world.succeed(job_id)
    assert not spooled.path.exists()


def test_a_worker_killed_between_the_end_and_the_removal_leaves_it_to_a_sweep(world: World) -> None:
    spooled = spool(world)
    job_id = submit(world, spooled)
    succeed_only(world, job_id)
    assert spooled.path.exists()
    assert sweep(world) == 1
    assert not spooled.path.exists()
    assert marks(world, job_id) == (None, False)
    assert sweep(world) == 0, "it may be repeated"


@on_each_database
@pytest.mark.parametrize("other", ["queued", "failed", "paused", "running"])
def test_an_upload_of_two_jobs_stays_for_the_other_one(world: World, other: str) -> None:
    spooled = spool(world)
    first, second = submit(world, spooled), submit(world, spooled, "/second", state=other)
    world.succeed(first)
    assert spooled.path.exists()
    assert marks(world, first) == (None, False), "the other one sees to it"
    world.change(second, state="queued")
    world.succeed(second)
    assert not spooled.path.exists()


def test_a_job_that_keeps_its_upload_keeps_it_from_the_others(world: World) -> None:
    spooled = spool(world)
    keeping = world.submit(arguments={"path": "/keeping", "source": spooled.url, "delete_source": False})
    world.succeed(keeping)
    world.succeed(submit(world, spooled))
    assert spooled.path.exists()


@pytest.mark.parametrize("change", ["rewritten", "touched", "replaced", "linked"])
def test_a_file_that_has_changed_since_stays(world: World, change: str) -> None:
    job_id = world.submit(arguments={"delete_source": True})
    allowed = {"sources": {"delete_roots": (world.file.parent,)}}

    def touch() -> None:
        status = world.file.stat()
        match change:
            case "rewritten":
                world.file.write_bytes(world.data + b"more")
            case "touched":  # the old time again, as a rewrite that wants to hide does
                world.file.write_bytes(world.data)
                os.utime(world.file, ns=(status.st_atime_ns, status.st_mtime_ns))
            case "replaced":
                world.file.unlink()
                world.file.write_bytes(world.data)
            case _:
                world.file.rename(world.file.with_name("other"))
                world.file.symlink_to("other")

    succeed_only(world, job_id, **allowed)
    touch()
    sweep(world, **allowed)
    assert world.file.exists()
    assert marks(world, job_id) == (None, False), "and nobody tries again"


def test_a_file_of_the_app_goes_where_the_operator_allows_it(world: World) -> None:
    job_id = world.submit(arguments={"delete_source": True})
    world.succeed(job_id, sources={"delete_roots": (world.file.parent,)})
    assert not world.file.exists()


@pytest.mark.parametrize("small", [False, True])
def test_a_file_elsewhere_is_not_sent_rather_than_left_behind(world: BatchWorld, small: bool) -> None:
    job_id = world.small(1, b"x", delete_source=True) if small else world.submit(arguments={"delete_source": True})
    if small:
        with world.worker(**AT_ONCE) as runtime:
            world.deliver(runtime, job_id, Told())
        said = str(world.job_row(job_id).error_message)
    else:
        said = world.fail(job_id, "source_not_allowed", **AT_ONCE)
    assert re.search("lies below neither spool_dir, /.*/spool here, nor sources.delete_roots", said)
    assert world.memory.list_page("").entries == []


def test_a_source_that_is_no_file_cannot_be_removed(world: World) -> None:
    job_id = world.submit(arguments={"source": "blob://default/other", "delete_source": True})
    assert "it is no file" in world.fail(job_id, "source_not_allowed")


def test_an_upload_with_other_bytes_than_its_name_tells_is_no_source(world: BatchWorld) -> None:
    cut, other = spool(world), spool(world, b"good")
    cut.path.write_bytes(DATA[:-1])
    assert "has 94 bytes, and 95 were spooled" in world.fail(submit(world, cut), "source_changed")
    other.path.write_bytes(b"evil")
    job_id = world.ask("write_stream", path="/small/1", source=other.url)
    assert "other bytes" in world.fail(job_id, "source_changed")
    assert cut.path.exists()


def test_a_worker_without_the_mount_leaves_the_removal_to_another(world: World, tmp_path: Path) -> None:
    spooled = spool(world)
    job_id = submit(world, spooled)
    succeed_only(world, job_id)
    assert world.spool_dir is not None
    away = tmp_path / "away"
    for mount_point in (False, True):
        world.spool_dir.rename(away)
        if mount_point:
            world.spool_dir.mkdir()  # empty, as under a file system that is not mounted
        assert sweep(world) == 0
        assert marks(world, job_id) == (spooled.path.name, True)
        if mount_point:
            world.spool_dir.rmdir()
        away.rename(world.spool_dir)
    assert sweep(world) == 1
    assert not spooled.path.exists()


def test_a_mount_that_hangs_holds_up_no_cancel_of_a_job_that_is_to_remove_its_file(
    world: World, tmp_path: Path
) -> None:
    """Whether it may be removed there is asked before anything is sent, and that asks the mount."""
    root = tmp_path / "mount"
    root.mkdir()
    sections: dict[str, Any] = {"sources": {"file_roots": (root,), "delete_roots": (root,)}, "lease": QUICK}
    with mounted(root, DATA) as mount:
        job_id = world.submit(arguments={"source": (root / "file").as_uri(), "delete_source": True})
        mount.hangs.set()
        outcomes = list[Any]()
        run = threading.Thread(target=lambda: outcomes.append(world.run(job_id, **sections)), daemon=True)
        run.start()
        assert mount.has_hung.wait(30)
        world.change(job_id, cancel_requested=True)
        run.join(30)
        assert outcomes == [Cancelled()]
    assert world.memory.list_page("").entries == []
