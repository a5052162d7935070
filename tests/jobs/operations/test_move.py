"""move as a job: copied, looked at, and only then deleted where it was; at no moment is it nowhere."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blobferry.checks.arguments import MARK_NAME
from blobferry.contract import JobState
from models import Database
from tests.doubles import (
    DeathError,
    FaultyStore,
    HookedStore,
    LaggingStore,
    RecordingStore,
    WrappedStore,
    blob,
    tiny_store,
    unfinished,
)
from tests.jobs.job_world import (
    OLD,
    PART,
    QUICK,
    World,
    due,
    has_ended,
    heartbeat_gives_up,
    requesting,
)
from tests.models.rows import (
    ago,
    attempts,
    change,
    claim,
    expire_lease,
    job_row,
    outcomes,
    part_rows,
    take_away,
    uploads,
)
from worker import drain
from worker.driver import Driver
from worker.errors import PermissionDeniedError, StoreUnavailableError
from worker.jobs.mark import mark_of
from worker.jobs.outcome import Cancelled, Finished, NotClaimed, Rescheduled
from worker.jobs.runner import run_job
from worker.maintenance.caretaker import Caretaker
from worker.stores.blob_values import BlobOptions, DeleteFailure
from worker.stores.memory.memory_store import MemoryStore
from worker.transfer.upload.server_copy import Copying

FROM, TO = "incoming/7.mp4", "videos/7.mp4"
SOURCE, DEST = "/incoming/7.mp4", "/videos/7.mp4"
SMALL, LARGE = 7, 35
PUBLISHING = ("put", "copy", "complete_upload")
CARRIED = BlobOptions(
    content_type="video/mp4", metadata={"title": "seven"}, tags={"team": "blue"}, headers={"Cache-Control": "no-store"}
)


class Moving(World):
    """A world whose data lie at the source's path."""

    def __init__(self, database: Database, directory: Path, size: int = LARGE) -> None:
        super().__init__(database, directory, size)
        self.memory.put(FROM, self.data, options=CARRIED)

    def move(self, **arguments: Any) -> str:
        return self.ask("move", **{"source_path": SOURCE, "dest_path": DEST, **arguments})

    def seen(self) -> tuple[bytes | None, bytes | None]:
        """What readers get at the source and at the destination."""
        return blob(self.memory, FROM), blob(self.memory, TO)


@pytest.fixture
def world(sqlite_database: Database, tmp_path: Path) -> Moving:
    return Moving(sqlite_database, tmp_path)


@pytest.fixture
def small(sqlite_database: Database, tmp_path: Path) -> Moving:
    """A world whose blob is one copy."""
    return Moving(sqlite_database, tmp_path, SMALL)


@pytest.fixture(params=[SMALL, LARGE], ids=["one copy", "copied in parts"])
def either(request: pytest.FixtureRequest, sqlite_database: Database, tmp_path: Path) -> Moving:
    return Moving(sqlite_database, tmp_path, request.param)


@pytest.fixture
def draining() -> Iterator[None]:
    """The worker is told to stop, and another one is started afterwards."""
    yield
    drain._flag[0] = 0


def died(world: World, job_id: str, store: Any) -> None:
    """A run whose worker dies, and whose lease runs out."""
    with pytest.raises(DeathError):
        world.run(job_id, store)
    expire_lease(world.database, job_id)


def at(verb: str, action: Callable[[], object], *verbs: str) -> Callable[[str], None]:
    """Does it at the first call of one of the verbs."""
    done: list[object] = []

    def hook(called: str) -> None:
        if called in (verb, *verbs) and not done:
            done.append(called)
            action()

    return hook


# --- it works --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, PART, LARGE])
def test_a_job_moves_its_blob_without_fetching_or_sending_a_byte(size: int, database: Database, tmp_path: Path) -> None:
    world = Moving(database, tmp_path, size)
    job_id, recording = world.move(), RecordingStore(world.memory)
    outcome = world.run(job_id, recording)
    assert isinstance(outcome, Finished)
    assert outcome.error is None
    assert world.seen() == (None, world.data)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    row = job_row(database, job_id)
    head = world.memory.head(TO)
    assert outcome.result == row.result == {"path": DEST, "size": size, "etag": head.etag, "version_id": None}
    assert (row.path, row.source, row.size, row.bytes_done, row.bytes_sent) == (DEST, SOURCE, size, size, 0)
    assert [(attempt.outcome, attempt.bytes_sent) for attempt in attempts(database, job_id)] == [("succeeded", 0)]
    assert recording.named("get") == []
    assert sum(len(call.data or b"") for call in recording.calls) == 0
    (upload,) = uploads(database, job_id)
    assert (upload.state, upload.key, upload.storage) == ("completed", TO, "default")
    assert unfinished(world.memory) == []


