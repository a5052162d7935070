"""read_stream as a job: a blob to a file of the worker's host, whole or not at all, whoever dies or takes over."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from socket import gethostname
from typing import Any

import pytest

from blobferry.contract import JobState
from models import Database
from models.queries import HOST_GONE
from tests.doubles import BytesReader, DeathError, FaultyStore, HookedStore, RecordingStore, WrappedStore, blob
from tests.jobs.job_world import AT_ONCE, KEY, OLD, PART, PATH, QUICK, FailingDatabase, World, at, on_each_database
from tests.models.rows import ago
from tests.transfer.download.test_destination import mounted, needs_mount
from worker import drain
from worker.jobs.outcome import NotClaimed
from worker.units import KIB

SIZE = 95


class Reading(World):
    """A world whose data lie at the path, with an old file where they are to go."""

    def __init__(self, database: Database, directory: Path, size: int = SIZE) -> None:
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


@pytest.fixture
def world(world_database: Database, tmp_path: Path, size: int) -> Reading:
    return Reading(world_database, tmp_path / "outgoing", size)


def fetched(*stores: RecordingStore) -> list[int]:
    """Where each range began that was fetched."""
    return sorted(call.args[1] for store in stores for call in store.named("get"))


def stopped_by_an_error(world: Reading) -> tuple[str, set[int]]:
    """A job whose first run ended in a transient error, and where the parts begin that have rows."""
    job_id = world.read()
    world.put_off(job_id, FaultyStore(world.memory, "get", fail_at=5, times=100))
    (upload,) = world.uploads(job_id)
    rows = {part.offset for part in world.part_rows(upload.id)}
    assert rows
    assert (world.seen(), len(world.partials())) == (OLD, 1)
    return job_id, rows


def stopped_by_a_death(world: Reading) -> str:
    """A job whose worker died in the middle, and which was then cancelled."""
    job_id = world.read()
    world.crash(job_id, world.dying("get", number=5))
    assert len(world.partials()) == 1
    world.change(job_id, cancel_requested=True)
    return job_id


# --- it works --------------------------------------------------------------------------------------------------------


@on_each_database
@pytest.mark.parametrize(("size", "offset"), [(0, 0), (1, 0), (PART, 0), (SIZE, 0), (SIZE, 13), (SIZE, 94)])
def test_a_job_brings_its_blob_to_the_file(size: int, offset: int, world: Reading) -> None:
    job_id, recording = world.read(offset=offset), RecordingStore(world.memory)
    outcome = world.succeed(job_id, recording)
    assert (world.seen(), world.partials()) == (world.data[offset:], [])
    row, count = world.job_row(job_id), size - offset
    expected = {"path": PATH, "dest": world.file.as_uri(), "size": count, "etag": world.memory.head(KEY).etag}
    assert outcome.result == row.result == expected
    assert (row.dest, row.size, row.bytes_done, row.bytes_sent) == (world.file.as_uri(), count, count, count)
    assert [(attempt.outcome, attempt.bytes_sent) for attempt in world.attempts(job_id)] == [("succeeded", count)]
    (upload,) = world.uploads(job_id)
    assert (upload.state, upload.key, upload.bucket) == ("completed", str(world.file), str(world.file.parent))
    assert upload.endpoint == f"file://{gethostname()}"
    assert (fetched(recording), blob(world.memory, KEY)) == (list(range(offset, size, PART)), world.data)


@pytest.mark.parametrize("offset", [SIZE, SIZE + 1, 10**9])
def test_an_offset_at_or_past_the_end_gives_an_empty_file(offset: int, world: Reading) -> None:
    job_id = world.read(offset=offset)
    world.succeed(job_id)
    assert (world.seen(), world.job_row(job_id).size) == (b"", 0)


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
        assert gethostname() in world.fail(job_id, "destination_not_allowed", recording, **AT_ONCE)
        assert (recording.calls, world.uploads(job_id)) == ([], [])
    assert os.listdir(tmp_path / "elsewhere") == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"storage": "nowhere"}, "configuration"),
        ({"path": "/nothing"}, "path_not_found"),
        ({"overwrite": False}, "blob_exists"),
    ],
    ids=["an unknown storage", "a missing blob", "a file that may not be overwritten"],
)
def test_what_cannot_be_read_fails_the_job_with_nothing_fetched(
    arguments: dict[str, Any], code: str, world: Reading
) -> None:
    recording = RecordingStore(world.memory)
    world.fail(world.read(**arguments), code, recording, **AT_ONCE)
    assert fetched(recording) == []
    assert (world.seen(), world.partials()) == (OLD, [])


def test_a_file_that_appears_meanwhile_is_not_overwritten(world: Reading) -> None:
    world.file.unlink()
    appear = at("get", number=10, do=lambda: world.file.write_bytes(b"theirs"))
    world.fail(world.read(overwrite=False), "blob_exists", HookedStore(world.memory, before=appear))
    assert (world.seen(), world.partials()) == (b"theirs", [])


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_file_that_is_not_there_yet_is_made(overwrite: bool, world: Reading) -> None:
    world.file.unlink()
    world.succeed(world.read(overwrite=overwrite))
    assert (world.seen(), world.partials()) == (world.data, [])


# --- errors, and going on --------------------------------------------------------------------------------------------


@on_each_database
def test_a_job_goes_on_with_the_parts_that_have_rows(world: Reading) -> None:
    job_id, rows = stopped_by_an_error(world)
    recording = RecordingStore(world.memory)
    world.succeed(job_id, recording)
    assert fetched(recording) == [offset for offset in range(0, SIZE, PART) if offset not in rows]
    assert (world.seen(), world.partials()) == (world.data, [])
    assert world.outcomes(job_id) == ["retrying", "succeeded"]
    assert world.job_row(job_id).bytes_sent == SIZE


@pytest.mark.parametrize("get", [4, 10])
def test_a_blob_that_is_replaced_while_it_is_read_never_makes_a_file_of_two_halves(get: int, world: Reading) -> None:
    change_it = at("get", number=get, do=lambda: world.memory.put(KEY, world.data[::-1]))
    world.fail(world.read(), "source_changed", HookedStore(world.memory, after=change_it))
    assert (world.seen(), world.partials()) == (OLD, [])


@pytest.mark.parametrize(("fate", "code"), [("replaced", "source_changed"), ("gone", "path_not_found")])
def test_a_blob_that_changed_between_two_attempts_fails_the_job_and_the_partial_file_goes(
    fate: str, code: str, world: Reading
) -> None:
    job_id, _ = stopped_by_an_error(world)
    world.memory.delete_batch([KEY])
    if fate == "replaced":
        world.memory.put(KEY, world.data[::-1])
    world.fail(job_id, code)
    assert (world.seen(), world.partials()) == (OLD, [])
    assert [upload.state for upload in world.uploads(job_id)] == ["gone"]


def test_a_job_that_ran_out_of_retries_keeps_its_partial_file_for_a_while(world: Reading) -> None:
    job_id, away = world.read(), FaultyStore(world.memory, "get", fail_at=5, times=100)
    world.fail(job_id, "source_unavailable", away, retry={"max_attempts": 1})
    world.sweep()
    assert len(world.partials()) == 1
    world.change_upload(world.uploads(job_id)[0].id, recheck_at=ago(1))
    world.sweep()
    assert (world.seen(), world.partials()) == (OLD, [])


def test_a_partial_file_that_somebody_removed_is_begun_again(world: Reading) -> None:
    job_id, _ = stopped_by_an_error(world)
    (world.file.parent / world.partials()[0]).unlink()
    world.succeed(job_id)
    assert world.job_row(job_id).restarts == 1
    assert (world.seen(), world.partials()) == (world.data, [])


def test_parts_keep_their_ranges_though_the_settings_change_between_two_attempts(world: Reading) -> None:
    job_id, rows = stopped_by_an_error(world)
    world.part_size, recording = 4, RecordingStore(world.memory)
    world.succeed(job_id, recording)
    assert not {start // PART * PART for start in fetched(recording)} & rows
    assert world.seen() == world.data


class DamagingStore(WrappedStore):
    """Gives the third part with a byte that is not the blob's."""

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if name == "get" and args[1] == 2 * PART:
            return BytesReader(b"\xff" * args[2], self.store.head(args[0]).etag)
        return super()._do(name, args, keywords)


