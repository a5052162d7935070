"""read_stream as a job: a blob to a file of the worker's host, whole or not at all, whoever dies or takes over."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import gethostname
from typing import Any

import pytest
from sqlalchemy.orm import Session

from blobferry.contract import JobState
from models import Database, queries
from models.queries import HOST_GONE
from tests.doubles import DeathError, FaultyStore, Fuse, FusedDatabase, HookedStore, RecordingStore, WrappedStore, blob
from tests.jobs.job_world import KEY, OLD, PART, PATH, QUICK, World, due, has_ended, requesting
from tests.models.rows import (
    ago,
    attempts,
    change,
    change_upload,
    expire_lease,
    job_row,
    outcomes,
    part_rows,
    take_away,
    uploads,
)
from tests.transfer.download.test_destination import mounted, needs_mount
from worker import drain
from worker.jobs.outcome import Cancelled, Finished, NotClaimed, Rescheduled
from worker.jobs.runner import run_job
from worker.maintenance.caretaker import Caretaker
from worker.stores.memory.memory_store import MemoryReader
from worker.units import KIB

SIZE = 95


class Reading(World):
    """A world whose data lie at the path, with an old file where they are to go."""

    def __init__(self, database: Database, directory: Path, size: int = SIZE) -> None:
        directory.mkdir(exist_ok=True)
        super().__init__(database, directory, size)
        self.memory.put(KEY, self.data)
        self.file.write_bytes(OLD)

    def read(self, **arguments: Any) -> str:
        return self.ask("read_stream", **{"path": PATH, "dest": self.file.as_uri(), **arguments})

    def seen(self) -> bytes | None:
        return self.file.read_bytes() if self.file.exists() else None

    def partials(self) -> list[str]:
        """Names beside the file's."""
        return sorted(set(os.listdir(self.file.parent)) - {self.file.name})

    def sweep(self) -> None:
        with self.worker() as runtime:
            Caretaker(runtime, lambda message: True).sweep()


@pytest.fixture
def world(sqlite_database: Database, tmp_path: Path) -> Reading:
    return Reading(sqlite_database, tmp_path / "outgoing")


def at_get(number: int, action: Callable[[], object]) -> Callable[[str], None]:
    """Does it at the n-th get."""
    gets: list[str] = []

    def hook(verb: str) -> None:
        if verb == "get":
            gets.append(verb)
            if len(gets) == number:
                action()

    return hook


def fetched(*stores: RecordingStore) -> list[int]:
    """Where each range began that was fetched."""
    return sorted(call.args[1] for store in stores for call in store.named("get"))


def stopped_by_an_error(world: Reading, gets: int = 5, **arguments: Any) -> tuple[str, set[int]]:
    """A job whose first run ended in a transient error, and where the parts begin that have rows."""
    job_id = world.read(**arguments)
    assert isinstance(world.run(job_id, FaultyStore(world.memory, "get", fail_at=gets, times=100)), Rescheduled)
    due(world, job_id)
    (upload,) = uploads(world.database, job_id)
    rows = {part.offset for part in part_rows(world.database, upload.id)}
    assert rows
    assert len(world.partials()) == 1
    assert world.seen() == OLD
    return job_id, rows


def died(world: Reading, store: Any) -> str:
    """A job whose worker died, and whose lease ran out."""
    job_id = world.read()
    with pytest.raises(DeathError):
        world.run(job_id, store)
    expire_lease(world.database, job_id)
    assert len(world.partials()) == 1
    return job_id


# --- it works --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "offset"), [(0, 0), (1, 0), (PART, 0), (SIZE, 0), (SIZE, 13), (SIZE, 94)])
def test_a_job_brings_its_blob_to_the_file(size: int, offset: int, database: Database, tmp_path: Path) -> None:
    world = Reading(database, tmp_path / "outgoing", size)
    job_id, recording = world.read(offset=offset), RecordingStore(world.memory)
    outcome = world.run(job_id, recording)
    assert isinstance(outcome, Finished)
    assert outcome.error is None
    assert world.seen() == world.data[offset:]
    assert world.partials() == []
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    row, count = job_row(database, job_id), size - offset
    expected = {"path": PATH, "dest": world.file.as_uri(), "size": count, "etag": world.memory.head(KEY).etag}
    assert outcome.result == row.result == expected
    assert (row.dest, row.size, row.bytes_done, row.bytes_sent) == (world.file.as_uri(), count, count, count)
    assert [(attempt.outcome, attempt.bytes_sent) for attempt in attempts(database, job_id)] == [("succeeded", count)]
    (upload,) = uploads(database, job_id)
    assert (upload.state, upload.key, upload.bucket) == ("completed", str(world.file), str(world.file.parent))
    assert upload.endpoint == f"file://{gethostname()}"
    assert fetched(recording) == list(range(offset, size, PART))
    assert blob(world.memory, KEY) == world.data