def test_the_rows_of_copied_parts_say_which_bytes_they_are(world: Moving) -> None:
    job_id = world.move()
    world.run(job_id)
    (upload,) = uploads(world.database, job_id)
    assert (upload.size, upload.head, upload.head_parts) == (35, 35, 3)
    rows = [(row.part_number, row.offset, row.size) for row in part_rows(world.database, upload.id)]
    assert rows == [(1, 0, 11), (2, 11, 12), (3, 23, 12)]


@pytest.mark.parametrize("size", [0, SMALL, LARGE])
def test_a_move_to_another_storage_streams_and_the_ledger_names_that_storage(
    size: int, database: Database, tmp_path: Path
) -> None:
    world = Moving(database, tmp_path, size)
    job_id = world.move(dest_storage="cold")
    recording, cold = RecordingStore(world.memory), RecordingStore(world.cold)
    assert isinstance(world.run(job_id, recording, cold=cold), Finished)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert world.seen() == (None, None)
    assert blob(world.cold, TO) == world.data
    row = job_row(database, job_id)
    assert row.result == {"path": DEST, "size": size, "etag": world.cold.head(TO).etag, "version_id": None}
    assert (row.storage, row.size, row.bytes_done, row.bytes_sent) == ("default", size, size, size)
    (upload,) = uploads(database, job_id)
    assert (upload.state, upload.storage, upload.bucket, upload.key) == ("completed", "cold", "cold", TO)
    assert {call.verb for call in recording.calls} <= {"head", "options_of", "get", "delete_batch"}
    assert (unfinished(world.memory), unfinished(world.cold)) == ([], [])


@pytest.mark.parametrize("size", [0, SMALL, LARGE])
@pytest.mark.parametrize("dest_storage", [None, "cold"])
def test_all_that_the_blob_carries_comes_along_with_the_mark_beside_it(
    dest_storage: str | None, size: int, sqlite_database: Database, tmp_path: Path
) -> None:
    world = Moving(sqlite_database, tmp_path, size)
    job_id = world.move(dest_storage=dest_storage)
    world.run(job_id)
    there = (world.cold if dest_storage else world.memory).options_of(TO)
    assert there == replace(CARRIED, metadata={"title": "seven", MARK_NAME: mark_of(job_id)})


def test_storage_class_and_encryption_stay_in_their_own_storage(sqlite_database: Database, tmp_path: Path) -> None:
    world = Moving(sqlite_database, tmp_path)
    world.memory.put(FROM, world.data, options=BlobOptions(storage_class="GLACIER_IR", encryption="AES256"))
    first, second = world.move(dest_path="/near"), None
    world.run(first)
    near = world.memory.options_of("near")
    assert (near.storage_class, near.encryption) == ("GLACIER_IR", "AES256")
    second = world.move(source_path="/near", dest_path="/far", dest_storage="cold")
    world.run(second)
    far = world.cold.options_of("far")
    assert (far.storage_class, far.encryption) == (None, None)
    assert far.metadata == {MARK_NAME: mark_of(second)}


def test_siblings_and_children_of_both_paths_stay(either: Moving) -> None:
    others = [key + rest for key in (FROM, TO) for rest in ("/x", "2", "-1")]
    for key in others:
        either.memory.put(key, b"stays")
    either.run(either.move())
    assert [entry.key for entry in either.memory.list_page("").entries] == sorted([TO, *others])


# --- onto itself -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, SMALL, LARGE])
@pytest.mark.parametrize("dest_storage", [None, "cold"])
def test_a_blob_that_is_moved_onto_itself_is_kept_also_by_another_name_of_the_bucket(
    dest_storage: str | None, size: int, sqlite_database: Database, tmp_path: Path
) -> None:
    world = Moving(sqlite_database, tmp_path, size)
    before = world.memory.head(FROM)
    job_id, recording = world.move(dest_path=SOURCE, dest_storage=dest_storage), RecordingStore(world.memory)
    outcome = world.run(job_id, recording, cold=recording)
    assert isinstance(outcome, Finished)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert world.memory.head(FROM) == before
    assert {call.verb for call in recording.calls} == {"head"}
    row = job_row(world.database, job_id)
    assert row.result == {"path": SOURCE, "size": size, "etag": before.etag, "version_id": None}
    assert uploads(world.database, job_id) == []