def test_bytes_that_were_damaged_on_the_way_are_fetched_again(world: Reading) -> None:
    job_id = world.read()
    row = world.put_off(job_id, DamagingStore(world.memory))
    assert (row.state, row.error_code, row.restarts, row.bytes_done) == ("retrying", "checksum_mismatch", 1, 0)
    assert (world.seen(), world.partials()) == (OLD, [])
    world.succeed(job_id)
    assert (world.seen(), world.partials()) == (world.data, [])


def test_a_store_that_damages_bytes_for_ever_fails_the_job_in_the_end(world: Reading) -> None:
    job_id = world.read()
    for _ in range(2):
        world.put_off(job_id, DamagingStore(world.memory), retry={"max_restarts": 2})
    world.fail(job_id, "too_many_restarts", DamagingStore(world.memory), retry={"max_restarts": 2})
    assert (world.seen(), world.partials()) == (OLD, [])


@needs_mount
def test_a_full_disk_is_tried_again_later_and_keeps_the_rows_and_the_old_file(world: Reading, tmp_path: Path) -> None:
    root, world.part_size = tmp_path / "small", 16 * KIB
    data, sources = os.urandom(256 * KIB), {"file_roots": (root,)}
    world.memory.put(KEY, data)
    with mounted(root, "size=512k"):
        file, others = root / "7.mp4", root / "others"
        file.write_bytes(OLD)

        def fill_the_disk() -> None:
            with suppress(OSError), others.open("wb", buffering=0) as stream:
                while stream.write(bytes(4 * KIB)):
                    pass

        job_id, recording = world.read(dest=file.as_uri()), RecordingStore(world.memory)
        full = HookedStore(world.memory, before=at("get", number=5, do=fill_the_disk))
        row = world.put_off(job_id, full, sources=sources)
        assert (row.state, row.error_code) == ("retrying", "destination_full")
        assert "the disk is full" in row.error_message
        (upload,) = world.uploads(job_id)
        rows = {part.offset for part in world.part_rows(upload.id)}
        assert len(rows) >= 2
        assert (file.read_bytes(), blob(world.memory, KEY)) == (OLD, data)

        others.unlink()
        world.succeed(job_id, recording, sources=sources)
        assert not rows & set(fetched(recording))
        assert (file.read_bytes(), os.listdir(root)) == (data, ["7.mp4"])