def test_a_file_that_is_not_there_yet_is_made(world: Reading) -> None:
    world.file.unlink()
    job_id = world.read()
    world.run(job_id)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert world.seen() == world.data


@pytest.mark.parametrize("offset", [SIZE, SIZE + 1, 10**9])
def test_an_offset_at_or_past_the_end_gives_an_empty_file(offset: int, world: Reading) -> None:
    job_id = world.read(offset=offset)
    world.run(job_id)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert world.seen() == b""
    assert job_row(world.database, job_id).size == 0


def test_running_a_finished_job_again_does_nothing(world: Reading) -> None:
    job_id = world.read()
    world.run(job_id)
    world.file.unlink()  # whoever waited for it has taken it
    assert world.run(job_id) == NotClaimed()
    assert world.seen() is None


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_destination_outside_of_the_roots_fails_the_job_with_nothing_fetched(world: Reading, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (world.file.parent / "link").symlink_to(tmp_path / "elsewhere")
    for dest in (tmp_path / "elsewhere" / "f", world.file.parent / "link" / "f", world.file.parent / "nowhere" / "f"):
        job_id, recording = world.read(dest=dest.as_uri()), RecordingStore(world.memory)
        assert isinstance(world.run(job_id, recording, retry={"max_attempts": 1}), Finished)
        assert has_ended(world, job_id, JobState.FAILED, "destination_not_allowed")
        assert gethostname() in str(job_row(world.database, job_id).error_message)
        assert recording.calls == []
        assert uploads(world.database, job_id) == []
    assert os.listdir(tmp_path / "elsewhere") == []


def test_an_unknown_storage_fails_the_job(world: Reading) -> None:
    job_id = world.read(storage="nowhere")
    world.run(job_id, retry={"max_attempts": 1})
    assert has_ended(world, job_id, JobState.FAILED, "configuration")
    assert (world.seen(), world.partials()) == (OLD, [])


def test_a_missing_blob_fails_the_job_and_the_old_file_stays(world: Reading) -> None:
    job_id = world.read(path="/nothing")
    world.run(job_id)
    assert has_ended(world, job_id, JobState.FAILED, "path_not_found")
    assert (world.seen(), world.partials()) == (OLD, [])


def test_a_file_that_may_not_be_overwritten_fails_the_job_with_nothing_fetched(world: Reading) -> None:
    job_id, recording = world.read(overwrite=False), RecordingStore(world.memory)
    world.run(job_id, recording)
    assert has_ended(world, job_id, JobState.FAILED, "blob_exists")
    assert fetched(recording) == []
    assert (world.seen(), world.partials()) == (OLD, [])


def test_a_file_that_appears_meanwhile_is_not_overwritten(world: Reading) -> None:
    world.file.unlink()
    job_id = world.read(overwrite=False)
    world.run(job_id, HookedStore(world.memory, before=at_get(10, lambda: world.file.write_bytes(b"theirs"))))
    assert has_ended(world, job_id, JobState.FAILED, "blob_exists")
    assert (world.seen(), world.partials()) == (b"theirs", [])


def test_without_overwriting_a_new_file_is_made(world: Reading) -> None:
    world.file.unlink()
    job_id = world.read(overwrite=False)
    world.run(job_id)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert (world.seen(), world.partials()) == (world.data, [])


# --- errors, and going on --------------------------------------------------------------------------------------------


def test_a_job_goes_on_with_the_parts_that_have_rows(database: Database, tmp_path: Path) -> None:
    world = Reading(database, tmp_path / "outgoing")
    job_id, rows = stopped_by_an_error(world)
    recording = RecordingStore(world.memory)
    world.run(job_id, recording)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert fetched(recording) == [offset for offset in range(0, SIZE, PART) if offset not in rows]
    assert (world.seen(), world.partials()) == (world.data, [])
    assert outcomes(database, job_id) == ["retrying", "succeeded"]
    assert job_row(database, job_id).bytes_sent == SIZE


def test_a_blob_that_was_replaced_between_two_attempts_fails_the_job_and_the_partial_file_goes(world: Reading) -> None:
    job_id, _ = stopped_by_an_error(world)
    world.memory.put(KEY, world.data[::-1])
    world.run(job_id)
    assert has_ended(world, job_id, JobState.FAILED, "source_changed")
    assert (world.seen(), world.partials()) == (OLD, [])
    assert [upload.state for upload in uploads(world.database, job_id)] == ["gone"]


def test_a_blob_that_goes_between_two_attempts_fails_the_job_and_the_partial_file_goes(world: Reading) -> None:
    job_id, _ = stopped_by_an_error(world)
    world.memory.delete_batch([KEY])
    world.run(job_id)
    assert has_ended(world, job_id, JobState.FAILED, "path_not_found")
    assert (world.seen(), world.partials()) == (OLD, [])


@pytest.mark.parametrize("get", [4, 10])
def test_a_blob_that_is_replaced_while_it_is_read_never_makes_a_file_of_two_halves(get: int, world: Reading) -> None:
    job_id = world.read()
    world.run(job_id, HookedStore(world.memory, after=at_get(get, lambda: world.memory.put(KEY, world.data[::-1]))))
    assert has_ended(world, job_id, JobState.FAILED, "source_changed")
    assert (world.seen(), world.partials()) == (OLD, [])


def test_a_job_that_ran_out_of_retries_keeps_its_partial_file_for_a_while(world: Reading) -> None:
    job_id = world.read()
    world.run(job_id, FaultyStore(world.memory, "get", fail_at=5, times=100), retry={"max_attempts": 1})
    assert has_ended(world, job_id, JobState.FAILED, "source_unavailable")
    world.sweep()
    assert len(world.partials()) == 1
    change_upload(world.database, uploads(world.database, job_id)[0].id, recheck_at=ago(1))
    world.sweep()
    assert (world.seen(), world.partials()) == (OLD, [])


def test_a_partial_file_that_somebody_removed_is_begun_again(world: Reading) -> None:
    job_id, _ = stopped_by_an_error(world)
    (world.file.parent / world.partials()[0]).unlink()
    world.run(job_id)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert job_row(world.database, job_id).restarts == 1
    assert (world.seen(), world.partials()) == (world.data, [])


def test_parts_keep_their_ranges_though_the_settings_change_between_two_attempts(world: Reading) -> None:
    job_id, rows = stopped_by_an_error(world)
    world.part_size, recording = 4, RecordingStore(world.memory)
    world.run(job_id, recording)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert not {start // PART * PART for start in fetched(recording)} & rows
    assert world.seen() == world.data


class DamagingStore(WrappedStore):
    """Gives the third part with a byte that is not the blob's."""

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if name == "get" and args[1] == 2 * PART:
            return MemoryReader(b"\xff" * args[2], self.store.head(args[0]).etag)
        return super()._do(name, args, keywords)


def test_bytes_that_were_damaged_on_the_way_are_fetched_again(world: Reading) -> None:
    job_id = world.read()
    assert isinstance(world.run(job_id, DamagingStore(world.memory)), Rescheduled)
    row = job_row(world.database, job_id)
    assert (row.state, row.error_code, row.restarts, row.bytes_done) == ("retrying", "checksum_mismatch", 1, 0)
    assert (world.seen(), world.partials()) == (OLD, [])
    due(world, job_id)
    world.run(job_id)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert (world.seen(), world.partials()) == (world.data, [])


def test_a_store_that_damages_bytes_for_ever_fails_the_job_in_the_end(world: Reading) -> None:
    job_id = world.read()
    for _ in range(2):
        assert isinstance(world.run(job_id, DamagingStore(world.memory), retry={"max_restarts": 2}), Rescheduled)
        due(world, job_id)
    world.run(job_id, DamagingStore(world.memory), retry={"max_restarts": 2})
    assert has_ended(world, job_id, JobState.FAILED, "too_many_restarts")
    assert (world.seen(), world.partials()) == (OLD, [])


@needs_mount
def test_a_full_disk_is_tried_again_later_and_keeps_the_rows_and_the_old_file(world: Reading, tmp_path: Path) -> None:
    root, world.part_size = tmp_path / "small", 16 * KIB
    data = os.urandom(256 * KIB)
    world.memory.put(KEY, data)
    with mounted(root, "size=512k"):
        file, others = root / "7.mp4", root / "others"
        file.write_bytes(OLD)

        def fill_the_disk() -> None:
            with suppress(OSError), others.open("wb", buffering=0) as stream:
                while stream.write(bytes(4 * KIB)):
                    pass

        job_id = world.read(dest=file.as_uri())
        full = HookedStore(world.memory, before=at_get(5, fill_the_disk))
        outcome = world.run(job_id, full, sources={"file_roots": (root,)})
        assert isinstance(outcome, Rescheduled)
        row = job_row(world.database, job_id)
        assert (row.state, row.error_code) == ("retrying", "destination_full")
        assert "the disk is full" in str(row.error_message)
        (upload,) = uploads(world.database, job_id)
        rows = {part.offset for part in part_rows(world.database, upload.id)}
        assert len(rows) >= 2
        assert (file.read_bytes(), blob(world.memory, KEY)) == (OLD, data)

        others.unlink()
        due(world, job_id)
        recording = RecordingStore(world.memory)
        world.run(job_id, recording, sources={"file_roots": (root,)})
        assert has_ended(world, job_id, JobState.SUCCEEDED)
        assert not rows & set(fetched(recording))
        assert file.read_bytes() == data
        assert os.listdir(root) == ["7.mp4"]


# --- wishes, slices, drain, a lost lease -----------------------------------------------------------------------------


def test_a_cancelled_job_leaves_no_partial_file_and_the_old_file(database: Database, tmp_path: Path) -> None:
    world = Reading(database, tmp_path / "outgoing")
    job_id = world.read()
    assert world.run(job_id, requesting(world, job_id, "get"), lease=QUICK) == Cancelled()
    assert has_ended(world, job_id, JobState.CANCELLED)
    assert (world.seen(), world.partials()) == (OLD, [])
    assert [upload.state for upload in uploads(database, job_id)] == ["gone"]


def test_a_cancel_that_the_heartbeat_has_not_seen_still_comes_before_the_rename(world: Reading) -> None:
    job_id = world.read()
    assert world.run(job_id, requesting(world, job_id, "get", is_noticed=False)) == Cancelled()
    assert (world.seen(), world.partials()) == (OLD, [])


@pytest.mark.parametrize("why", ["pause", "drain", "slice"])
def test_a_job_that_is_handed_over_keeps_its_partial_file_and_fetches_nothing_again(
    why: str, database: Database, tmp_path: Path
) -> None:
    world = Reading(database, tmp_path / "outgoing")
    job_id = world.read()
    hooked = {
        "pause": lambda: requesting(world, job_id, "get", pause_requested=True),
        "drain": lambda: HookedStore(world.memory, before=at_get(1, drain.start)),
        "slice": lambda: HookedStore(world.memory, after=lambda verb: time.sleep(0.06) if verb == "get" else None),
    }[why]()
    first, second = RecordingStore(hooked), RecordingStore(world.memory)
    try:
        assert isinstance(world.run(job_id, first, lease=QUICK, transfer={"slice_seconds": 0.05}), Rescheduled)
    finally:
        drain._flag[0] = 0
    row = job_row(database, job_id)
    assert (row.state, row.attempt) == ("paused" if why == "pause" else "queued", 1)
    assert 0 < row.bytes_done < SIZE
    world.sweep()
    assert (len(world.partials()), world.seen()) == (1, OLD)
    change(database, job_id, state="queued", pause_requested=False)
    world.run(job_id, second)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert fetched(first, second) == list(range(0, SIZE, PART))
    assert (world.seen(), world.partials()) == (world.data, [])
    assert outcomes(database, job_id) == ["succeeded"]


@pytest.mark.parametrize("get", [1, 6, 10])
def test_a_run_that_was_taken_over_neither_publishes_nor_disturbs_the_other(get: int, world: Reading) -> None:
    job_id = world.read()
    others: list[Any] = []

    def take_over() -> None:
        take_away(world.database, job_id)
        others.append(world.run(job_id))
        world.file.write_bytes(b"what came next")

    assert world.run(job_id, HookedStore(world.memory, before=at_get(get, take_over))) == NotClaimed()
    assert isinstance(others[0], Finished)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert (world.seen(), world.partials()) == (b"what came next", [])
    assert outcomes(world.database, job_id) == ["died", "succeeded"]


# --- found in the middle of publishing -------------------------------------------------------------------------------


class DyingDatabase(Database):
    """Its process dies right after the commit that brings the job into a phase."""

    def __init__(self, url: str, job_id: str, phase: str) -> None:
        super().__init__(url)
        self._job_id = job_id
        self._phase = phase

    @contextmanager
    def begin(self) -> Iterator[Session]:
        with super().begin() as session:
            yield session
        with super().begin() as session:
            job = queries.find_job(session, self._job_id)
        if job is not None and job.phase == self._phase:
            raise DeathError(self._phase)


def dead_in(world: Reading, phase: str, **arguments: Any) -> str:
    """A job whose worker died as soon as its row said so."""
    job_id = world.read(**arguments)
    mortal = DyingDatabase(str(world.database.engine.url), job_id, phase)
    with world.worker(database=mortal) as runtime, pytest.raises(DeathError):
        run_job(runtime, job_id)
    mortal.close()
    expire_lease(world.database, job_id)
    return job_id


def dead_before_the_rename(world: Reading, **arguments: Any) -> str:
    job_id = dead_in(world, "completing", **arguments)
    assert len(world.partials()) == 1
    return job_id


def dead_after_the_rename(world: Reading, **arguments: Any) -> str:
    """The rows as they are then; the file is published, and nobody has written that down."""
    job_id = world.read(**arguments)
    world.run(job_id)
    change(world.database, job_id, state="retrying", phase="completing", finished_at=None, result=None, etag=None)
    change_upload(world.database, uploads(world.database, job_id)[0].id, state="completing")
    return job_id


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("dead", [dead_before_the_rename, dead_after_the_rename])
def test_a_file_that_a_dead_worker_had_begun_to_publish_is_published_once_with_nothing_fetched(
    dead: Callable[..., str], overwrite: bool, world: Reading
) -> None:
    if not overwrite:
        world.file.unlink()
    job_id = dead(world, overwrite=overwrite)
    world.memory.delete_batch([KEY])  # it is not needed any more
    change(world.database, job_id, cancel_requested=True)  # which is too late
    recording = RecordingStore(world.memory)
    world.run(job_id, recording)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert recording.calls == []
    assert (world.seen(), world.partials()) == (world.data, [])
    row = job_row(world.database, job_id)
    assert row.result is not None
    assert (row.result["size"], row.bytes_done) == (SIZE, SIZE)


@pytest.mark.parametrize("dead", [dead_before_the_rename, dead_after_the_rename])
def test_a_file_of_somebody_else_supersedes_a_dead_workers(dead: Callable[..., str], world: Reading) -> None:
    job_id = dead(world)
    world.file.unlink()
    world.file.write_bytes(b"theirs")
    world.run(job_id)
    assert has_ended(world, job_id, JobState.FAILED, "superseded")
    assert (world.seen(), world.partials()) == (b"theirs", [])


def test_a_file_that_was_taken_with_its_directory_once_it_was_published_is_a_success(world: Reading) -> None:
    job_id = dead_in(world, "verifying")
    assert world.seen() == world.data
    world.file.unlink()
    world.file.parent.rmdir()
    world.run(job_id)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    row = job_row(world.database, job_id)
    assert row.result is not None
    assert (row.result["size"], row.result["dest"]) == (SIZE, world.file.as_uri())


def test_a_file_that_may_have_come_and_gone_is_not_fetched_again(world: Reading) -> None:
    job_id = dead_after_the_rename(world)
    world.file.unlink()
    recording = RecordingStore(world.memory)
    world.run(job_id, recording)
    assert has_ended(world, job_id, JobState.FAILED, "outcome_unknown")
    assert fetched(recording) == []
    assert world.seen() is None


# --- partial files of the dead, and of other hosts -------------------------------------------------------------------


def test_a_cancelled_job_of_a_dead_worker_is_cleared_away_by_the_caretaker_of_its_host(
    database: Database, tmp_path: Path
) -> None:
    world = Reading(database, tmp_path / "outgoing")
    job_id = died(world, FaultyStore(world.memory, "get", fail_at=5, error=DeathError))
    change(database, job_id, cancel_requested=True)
    world.sweep()
    assert job_row(database, job_id).state == "cancelled"
    assert (world.seen(), world.partials()) == (OLD, [])
    assert [upload.state for upload in uploads(database, job_id)] == ["gone"]


def on_another_host(world: Reading, job_id: str) -> None:
    """The job's partial file was begun on a host whose disk is not seen here."""
    (upload,) = uploads(world.database, job_id)
    change_upload(world.database, upload.id, endpoint="file://elsewhere")
    disk = world.file.parent.parent / "disk of elsewhere"
    disk.mkdir(exist_ok=True)
    for name in world.partials():
        (world.file.parent / name).rename(disk / name)


def with_another_host_name(world: Reading, job_id: str) -> None:
    """The host has been given another name, or another host shares the directory."""
    (upload,) = uploads(world.database, job_id)
    change_upload(world.database, upload.id, endpoint="file://name-before")


def test_a_partial_file_of_another_host_is_left_alone_and_forgotten_after_some_days(
    database: Database, tmp_path: Path
) -> None:
    world = Reading(database, tmp_path / "outgoing")
    job_id = died(world, FaultyStore(world.memory, "get", fail_at=5, error=DeathError))
    on_another_host(world, job_id)
    (upload,) = uploads(database, job_id)
    change(database, job_id, cancel_requested=True)
    world.sweep()
    assert job_row(database, job_id).state == "cancelled"
    assert [upload.state for upload in uploads(database, job_id)] == ["aborting"]
    change_upload(database, upload.id, updated_at=ago(HOST_GONE - 60))
    world.sweep()
    assert [upload.state for upload in uploads(database, job_id)] == ["aborting"]
    change_upload(database, upload.id, updated_at=ago(HOST_GONE + 60))
    world.sweep()
    assert [upload.state for upload in uploads(database, job_id)] == ["gone"]


@pytest.mark.parametrize("silent", [0, HOST_GONE + 60], ids=["at once", "after some days"])
def test_whoever_sees_a_partial_file_that_nobody_needs_removes_it(silent: float, world: Reading) -> None:
    job_id = died(world, FaultyStore(world.memory, "get", fail_at=5, error=DeathError))
    with_another_host_name(world, job_id)
    change(world.database, job_id, cancel_requested=True)
    if silent:
        change_upload(world.database, uploads(world.database, job_id)[0].id, state="aborting", updated_at=ago(silent))
    world.sweep()
    world.sweep()
    assert job_row(world.database, job_id).state == "cancelled"
    assert [upload.state for upload in uploads(world.database, job_id)] == ["gone"]
    assert (world.seen(), world.partials()) == (OLD, [])


def test_a_host_that_does_not_see_a_partial_file_does_not_put_off_its_removal(world: Reading) -> None:
    job_id = died(world, FaultyStore(world.memory, "get", fail_at=5, error=DeathError))
    on_another_host(world, job_id)
    change(world.database, job_id, cancel_requested=True)
    world.sweep()
    (upload,) = uploads(world.database, job_id)
    assert (upload.state, upload.recheck_at) == ("aborting", None)


def test_a_job_goes_on_with_its_partial_file_under_another_host_name(database: Database, tmp_path: Path) -> None:
    world = Reading(database, tmp_path / "outgoing")
    job_id, rows = stopped_by_an_error(world)
    with_another_host_name(world, job_id)
    recording = RecordingStore(world.memory)
    world.run(job_id, recording)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert fetched(recording) == sorted(set(range(0, SIZE, PART)) - rows)
    assert job_row(database, job_id).restarts == 0
    assert [(upload.state, upload.endpoint) for upload in uploads(database, job_id)] == [
        ("completed", f"file://{gethostname()}")
    ]
    assert (world.seen(), world.partials()) == (world.data, [])


def test_a_job_goes_on_with_its_partial_file_where_the_directory_has_another_path(world: Reading) -> None:
    """Another pod mounts the same volume elsewhere, and a symbolic link leads there."""
    job_id, rows = stopped_by_an_error(world)
    with_another_host_name(world, job_id)
    moved = world.file.parent.with_name("mounted elsewhere")
    world.file.parent.rename(moved)
    world.file.parent.symlink_to(moved)
    recording = RecordingStore(world.memory)
    world.run(job_id, recording)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert fetched(recording) == sorted(set(range(0, SIZE, PART)) - rows)
    (upload,) = uploads(world.database, job_id)
    assert (upload.state, upload.bucket, upload.key) == ("completed", str(moved), str(moved / world.file.name))
    assert (world.seen(), world.partials()) == (world.data, [])


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_file_that_was_published_under_another_host_name_is_not_fetched_again(
    overwrite: bool, world: Reading
) -> None:
    if not overwrite:
        world.file.unlink()
    job_id = dead_after_the_rename(world, overwrite=overwrite)
    with_another_host_name(world, job_id)
    recording = RecordingStore(world.memory)
    world.run(job_id, recording)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert fetched(recording) == []
    assert (world.seen(), world.partials()) == (world.data, [])


def test_a_symbolic_link_of_that_name_is_removed_and_not_followed(world: Reading, tmp_path: Path) -> None:
    job_id, _ = stopped_by_an_error(world)
    with_another_host_name(world, job_id)
    (partial,) = world.partials()
    (world.file.parent / partial).rename(tmp_path / "victim")
    (world.file.parent / partial).symlink_to(tmp_path / "victim")
    victim = (tmp_path / "victim").read_bytes()
    world.run(job_id)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert (world.seen(), world.partials()) == (world.data, [])
    assert (tmp_path / "victim").read_bytes() == victim


def test_a_job_that_was_begun_on_another_host_starts_over_here(database: Database, tmp_path: Path) -> None:
    world = Reading(database, tmp_path / "outgoing")
    job_id, _ = stopped_by_an_error(world)
    on_another_host(world, job_id)
    recording = RecordingStore(world.memory)
    world.run(job_id, recording)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert fetched(recording) == list(range(0, SIZE, PART))
    row = job_row(database, job_id)
    assert (row.restarts, row.bytes_done, row.size) == (1, SIZE, SIZE)
    assert [(upload.state, upload.endpoint) for upload in uploads(database, job_id)] == [
        ("aborting", "file://elsewhere"),
        ("completed", f"file://{gethostname()}"),
    ]
    assert (world.seen(), world.partials()) == (world.data, [])


def test_a_job_that_another_host_was_publishing_starts_over_here(world: Reading) -> None:
    job_id = dead_before_the_rename(world)
    on_another_host(world, job_id)
    world.run(job_id)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert job_row(world.database, job_id).restarts == 1
    assert world.seen() == world.data


def test_a_job_that_goes_from_host_to_host_ends_one_day(world: Reading) -> None:
    job_id, _ = stopped_by_an_error(world)
    on_another_host(world, job_id)
    world.run(job_id, retry={"max_restarts": 0})
    assert has_ended(world, job_id, JobState.FAILED, "too_many_restarts")
    assert world.seen() == OLD


def test_a_partial_file_is_as_private_as_the_file_that_it_will_replace(world: Reading) -> None:
    world.file.chmod(0o600)
    job_id, _ = stopped_by_an_error(world)
    assert (world.file.parent / world.partials()[0]).stat().st_mode & 0o777 == 0o600
    world.run(job_id)
    assert world.file.stat().st_mode & 0o777 == 0o600
    assert world.seen() == world.data


@pytest.fixture
def plain_world(sqlite_database: Database, tmp_path: Path) -> World:
    return World(sqlite_database, tmp_path)


def test_a_file_that_is_published_is_success_even_if_its_directory_is_gone(plain_world: World, tmp_path: Path) -> None:
    directory = tmp_path / "out"
    for fail_at in range(1, 100):
        directory.mkdir()
        plain_world.memory.put(f"videos/{fail_at}", plain_world.data)  # the dead hold their paths
        job_id = plain_world.ask("read_stream", path=f"/videos/{fail_at}", dest=(directory / "x").as_uri())
        mortal = FusedDatabase(str(plain_world.database.engine.url), Fuse(fail_at, "before"))
        try:
            with pytest.raises(DeathError), plain_world.worker(database=mortal) as runtime:
                run_job(runtime, job_id)
        finally:
            mortal.close()
        published = job_row(plain_world.database, job_id).phase == "verifying"
        for left in directory.iterdir():  # whoever waited for the file has taken it
            left.unlink()
        directory.rmdir()
        if published:
            expire_lease(plain_world.database, job_id)
            assert isinstance(plain_world.run(job_id), Finished)
            assert job_row(plain_world.database, job_id).state == "succeeded"
            return
    pytest.fail("it was never published")