@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("size", [0, SMALL, LARGE])
def test_a_bucket_that_nobody_recognizes_behind_another_endpoint_keeps_its_blob(
    size: int, dies: bool, sqlite_database: Database, tmp_path: Path
) -> None:
    """The mark of the copy tells that it is what lies at the source."""
    world = Moving(sqlite_database, tmp_path, size)
    alias = WrappedStore(world.memory)
    alias.endpoint = "http://alias:9000"
    job_id = world.move(dest_path=SOURCE, dest_storage="cold")
    if dies:
        mortal = FaultyStore(alias, "put", "complete_upload", when="after", error=DeathError)
        mortal.endpoint = alias.endpoint
        with pytest.raises(DeathError):
            world.run(job_id, cold=mortal)
        expire_lease(world.database, job_id)
    world.run(job_id, cold=alias)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert blob(world.memory, FROM) == world.data


def test_nothing_cannot_be_moved_onto_itself(world: Moving) -> None:
    job_id = world.move(source_path="/nothing", dest_path="/nothing")
    assert isinstance(world.run(job_id), Finished)
    assert has_ended(world, job_id, JobState.FAILED, "path_not_found")


def test_a_blob_that_vanishes_while_it_is_moved_onto_itself_is_missed(small: Moving) -> None:
    job_id = small.move(dest_path=SOURCE)
    vanish = at("head", lambda: small.memory.delete_batch([FROM]))
    small.run(job_id, HookedStore(small.memory, after=vanish))
    assert has_ended(small, job_id, JobState.FAILED, "path_not_found")


def test_two_names_of_one_bucket_and_another_path_are_a_move(either: Moving) -> None:
    job_id = either.move(dest_storage="cold")
    either.run(job_id, cold=either.memory)
    assert has_ended(either, job_id, JobState.SUCCEEDED)
    assert either.seen() == (None, either.data)


# --- what cannot be moved --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dest_storage", [None, "cold"])
def test_a_missing_source_fails_the_job_with_nothing_written(dest_storage: str | None, world: Moving) -> None:
    world.memory.put(TO, OLD)
    world.memory.put("nothing/below", b"a directory cannot be moved")
    job_id = world.move(source_path="/nothing", dest_storage=dest_storage)
    recording, cold = RecordingStore(world.memory), RecordingStore(world.cold)
    outcome = world.run(job_id, recording, cold=cold)
    assert isinstance(outcome, Finished)
    assert has_ended(world, job_id, JobState.FAILED, "path_not_found")
    assert "/nothing" in str(job_row(world.database, job_id).error_message)
    assert {call.verb for call in (*recording.calls, *cold.calls)} <= {"head", "list_page"}
    assert blob(world.memory, TO) == OLD
    assert uploads(world.database, job_id) == []


def test_an_unknown_destination_storage_fails_the_job_and_is_named_with_nothing_done(world: Moving) -> None:
    job_id, recording = world.move(dest_storage="nowhere"), RecordingStore(world.memory)
    world.run(job_id, recording, retry={"max_attempts": 1})
    assert has_ended(world, job_id, JobState.FAILED, "configuration")
    message = str(job_row(world.database, job_id).error_message)
    assert "storages.nowhere" in message
    assert "cold, default" in message
    assert recording.calls == []
    assert uploads(world.database, job_id) == []


def test_a_blob_that_may_not_be_overwritten_fails_the_job_and_both_stay(either: Moving) -> None:
    either.memory.put(TO, OLD)
    job_id = either.move(overwrite=False)
    either.run(job_id)
    assert has_ended(either, job_id, JobState.FAILED, "blob_exists")
    assert either.seen() == (either.data, OLD)
    assert unfinished(either.memory) == []


def test_a_blob_that_appears_at_the_last_moment_is_not_overwritten(either: Moving) -> None:
    job_id = either.move(overwrite=False)
    appear = at("copy", lambda: either.memory.put(TO, OLD), "complete_upload")
    either.run(job_id, HookedStore(either.memory, before=appear))
    assert has_ended(either, job_id, JobState.FAILED, "blob_exists")
    assert either.seen() == (either.data, OLD)
    assert unfinished(either.memory) == []


# --- the source changes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dest_storage", [None, "cold"])
def test_a_source_that_changed_between_two_attempts_fails_the_job_and_both_stay(
    dest_storage: str | None, either: Moving
) -> None:
    store = either.cold if dest_storage else either.memory
    store.put(TO, OLD)
    job_id = either.move(dest_storage=dest_storage)
    failing = FaultyStore(store, "copy", "copy_part", "put", "upload_part", "complete_upload", fail_at=2, times=100)
    if len(either.data) == SMALL:  # its only call
        failing = FaultyStore(store, "copy", "put", error=lambda: ZeroDivisionError("a bug"))
    assert isinstance(either.run(job_id, **({"cold": failing} if dest_storage else {"store": failing})), Rescheduled)
    either.memory.put(FROM, either.data[::-1])
    due(either, job_id)
    outcome = either.run(job_id)
    assert isinstance(outcome, Finished)
    assert has_ended(either, job_id, JobState.FAILED, "source_changed")
    assert blob(either.memory, FROM) == either.data[::-1]
    assert blob(store, TO) == OLD
    assert unfinished(store) == []