@on_each_database
@pytest.mark.parametrize("is_noticed", [True, False], ids=["the heartbeat has seen it", "it has not"])
def test_a_job_that_is_cancelled_before_the_rename_leaves_no_partial_file(is_noticed: bool, world: Reading) -> None:
    job_id = world.read()
    wishing = world.requesting(job_id, "get", is_noticed=is_noticed)
    world.cancel(job_id, wishing, lease=QUICK if is_noticed else {})
    assert (world.seen(), world.partials()) == (OLD, [])
    assert [upload.state for upload in world.uploads(job_id)] == ["gone"]


# --- wishes, slices, drain, a lost lease -----------------------------------------------------------------------------


@on_each_database
@pytest.mark.parametrize("why", ["pause", "drain", "slice"])
def test_a_job_that_is_handed_over_keeps_its_partial_file_and_fetches_nothing_again(why: str, world: Reading) -> None:
    job_id = world.read()
    hooked = {
        "pause": lambda: world.requesting(job_id, "get", pause_requested=True),
        "drain": lambda: HookedStore(world.memory, before=at("get", do=drain.start)),
        "slice": lambda: HookedStore(world.memory, after=lambda verb: time.sleep(0.06) if verb == "get" else None),
    }[why]()
    first, second = RecordingStore(hooked), RecordingStore(world.memory)
    row = world.put_off(job_id, first, lease=QUICK, transfer={"slice_seconds": 0.05})
    assert (row.state, row.attempt) == ("paused" if why == "pause" else "queued", 1)
    assert 0 < row.bytes_done < SIZE
    world.sweep()
    assert (world.seen(), len(world.partials())) == (OLD, 1)
    world.change(job_id, state="queued", pause_requested=False)
    world.succeed(job_id, second)
    assert fetched(first, second) == list(range(0, SIZE, PART))
    assert (world.seen(), world.partials()) == (world.data, [])
    assert world.outcomes(job_id) == ["succeeded"]


@pytest.mark.parametrize("get", [1, 6, 10])
def test_a_run_that_was_taken_over_neither_publishes_nor_disturbs_the_other(get: int, world: Reading) -> None:
    job_id = world.read()

    has_passed = threading.Event()

    def take_over() -> None:
        world.take_away(job_id)
        world.succeed(job_id)
        world.file.write_bytes(b"what came next")
        has_passed.set()

    taken = at("get", number=get, do=take_over)
    assert world.run(job_id, HookedStore(world.memory, before=taken)) == NotClaimed()
    assert has_passed.wait(60)  # the run does not wait for a source once its lease is lost
    assert world.has_ended(job_id, JobState.SUCCEEDED)
    assert (world.seen(), world.partials()) == (b"what came next", [])
    assert world.outcomes(job_id) == ["died", "succeeded"]


# --- found in the middle of publishing -------------------------------------------------------------------------------