def test_a_source_that_goes_between_two_attempts_fails_the_job_with_no_upload_left(world: Moving) -> None:
    world.memory.put(TO, OLD)
    job_id = world.move()
    assert isinstance(world.run(job_id, FaultyStore(world.memory, "copy_part", fail_at=2, times=100)), Rescheduled)
    world.memory.delete_batch([FROM])
    due(world, job_id)
    world.run(job_id)
    assert has_ended(world, job_id, JobState.FAILED, "path_not_found")
    assert world.seen() == (None, OLD)
    assert unfinished(world.memory) == []


def test_a_source_that_changes_while_it_is_copied_in_parts_fails_the_job(world: Moving) -> None:
    world.memory.put(TO, OLD)
    job_id = world.move()
    changing = HookedStore(world.memory, after=at("copy_part", lambda: world.memory.put(FROM, b"newer")))
    world.run(job_id, changing)
    assert has_ended(world, job_id, JobState.FAILED, "source_changed")
    assert world.seen() == (b"newer", OLD)
    assert unfinished(world.memory) == []


@pytest.mark.parametrize("moment", ["after the copy", "right before the delete"])
@pytest.mark.parametrize("dest_storage", [None, "cold"])
def test_a_source_that_changes_once_it_was_copied_fails_the_job_and_both_are_kept(
    dest_storage: str | None, moment: str, either: Moving
) -> None:
    job_id = either.move(dest_storage=dest_storage)
    change_source: Callable[[], object] = lambda: either.memory.put(FROM, b"newer")  # noqa: E731
    if moment == "after the copy":
        published = at("put", change_source, "copy", "complete_upload")
        hooked = HookedStore(either.cold if dest_storage else either.memory, after=published)
        either.run(job_id, None if dest_storage else hooked, cold=hooked if dest_storage else None)
    else:
        either.run(job_id, HookedStore(either.memory, before=at("delete_batch", change_source)))
    assert has_ended(either, job_id, JobState.FAILED, "source_changed")
    assert blob(either.memory, FROM) == b"newer"
    assert blob(either.cold if dest_storage else either.memory, TO) == either.data


# --- the destination changes -----------------------------------------------------------------------------------------


def test_a_destination_that_is_replaced_before_it_was_verified_keeps_the_source(either: Moving) -> None:
    job_id = either.move()
    theirs = b"x" * len(either.data)  # the size alone does not tell
    replaced = at("copy", lambda: either.memory.put(TO, theirs), "complete_upload")
    assert isinstance(either.run(job_id, HookedStore(either.memory, after=replaced)), Rescheduled)
    row = job_row(either.database, job_id)
    assert (row.state, row.phase) == ("verifying", "verifying")
    change(either.database, job_id, verify_until=ago(1), run_at=ago(1))
    recording = RecordingStore(either.memory)
    either.run(job_id, recording)
    assert has_ended(either, job_id, JobState.FAILED, "verification_failed")
    assert either.seen() == (either.data, theirs)
    assert {call.verb for call in recording.calls} == {"head"}


def test_a_destination_that_does_not_show_the_copy_yet_keeps_the_source_until_it_does(world: Moving) -> None:
    world.memory.put(TO, OLD)
    job_id, lagging = world.move(), LaggingStore(world.memory, looks=2)
    for _ in range(2):
        assert isinstance(world.run(job_id, lagging), Rescheduled)
        assert blob(world.memory, FROM) == world.data
        due(world, job_id)
    assert isinstance(world.run(job_id, lagging), Finished)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert world.seen() == (None, world.data)
    assert outcomes(world.database, job_id) == ["succeeded"]


def test_a_blob_of_somebody_else_at_the_last_moment_stays_and_so_does_the_source(either: Moving) -> None:
    either.memory.put(TO, OLD)
    job_id = either.move()
    appear = at("copy", lambda: either.memory.put(TO, b"theirs"), "complete_upload")
    either.run(job_id, HookedStore(either.memory, before=appear))
    assert has_ended(either, job_id, JobState.FAILED, "superseded")
    assert either.seen() == (either.data, b"theirs")
    assert unfinished(either.memory) == []


# --- found in the middle of publishing -------------------------------------------------------------------------------


def dead_publishing(world: Moving, when: Any, **arguments: Any) -> str:
    """A job whose worker died around the call that makes its copy visible."""
    job_id = world.move(**arguments)
    died(world, job_id, FaultyStore(world.memory, "copy", "complete_upload", when=when, error=DeathError))
    assert job_row(world.database, job_id).phase == "completing"
    return job_id