def dead_in(world: Reading, phase: str, **arguments: Any) -> str:
    """A job whose worker died as soon as its row said so."""
    job_id = world.read(**arguments)
    with closing(FailingDatabase(world.database, job_id, phase, DeathError, times=100)) as mortal:
        world.crash(job_id, database=mortal)
    return job_id


def dead_before_the_rename(world: Reading, **arguments: Any) -> str:
    job_id = dead_in(world, "completing", **arguments)
    assert len(world.partials()) == 1
    return job_id


def dead_after_the_rename(world: Reading, **arguments: Any) -> str:
    """The rows as they are then; the file is published, and nobody has written that down."""
    job_id = world.read(**arguments)
    world.run(job_id)
    world.change(job_id, state="retrying", phase="completing", finished_at=None, result=None, etag=None)
    world.change_upload(world.uploads(job_id)[0].id, state="completing")
    return job_id


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("dead", [dead_before_the_rename, dead_after_the_rename])
def test_a_file_that_a_dead_worker_had_begun_to_publish_is_published_once_with_nothing_fetched(
    dead: Callable[..., str], overwrite: bool, world: Reading
) -> None:
    if not overwrite:
        world.file.unlink()
    job_id, recording = dead(world, overwrite=overwrite), RecordingStore(world.memory)
    world.memory.delete_batch([KEY])  # it is not needed any more
    world.change(job_id, cancel_requested=True)  # which is too late
    world.succeed(job_id, recording)
    assert recording.calls == []
    assert (world.seen(), world.partials()) == (world.data, [])
    row = world.job_row(job_id)
    assert (row.result["size"], row.bytes_done) == (SIZE, SIZE)


@pytest.mark.parametrize("dead", [dead_before_the_rename, dead_after_the_rename])
def test_a_file_of_somebody_else_supersedes_a_dead_workers(dead: Callable[..., str], world: Reading) -> None:
    job_id = dead(world)
    world.file.unlink()
    world.file.write_bytes(b"theirs")
    world.fail(job_id, "superseded")
    assert (world.seen(), world.partials()) == (b"theirs", [])


def test_a_file_that_was_taken_with_its_directory_once_it_was_published_is_a_success(world: Reading) -> None:
    job_id = dead_in(world, "verifying")
    assert world.seen() == world.data
    world.file.unlink()
    world.file.parent.rmdir()
    result = world.succeed(job_id).result
    assert result is not None
    assert (result["size"], result["dest"]) == (SIZE, world.file.as_uri())


def test_a_file_that_may_have_come_and_gone_is_not_fetched_again(world: Reading) -> None:
    job_id, recording = dead_after_the_rename(world), RecordingStore(world.memory)
    world.file.unlink()
    world.fail(job_id, "outcome_unknown", recording)
    assert (fetched(recording), world.seen()) == ([], None)


# --- partial files of the dead, and of other hosts -------------------------------------------------------------------


@on_each_database
def test_a_cancelled_job_of_a_dead_worker_is_cleared_away_by_the_caretaker_of_its_host(world: Reading) -> None:
    job_id = stopped_by_a_death(world)
    world.sweep()
    assert world.job_row(job_id).state == "cancelled"
    assert (world.seen(), world.partials()) == (OLD, [])
    assert [upload.state for upload in world.uploads(job_id)] == ["gone"]


def on_another_host(world: Reading, job_id: str) -> None:
    """The job's partial file was begun on a host whose disk is not seen here."""
    (upload,) = world.uploads(job_id)
    world.change_upload(upload.id, endpoint="file://elsewhere")
    disk = world.file.parent.parent / "disk of elsewhere"
    disk.mkdir(exist_ok=True)
    for name in world.partials():
        (world.file.parent / name).rename(disk / name)


def with_another_host_name(world: Reading, job_id: str) -> None:
    """The host has been given another name, or another host shares the directory."""
    (upload,) = world.uploads(job_id)
    world.change_upload(upload.id, endpoint="file://name-before")


def test_a_partial_file_of_another_host_is_left_alone_and_forgotten_after_some_days(world: Reading) -> None:
    job_id = stopped_by_a_death(world)
    on_another_host(world, job_id)
    (upload,) = world.uploads(job_id)
    world.sweep()
    assert world.job_row(job_id).state == "cancelled"
    assert [upload.state for upload in world.uploads(job_id)] == ["aborting"]
    world.change_upload(upload.id, updated_at=ago(HOST_GONE - 60))
    world.sweep()
    assert [upload.state for upload in world.uploads(job_id)] == ["aborting"]
    world.change_upload(upload.id, updated_at=ago(HOST_GONE + 60))
    world.sweep()
    assert [upload.state for upload in world.uploads(job_id)] == ["gone"]


@pytest.mark.parametrize("silent", [0, HOST_GONE + 60], ids=["at once", "after some days"])
def test_whoever_sees_a_partial_file_that_nobody_needs_removes_it(silent: float, world: Reading) -> None:
    job_id = stopped_by_a_death(world)
    with_another_host_name(world, job_id)
    if silent:
        world.change_upload(world.uploads(job_id)[0].id, state="aborting", updated_at=ago(silent))
    world.sweep()
    world.sweep()
    assert world.job_row(job_id).state == "cancelled"
    assert [upload.state for upload in world.uploads(job_id)] == ["gone"]
    assert (world.seen(), world.partials()) == (OLD, [])


def test_a_host_that_does_not_see_a_partial_file_does_not_put_off_its_removal(world: Reading) -> None:
    job_id = stopped_by_a_death(world)
    on_another_host(world, job_id)
    world.sweep()
    (upload,) = world.uploads(job_id)
    assert (upload.state, upload.recheck_at) == ("aborting", None)


def test_a_job_goes_on_with_its_partial_file_under_another_host_name(world: Reading) -> None:
    job_id, rows = stopped_by_an_error(world)
    with_another_host_name(world, job_id)
    recording = RecordingStore(world.memory)
    world.succeed(job_id, recording)
    assert fetched(recording) == sorted(set(range(0, SIZE, PART)) - rows)
    assert world.job_row(job_id).restarts == 0
    assert [(upload.state, upload.endpoint) for upload in world.uploads(job_id)] == [
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
    world.succeed(job_id, recording)
    assert fetched(recording) == sorted(set(range(0, SIZE, PART)) - rows)
    (upload,) = world.uploads(job_id)
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
    world.succeed(job_id, recording)
    assert fetched(recording) == []
    assert (world.seen(), world.partials()) == (world.data, [])


def test_a_symbolic_link_of_that_name_is_removed_and_not_followed(world: Reading, tmp_path: Path) -> None:
    job_id, _ = stopped_by_an_error(world)
    with_another_host_name(world, job_id)
    (partial,) = world.partials()
    (world.file.parent / partial).rename(tmp_path / "victim")
    (world.file.parent / partial).symlink_to(tmp_path / "victim")
    victim = (tmp_path / "victim").read_bytes()
    world.succeed(job_id)
    assert (world.seen(), world.partials()) == (world.data, [])
    assert (tmp_path / "victim").read_bytes() == victim


@on_each_database
@pytest.mark.parametrize(
    "begun", [lambda world: stopped_by_an_error(world)[0], dead_before_the_rename], ids=["begun", "being published"]
)
def test_a_job_that_was_begun_on_another_host_starts_over_here(begun: Callable[..., str], world: Reading) -> None:
    job_id = begun(world)
    on_another_host(world, job_id)
    recording = RecordingStore(world.memory)
    world.succeed(job_id, recording)
    assert fetched(recording) == list(range(0, SIZE, PART))
    row = world.job_row(job_id)
    assert (row.restarts, row.bytes_done, row.size) == (1, SIZE, SIZE)
    assert [(upload.state, upload.endpoint) for upload in world.uploads(job_id)] == [
        ("aborting", "file://elsewhere"),
        ("completed", f"file://{gethostname()}"),
    ]
    assert (world.seen(), world.partials()) == (world.data, [])


@on_each_database
def test_a_job_that_goes_from_host_to_host_ends_one_day(world: Reading) -> None:
    job_id, _ = stopped_by_an_error(world)
    on_another_host(world, job_id)
    world.fail(job_id, "too_many_restarts", retry={"max_restarts": 0})
    assert world.seen() == OLD


def test_a_partial_file_is_as_private_as_the_file_that_it_will_replace(world: Reading) -> None:
    world.file.chmod(0o600)
    job_id, _ = stopped_by_an_error(world)
    assert (world.file.parent / world.partials()[0]).stat().st_mode & 0o777 == 0o600
    world.run(job_id)
    assert world.file.stat().st_mode & 0o777 == 0o600
    assert world.seen() == world.data


@on_each_database
def test_a_file_in_a_directory_with_a_long_path_is_written(world_database: Database, tmp_path: Path) -> None:
    """The column of its upload's row has 255 characters."""
    directory = tmp_path / ("d" * 200) / ("e" * 200)
    directory.mkdir(parents=True)
    world = Reading(world_database, directory)
    job_id, _ = stopped_by_an_error(world)
    world.succeed(job_id)
    assert (world.seen(), world.partials()) == (world.data, [])