def test_a_copy_that_was_published_by_a_dead_worker_is_found_and_only_the_source_goes(either: Moving) -> None:
    job_id, recording = dead_publishing(either, "after"), RecordingStore(either.memory)
    either.run(job_id, recording)
    assert has_ended(either, job_id, JobState.SUCCEEDED)
    assert {call.verb for call in recording.calls} == {"head", "delete_batch"}
    assert either.seen() == (None, either.data)


def test_a_copy_that_was_not_published_is_published_with_nothing_copied_again(world: Moving) -> None:
    job_id, recording = dead_publishing(world, "before"), RecordingStore(world.memory)
    world.run(job_id, recording)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert recording.named("copy_part", "create_upload", "upload_part") == []
    assert world.seen() == (None, world.data)


def test_another_blob_at_the_destination_supersedes_a_dead_workers_copy(either: Moving) -> None:
    either.memory.put(TO, OLD)
    job_id = dead_publishing(either, "before")
    either.memory.put(TO, b"theirs")
    either.run(job_id)
    assert has_ended(either, job_id, JobState.FAILED, "superseded")
    assert either.seen() == (either.data, b"theirs")
    assert unfinished(either.memory) == []


def test_a_copy_that_may_have_come_and_gone_is_not_made_again_and_the_source_stays(world: Moving) -> None:
    job_id = dead_publishing(world, "after")
    world.memory.delete_batch([TO])
    world.run(job_id)
    assert has_ended(world, job_id, JobState.FAILED, "outcome_unknown")
    assert world.seen() == (world.data, None)


def test_a_source_that_goes_once_the_copy_is_published_is_no_error(either: Moving) -> None:
    """Whoever sees the copy may remove the source by hand."""
    job_id = dead_publishing(either, "after")
    either.memory.delete_batch([FROM])
    either.run(job_id)
    assert has_ended(either, job_id, JobState.SUCCEEDED)
    assert either.seen() == (None, either.data)


# --- deleting the source ---------------------------------------------------------------------------------------------


def test_the_row_says_that_the_source_is_going_before_it_goes(database: Database, tmp_path: Path) -> None:
    world, phases = Moving(database, tmp_path), list[str | None]()
    job_id = world.move()
    look = at("delete_batch", lambda: phases.append(job_row(database, job_id).phase))
    world.run(job_id, HookedStore(world.memory, before=look))
    assert phases == ["deleting_source"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_that_dies_around_the_delete_of_the_source_has_lost_nothing(
    when: Any, database: Database, tmp_path: Path
) -> None:
    world = Moving(database, tmp_path)
    job_id = world.move()
    died(world, job_id, FaultyStore(world.memory, "delete_batch", when=when, error=DeathError))
    assert job_row(database, job_id).phase == "deleting_source"
    recording = RecordingStore(world.memory)
    world.run(job_id, recording)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert {call.verb for call in recording.calls} == {"head"} | ({"delete_batch"} if when == "before" else set())
    assert world.seen() == (None, world.data)
    assert outcomes(database, job_id) == ["died", "succeeded"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_another_blob_that_came_to_the_sources_path_meanwhile_stays(when: Any, either: Moving) -> None:
    job_id = either.move()
    died(either, job_id, FaultyStore(either.memory, "delete_batch", when=when, error=DeathError))
    either.memory.put(FROM, b"tomorrow's")
    either.run(job_id)
    assert has_ended(either, job_id, JobState.FAILED, "source_changed")
    assert either.seen() == (b"tomorrow's", either.data)


def test_a_copy_that_vanishes_while_the_source_is_still_to_be_deleted_keeps_the_source(either: Moving) -> None:
    job_id = either.move()
    died(either, job_id, FaultyStore(either.memory, "delete_batch", error=DeathError))
    either.memory.delete_batch([TO])
    assert isinstance(either.run(job_id), Rescheduled)
    assert either.seen() == (either.data, None)
    change(either.database, job_id, verify_until=ago(1), run_at=ago(1))
    either.run(job_id)
    assert has_ended(either, job_id, JobState.FAILED, "verification_failed")
    assert either.seen() == (either.data, None)


class Stubborn(WrappedStore):
    """A store that deletes nothing, and says why."""

    def __init__(self, store: MemoryStore, code: str) -> None:
        super().__init__(store)
        self.code = code

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if name == "delete_batch":
            return [DeleteFailure(key, self.code, "no") for key in args[0]]
        return super()._do(name, args, keywords)


def test_a_source_that_must_not_be_deleted_fails_the_job_at_once_and_both_are_kept(world: Moving) -> None:
    job_id = world.move()
    world.run(job_id, Stubborn(world.memory, "AccessDenied"))
    assert has_ended(world, job_id, JobState.FAILED, "permission_denied")
    assert world.seen() == (world.data, world.data)


def test_a_source_that_cannot_be_deleted_now_is_deleted_by_a_later_run_with_nothing_copied(world: Moving) -> None:
    job_id = world.move()
    assert isinstance(world.run(job_id, Stubborn(world.memory, "SlowDown")), Rescheduled)
    row = job_row(world.database, job_id)
    assert (row.state, row.phase, row.error_code) == ("retrying", "deleting_source", "delete_incomplete")
    due(world, job_id)
    recording = RecordingStore(world.memory)
    world.run(job_id, recording)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert {call.verb for call in recording.calls} == {"head", "delete_batch"}
    assert world.seen() == (None, world.data)


# --- wishes, slices, drain -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dest_storage", [None, "cold"])
def test_a_cancel_before_the_point_of_no_return_leaves_both_places_as_they_were(
    dest_storage: str | None, world: Moving
) -> None:
    store = world.cold if dest_storage else world.memory
    store.put(TO, OLD)
    job_id = world.move(dest_storage=dest_storage)
    hooked = requesting(world, job_id, "upload_part" if dest_storage else "copy_part", store)
    stores = {"cold": hooked} if dest_storage else {"store": hooked}
    assert world.run(job_id, **stores, lease=QUICK) == Cancelled()
    assert has_ended(world, job_id, JobState.CANCELLED)
    assert (blob(world.memory, FROM), blob(store, TO)) == (world.data, OLD)
    assert unfinished(store) == []
    assert [upload.state for upload in uploads(world.database, job_id)] == ["gone"]


def test_a_cancel_before_a_single_copy_is_in_time(small: Moving) -> None:
    job_id = small.move()
    assert small.run(job_id, requesting(small, job_id, "options_of", is_noticed=False)) == Cancelled()
    assert has_ended(small, job_id, JobState.CANCELLED)
    assert small.seen() == (small.data, None)


@pytest.mark.parametrize("verb", ["copy", "delete_batch"])
def test_a_cancel_is_too_late_once_readers_may_see_the_copy(verb: str, either: Moving) -> None:
    job_id = either.move()
    verb = "complete_upload" if verb == "copy" and len(either.data) == LARGE else verb
    either.run(job_id, requesting(either, job_id, verb), lease=QUICK)
    assert has_ended(either, job_id, JobState.SUCCEEDED)
    assert either.seen() == (None, either.data)


def test_a_cancel_between_two_runs_of_a_move_that_is_deleting_its_source_is_too_late(world: Moving) -> None:
    job_id = world.move()
    died(world, job_id, FaultyStore(world.memory, "delete_batch", error=DeathError))
    change(world.database, job_id, cancel_requested=True, pause_requested=True)
    world.run(job_id)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert world.seen() == (None, world.data)


def copied(*stores: RecordingStore) -> list[int]:
    """The numbers of the parts that were copied or sent."""
    return sorted(call.args[2] for store in stores for call in store.named("copy_part", "upload_part"))


@pytest.mark.usefixtures("draining")
@pytest.mark.parametrize("dest_storage", [None, "cold"])
@pytest.mark.parametrize("why", ["pause", "drain", "slice"])
def test_a_move_that_is_handed_over_in_the_middle_goes_on_without_copying_again(
    why: str, dest_storage: str | None, sqlite_database: Database, tmp_path: Path
) -> None:
    world = Moving(sqlite_database, tmp_path, 95)
    store = world.cold if dest_storage else world.memory
    job_id, verb = world.move(dest_storage=dest_storage), "upload_part" if dest_storage else "copy_part"
    hooked = {
        "pause": lambda: requesting(world, job_id, verb, store, pause_requested=True),
        "drain": lambda: HookedStore(store, after=at(verb, drain.start)),
        "slice": lambda: HookedStore(store, after=lambda called: time.sleep(0.06) if called == verb else None),
    }[why]()
    first, second = RecordingStore(hooked), RecordingStore(store)
    name = "cold" if dest_storage else "store"
    assert isinstance(world.run(job_id, **{name: first}, lease=QUICK, transfer={"slice_seconds": 0.05}), Rescheduled)
    row = job_row(world.database, job_id)
    assert (row.state, row.attempt, row.worker) == ("paused" if why == "pause" else "queued", 1, None)
    assert 0 < row.bytes_done < 95
    change(world.database, job_id, state="queued", pause_requested=False)
    drain._flag[0] = 0
    world.run(job_id, **{name: second})
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    parts = len(part_rows(world.database, uploads(world.database, job_id)[0].id))
    assert copied(first, second) == list(range(1, parts + 1))
    assert outcomes(world.database, job_id) == ["succeeded"]
    assert (blob(world.memory, FROM), blob(store, TO)) == (None, world.data)


# --- a lost lease ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["head", "create_upload", "copy_part", "complete_upload"])
def test_a_move_that_was_taken_over_writes_nothing_more_and_deletes_nothing(verb: str, world: Moving) -> None:
    job_id = world.move()
    rows: list[Any] = []

    def take_over() -> None:
        expire_lease(world.database, job_id)
        claim(world.database, job_id, worker="host:2")
        rows.append(job_row(world.database, job_id).as_row())

    recording = RecordingStore(HookedStore(world.memory, before=at(verb, take_over)))
    assert world.run(job_id, recording) == NotClaimed()
    assert job_row(world.database, job_id).as_row() == rows[0]
    assert recording.named("delete_batch") == []
    assert blob(world.memory, FROM) == world.data


@pytest.mark.parametrize("newer", [b"newer", None], ids=["other bytes", "the very same bytes"])
def test_a_move_that_was_taken_over_deletes_no_newer_source(newer: bytes | None, either: Moving) -> None:
    """It slept before the delete; meanwhile another worker ended the job, and somebody uploaded the next file.

    Its heartbeat knows: with the lease gone it must begin no call that changes what readers see.
    """
    job_id = either.move()
    newer = either.data if newer is None else newer
    others: list[Any] = []

    def sleep() -> None:
        if job_row(either.database, job_id).phase == "deleting_source" and not others:
            take_away(either.database, job_id)
            others.append(either.run(job_id))
            either.memory.put(FROM, newer)
            heartbeat_gives_up()

    asleep = HookedStore(either.memory, before=lambda verb: sleep() if verb == "head" else None)
    assert either.run(job_id, asleep, lease=QUICK) == NotClaimed()
    assert isinstance(others[0], Finished)
    assert has_ended(either, job_id, JobState.SUCCEEDED)
    assert either.seen() == (newer, either.data)


# --- retries ---------------------------------------------------------------------------------------------------------


def test_a_move_goes_on_with_its_copied_parts_after_an_error(database: Database, tmp_path: Path) -> None:
    world = Moving(database, tmp_path, 95)
    job_id = world.move()
    first = RecordingStore(FaultyStore(world.memory, "copy_part", fail_at=5, times=100))
    assert isinstance(world.run(job_id, first), Rescheduled)
    (upload,) = uploads(database, job_id)
    done = {part.part_number for part in part_rows(database, upload.id)}
    assert len(done) >= 4
    due(world, job_id)
    second = RecordingStore(world.memory)
    world.run(job_id, second)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert not done & set(copied(second))
    assert world.seen() == (None, world.data)
    assert outcomes(database, job_id) == ["retrying", "succeeded"]


@pytest.mark.parametrize("dest_storage", [None, "cold"])
def test_a_move_that_may_not_write_fails_at_once_and_leaves_nothing(dest_storage: str | None, world: Moving) -> None:
    store = world.cold if dest_storage else world.memory
    denied = FaultyStore(store, "complete_upload", times=9, error=lambda: PermissionDeniedError("no"))
    job_id = world.move(dest_storage=dest_storage)
    world.run(job_id, **{"cold" if dest_storage else "store": denied})
    assert has_ended(world, job_id, JobState.FAILED, "permission_denied")
    assert (blob(world.memory, FROM), blob(store, TO)) == (world.data, None)
    assert unfinished(store) == []


def test_a_destination_storage_that_was_moved_elsewhere_fails_the_job_and_its_upload_is_not_called_gone(
    world: Moving,
) -> None:
    job_id = world.move(dest_storage="cold")
    failing = FaultyStore(world.cold, "upload_part", fail_at=2, times=100)
    assert isinstance(world.run(job_id, cold=failing), Rescheduled)
    due(world, job_id)
    at_once: dict[str, Any] = {"retry": {"max_attempts": 1}, "retention": {"failed_upload_seconds": 0}}
    world.run(job_id, cold=tiny_store(bucket="elsewhere"), **at_once)
    assert has_ended(world, job_id, JobState.FAILED, "configuration")
    assert "storages.cold" in str(job_row(world.database, job_id).error_message)
    (upload,) = uploads(world.database, job_id)
    assert (upload.state, upload.storage, upload.bucket) == ("aborting", "cold", "cold")
    assert unfinished(world.cold) == [upload.upload_id]


def test_a_dead_workers_upload_in_the_destinations_storage_is_aborted_there_once_the_job_is_cancelled(
    database: Database, tmp_path: Path
) -> None:
    world = Moving(database, tmp_path)
    job_id = world.move(dest_storage="cold")
    with pytest.raises(DeathError):
        world.run(job_id, cold=FaultyStore(world.cold, "upload_part", fail_at=3, error=DeathError))
    expire_lease(database, job_id)
    change(database, job_id, cancel_requested=True)
    assert len(unfinished(world.cold)) == 1
    with world.worker() as runtime:
        Caretaker(runtime, lambda message: True).sweep()
    assert job_row(database, job_id).state == "cancelled"
    assert unfinished(world.cold) == []
    assert (blob(world.memory, FROM), blob(world.cold, TO)) == (world.data, None)


def test_a_copy_that_was_begun_before_the_destination_changed_is_begun_again(world: Moving) -> None:
    """A versioned bucket dates a blob by the opening of its upload: completing the old one would hide the new blob."""
    job_id = world.move()
    assert isinstance(world.run(job_id, FaultyStore(world.memory, "copy_part", fail_at=2, times=100)), Rescheduled)
    world.memory.put(TO, b"theirs")
    due(world, job_id)
    world.run(job_id)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert job_row(world.database, job_id).restarts == 1
    assert [upload.state for upload in uploads(world.database, job_id)] == ["aborting", "completed"]
    assert world.seen() == (None, world.data)


def test_parts_keep_their_ranges_though_the_settings_change_between_two_attempts(world: Moving) -> None:
    job_id = world.move()
    first, second = RecordingStore(FaultyStore(world.memory, "copy_part", fail_at=3)), RecordingStore(world.memory)
    assert isinstance(world.run(job_id, first), Rescheduled)
    due(world, job_id)
    world.copying = Copying(threshold=100, part_size=4, threads=1)
    world.run(job_id, second)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert copied(second) == [3]
    assert world.seen() == (None, world.data)


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_copy_of_a_dead_worker_that_takes_effect_between_two_looks_is_known_as_ours(
    overwrite: bool, small: Moving
) -> None:
    job_id = small.move(overwrite=overwrite)
    on_its_way: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    class SlowStore(WrappedStore):
        """Its worker dies while a copy is on its way."""

        def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
            if name in ("copy", "complete_upload"):
                on_its_way.append((name, args, keywords))
                raise DeathError
            return super()._do(name, args, keywords)

    def arrive(verb: str) -> None:
        if verb == "options_of" and on_its_way:
            name, args, keywords = on_its_way.pop()
            getattr(small.memory, name)(*args, **keywords)

    died(small, job_id, SlowStore(small.memory))
    small.run(job_id, HookedStore(small.memory, before=arrive))
    assert on_its_way == []
    assert has_ended(small, job_id, JobState.SUCCEEDED)
    assert small.seen() == (None, small.data)


@pytest.fixture
def plain_world(sqlite_database: Database, tmp_path: Path) -> World:
    return World(sqlite_database, tmp_path)


class Renamed(WrappedStore):
    """The same bucket under another name: another spelling of the endpoint, an alias, a symlink."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.bucket = "alias"


@pytest.mark.parametrize("size", [8, 95])
def test_a_move_between_two_names_of_one_bucket_keeps_the_only_blob(size: int, plain_world: World) -> None:
    plain_world.memory.put("a", plain_world.data[:size])
    job_id = plain_world.ask("move", source_path="/a", dest_path="/a", dest_storage="cold")
    with plain_world.worker(cold=Renamed(plain_world.memory)) as runtime:
        assert isinstance(run_job(runtime, job_id), Finished)
    assert job_row(plain_world.database, job_id).state == "succeeded"
    assert blob(plain_world.memory, "a") == plain_world.data[:size]


def test_a_plain_move_between_two_names_of_one_bucket_keeps_it_too(plain_world: World) -> None:
    plain_world.memory.put("a", plain_world.data)
    Driver(plain_world.memory).move("/a", "/a", dest=Driver(Renamed(plain_world.memory)))
    assert blob(plain_world.memory, "a") == plain_world.data


def test_a_run_that_has_lost_its_lease_does_not_delete_the_source_again(plain_world: World) -> None:
    """Its first delete timed out; meanwhile the next owner has finished, and the app has put the same file there."""
    plain_world.memory.put("src", b"x")
    job_id = plain_world.ask("move", source_path="/src", dest_path="/dst")

    class TimingOut(WrappedStore):
        calls = 0

        def _do(self, name: str, args: Any, keywords: Any) -> Any:
            if name == "delete_batch":
                self.calls += 1
                expire_lease(plain_world.database, job_id)
                while not isinstance(plain_world.run(job_id), Finished):  # a heartbeat may come between
                    expire_lease(plain_world.database, job_id)
                plain_world.memory.put("src", b"x")
                raise StoreUnavailableError("read timeout")
            return super()._do(name, args, keywords)

    store = TimingOut(plain_world.memory)
    plain_world.run(job_id, store, lease=QUICK)
    assert store.calls == 1
    assert job_row(plain_world.database, job_id).state == "succeeded"
    assert blob(plain_world.memory, "src") == b"x"
