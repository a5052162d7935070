"""move as a job: copied, looked at, and only then deleted where it was; at no moment is it nowhere."""

import time
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
    When,
    WrappedStore,
    blob,
    unfinished,
)
from tests.faults import StubbornStore
from tests.jobs.job_world import (
    AT_ONCE,
    CARRIED,
    OLD,
    PART,
    QUICK,
    SlowStore,
    World,
    at,
    brought,
    heartbeat_gives_up,
    on_each_database,
)
from tests.models.rows import ago
from worker import drain
from worker.driver import Driver
from worker.errors import PermissionDeniedError, StoreUnavailableError
from worker.jobs.mark import mark_of
from worker.jobs.outcome import Finished, NotClaimed
from worker.stores.blob_values import BlobOptions
from worker.stores.store import Store
from worker.transfer.upload.server_copy import Copying

FROM, TO = "incoming/7.mp4", "videos/7.mp4"
SOURCE, DEST = "/incoming/7.mp4", "/videos/7.mp4"
SMALL, LARGE = 7, 35


class Moving(World):
    """A world whose data lie at the source's path."""

    def __init__(self, database: Database, directory: Path, size: int = LARGE) -> None:
        super().__init__(database, directory, size)
        self.memory.put(FROM, self.data, options=CARRIED)

    def move(self, **arguments: Any) -> str:
        return self.ask("move", **{"source_path": SOURCE, "dest_path": DEST, **arguments})

    def store(self, storage: str | None) -> Store:
        """The store of a ``dest_storage``."""
        return self.cold if storage else self.memory

    def seen(self, storage: str | None = None) -> tuple[bytes | None, bytes | None]:
        """What readers get at the source and at the destination."""
        return blob(self.memory, FROM), blob(self.store(storage), TO)


@pytest.fixture
def size() -> int:
    return LARGE


@pytest.fixture
def world(world_database: Database, tmp_path: Path, size: int) -> Moving:
    return Moving(world_database, tmp_path, size)


@pytest.fixture
def small(sqlite_database: Database, tmp_path: Path) -> Moving:
    """A world whose blob is one copy."""
    return Moving(sqlite_database, tmp_path, SMALL)


@pytest.fixture(params=[SMALL, LARGE], ids=["one copy", "copied in parts"])
def either(request: pytest.FixtureRequest, sqlite_database: Database, tmp_path: Path) -> Moving:
    return Moving(sqlite_database, tmp_path, request.param)


def instead(storage: str | None, store: Store) -> dict[str, Any]:
    """Arguments of a run that has this store for that ``dest_storage``."""
    return {"cold" if storage else "store": store}


def dead_deleting(world: Moving, when: When = "before") -> str:
    """A job whose worker died around the delete of its source."""
    job_id = world.move()
    world.crash(job_id, world.dying("delete_batch", when=when))
    assert world.job_row(job_id).phase == "deleting_source"
    return job_id


# --- it works --------------------------------------------------------------------------------------------------------


@on_each_database
@pytest.mark.parametrize("size", [0, 1, PART, LARGE])
def test_a_job_moves_its_blob_without_fetching_or_sending_a_byte(size: int, world: Moving) -> None:
    job_id, recording = world.move(), RecordingStore(world.memory)
    outcome = world.succeed(job_id, recording)
    assert (world.seen(), unfinished(world.memory)) == ((None, world.data), [])
    row = world.job_row(job_id)
    head = world.memory.head(TO)
    assert outcome.result == row.result == {"path": DEST, "size": size, "etag": head.etag, "version_id": None}
    assert (row.path, row.source, row.size, row.bytes_done, row.bytes_sent) == (DEST, SOURCE, size, size, 0)
    assert [(attempt.outcome, attempt.bytes_sent) for attempt in world.attempts(job_id)] == [("succeeded", 0)]
    assert recording.named("get") == []
    assert sum(len(call.data or b"") for call in recording.calls) == 0
    (upload,) = world.uploads(job_id)
    assert (upload.state, upload.key, upload.storage) == ("completed", TO, "default")


def test_the_rows_of_copied_parts_say_which_bytes_they_are(world: Moving) -> None:
    job_id = world.move()
    world.run(job_id)
    (upload,) = world.uploads(job_id)
    assert (upload.size, upload.head, upload.head_parts) == (35, 35, 4)
    rows = [(row.part_number, row.offset, row.size) for row in world.part_rows(upload.id)]
    assert rows == [(1, 0, 10), (2, 10, 10), (3, 20, 10), (4, 30, 5)]


@on_each_database
@pytest.mark.parametrize("size", [0, SMALL, LARGE])
def test_a_move_to_another_storage_streams_and_the_ledger_names_that_storage(size: int, world: Moving) -> None:
    job_id = world.move(dest_storage="cold")
    recording, cold = RecordingStore(world.memory), RecordingStore(world.cold)
    world.succeed(job_id, recording, cold=cold)
    assert (blob(world.memory, TO), world.seen("cold")) == (None, (None, world.data))
    row = world.job_row(job_id)
    assert row.result == {"path": DEST, "size": size, "etag": world.cold.head(TO).etag, "version_id": None}
    assert (row.storage, row.size, row.bytes_done, row.bytes_sent) == ("default", size, size, size)
    (upload,) = world.uploads(job_id)
    assert (upload.state, upload.storage, upload.bucket, upload.key) == ("completed", "cold", "cold", TO)
    assert {call.verb for call in recording.calls} <= {"head", "options_of", "get", "delete_batch"}
    assert (unfinished(world.memory), unfinished(world.cold)) == ([], [])


@pytest.mark.parametrize("size", [0, SMALL, LARGE])
@pytest.mark.parametrize("dest_storage", [None, "cold"])
def test_all_that_the_blob_carries_comes_along_with_the_mark_beside_it(dest_storage: str | None, world: Moving) -> None:
    job_id = world.move(dest_storage=dest_storage)
    world.run(job_id)
    carried = replace(CARRIED, metadata={"title": "seven", MARK_NAME: mark_of(job_id)})
    assert world.store(dest_storage).options_of(TO) == carried


def test_storage_class_and_encryption_stay_in_their_own_storage(world: Moving) -> None:
    world.memory.put(FROM, world.data, options=BlobOptions(storage_class="GLACIER_IR", encryption="AES256"))
    world.run(world.move(dest_path="/near"))
    near = world.memory.options_of("near")
    assert (near.storage_class, near.encryption) == ("GLACIER_IR", "AES256")
    second = world.move(source_path="/near", dest_path="/far", dest_storage="cold")
    world.run(second)
    far = world.cold.options_of("far")
    assert (far.storage_class, far.encryption, far.metadata) == (None, None, {MARK_NAME: mark_of(second)})


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
    dest_storage: str | None, size: int, world: Moving
) -> None:
    before = world.memory.head(FROM)
    job_id, recording = world.move(dest_path=SOURCE, dest_storage=dest_storage), RecordingStore(world.memory)
    world.succeed(job_id, recording, cold=recording)
    assert world.memory.head(FROM) == before
    assert {call.verb for call in recording.calls} == {"head"}
    result = {"path": SOURCE, "size": size, "etag": before.etag, "version_id": None}
    assert (world.job_row(job_id).result, world.uploads(job_id)) == (result, [])


@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("size", [0, SMALL, LARGE])
@pytest.mark.parametrize("alias", ["endpoint", "bucket"])
def test_a_bucket_that_nobody_recognizes_by_another_name_keeps_its_blob(dies: bool, alias: str, world: Moving) -> None:
    """Another spelling of the endpoint, a symlink. The mark of the copy tells that it is what lies at the source."""
    job_id = world.move(dest_path=SOURCE, dest_storage="cold")
    if dies:
        world.crash(job_id, cold=renamed(world.dying("put", "complete_upload", when="after"), alias))
    world.succeed(job_id, cold=renamed(WrappedStore(world.memory), alias))
    assert blob(world.memory, FROM) == world.data


def renamed(store: WrappedStore, what: str) -> WrappedStore:
    setattr(store, what, "http://alias:9000" if what == "endpoint" else "alias")
    return store


@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("size", [0, SMALL, LARGE])
def test_a_bucket_that_nobody_recognizes_behind_another_endpoint_keeps_its_blob(dies: bool, world: Moving) -> None:
    """The mark of the copy tells that it is what lies at the source."""
    alias = WrappedStore(world.memory)
    alias.endpoint = "http://alias:9000"
    job_id = world.move(dest_path=SOURCE, dest_storage="cold")
    if dies:
        mortal = FaultyStore(alias, "put", "complete_upload", when="after", error=DeathError)
        mortal.endpoint = alias.endpoint
        world.crash(job_id, cold=mortal)
    world.succeed(job_id, cold=alias)
    assert blob(world.memory, FROM) == world.data


def test_a_blob_that_vanishes_while_it_is_moved_onto_itself_is_missed(small: Moving) -> None:
    vanish = at("head", do=lambda: small.memory.delete_batch([FROM]))
    small.fail(small.move(dest_path=SOURCE), "path_not_found", HookedStore(small.memory, after=vanish))


def test_two_names_of_one_bucket_and_another_path_are_a_move(either: Moving) -> None:
    either.succeed(either.move(dest_storage="cold"), cold=either.memory)
    assert either.seen() == (None, either.data)


# --- what cannot be moved --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{}, {"dest_storage": "cold"}, {"dest_path": "/nothing"}], ids=str)
def test_a_missing_source_fails_the_job_with_nothing_written(arguments: dict[str, str], world: Moving) -> None:
    world.memory.put(TO, OLD)
    world.memory.put("nothing/below", b"a directory cannot be moved")
    job_id = world.move(source_path="/nothing", **arguments)
    recording, cold = RecordingStore(world.memory), RecordingStore(world.cold)
    assert "/nothing" in world.fail(job_id, "path_not_found", recording, cold=cold)
    assert {call.verb for call in (*recording.calls, *cold.calls)} <= {"head", "list_page"}
    assert (blob(world.memory, TO), world.uploads(job_id)) == (OLD, [])


def test_an_unknown_destination_storage_fails_the_job_and_is_named_with_nothing_done(world: Moving) -> None:
    job_id, recording = world.move(dest_storage="nowhere"), RecordingStore(world.memory)
    message = world.fail(job_id, "configuration", recording, **AT_ONCE)
    assert "storages.nowhere" in message
    assert "cold, default" in message
    assert (recording.calls, world.uploads(job_id)) == ([], [])


@pytest.mark.parametrize("appears", ["before the run", "at the last moment"])
def test_a_blob_that_may_not_be_overwritten_fails_the_job_and_both_stay(appears: str, either: Moving) -> None:
    def appear() -> None:
        either.memory.put(TO, OLD)

    hooked = HookedStore(either.memory, before=at("copy", "complete_upload", do=appear))
    if appears == "before the run":
        appear()
    either.fail(either.move(overwrite=False), "blob_exists", hooked)
    assert (either.seen(), unfinished(either.memory)) == ((either.data, OLD), [])


# --- the source changes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dest_storage", [None, "cold"])
@pytest.mark.parametrize(("fate", "code"), [("replaced", "source_changed"), ("gone", "path_not_found")])
def test_a_source_that_changed_between_two_attempts_fails_the_job_and_both_stay(
    fate: str, code: str, dest_storage: str | None, either: Moving
) -> None:
    store, newer = either.store(dest_storage), either.data[::-1] if fate == "replaced" else None
    store.put(TO, OLD)
    job_id = either.move(dest_storage=dest_storage)
    failing = FaultyStore(store, "copy", "copy_part", "put", "upload_part", "complete_upload", fail_at=2, times=100)
    if len(either.data) == SMALL:  # its only call
        failing = FaultyStore(store, "copy", "put", error=lambda: ZeroDivisionError("a bug"))
    either.put_off(job_id, **instead(dest_storage, failing))
    either.memory.delete_batch([FROM])
    if newer:
        either.memory.put(FROM, newer)
    either.fail(job_id, code)
    assert (either.seen(dest_storage), unfinished(store)) == ((newer, OLD), [])


def test_a_source_that_changes_while_it_is_copied_in_parts_fails_the_job(world: Moving) -> None:
    world.memory.put(TO, OLD)
    changing = HookedStore(world.memory, after=at("copy_part", do=lambda: world.memory.put(FROM, b"newer")))
    world.fail(world.move(), "source_changed", changing)
    assert (world.seen(), unfinished(world.memory)) == ((b"newer", OLD), [])


@pytest.mark.parametrize("moment", ["after the copy", "right before the delete"])
@pytest.mark.parametrize("dest_storage", [None, "cold"])
def test_a_source_that_changes_once_it_was_copied_fails_the_job_and_both_are_kept(
    dest_storage: str | None, moment: str, either: Moving
) -> None:
    def change_it() -> None:
        either.memory.put(FROM, b"newer")

    stores: dict[str, Any] = {"store": HookedStore(either.memory, before=at("delete_batch", do=change_it))}
    if moment == "after the copy":
        published = at("put", "copy", "complete_upload", do=change_it)
        stores = instead(dest_storage, HookedStore(either.store(dest_storage), after=published))
    either.fail(either.move(dest_storage=dest_storage), "source_changed", **stores)
    assert either.seen(dest_storage) == (b"newer", either.data)


# --- the destination changes -----------------------------------------------------------------------------------------


def test_a_destination_that_is_replaced_before_it_was_verified_keeps_the_source(either: Moving) -> None:
    job_id, recording = either.move(), RecordingStore(either.memory)
    theirs = b"x" * len(either.data)  # the size alone does not tell
    replaced = at("copy", "complete_upload", do=lambda: either.memory.put(TO, theirs))
    row = either.put_off(job_id, HookedStore(either.memory, after=replaced))
    assert (row.state, row.phase) == ("verifying", "verifying")
    either.change(job_id, verify_until=ago(1))
    either.fail(job_id, "verification_failed", recording)
    assert (either.seen(), {call.verb for call in recording.calls}) == ((either.data, theirs), {"head"})


def test_a_destination_that_does_not_show_the_copy_yet_keeps_the_source_until_it_does(world: Moving) -> None:
    world.memory.put(TO, OLD)
    job_id, lagging = world.move(), LaggingStore(world.memory, looks=2)
    for _ in range(2):
        world.put_off(job_id, lagging)
        assert blob(world.memory, FROM) == world.data
    world.succeed(job_id, lagging)
    assert (world.seen(), world.outcomes(job_id)) == ((None, world.data), ["succeeded"])


def test_a_blob_of_somebody_else_at_the_last_moment_stays_and_so_does_the_source(either: Moving) -> None:
    either.memory.put(TO, OLD)
    appear = at("copy", "complete_upload", do=lambda: either.memory.put(TO, b"theirs"))
    either.fail(either.move(), "superseded", HookedStore(either.memory, before=appear))
    assert (either.seen(), unfinished(either.memory)) == ((either.data, b"theirs"), [])


# --- found in the middle of publishing -------------------------------------------------------------------------------


def dead_publishing(world: Moving, when: When) -> str:
    """A job whose worker died around the call that makes its copy visible."""
    job_id = world.move()
    world.crash(job_id, world.dying("copy", "complete_upload", when=when))
    assert world.job_row(job_id).phase == "completing"
    return job_id


def test_a_copy_that_was_published_by_a_dead_worker_is_found_and_only_the_source_goes(either: Moving) -> None:
    job_id, recording = dead_publishing(either, "after"), RecordingStore(either.memory)
    either.succeed(job_id, recording)
    assert {call.verb for call in recording.calls} == {"head", "delete_batch"}
    assert either.seen() == (None, either.data)


def test_a_copy_that_was_not_published_is_published_with_nothing_copied_again(world: Moving) -> None:
    job_id, recording = dead_publishing(world, "before"), RecordingStore(world.memory)
    world.succeed(job_id, recording)
    assert (recording.named("copy_part", "create_upload", "upload_part"), world.seen()) == ([], (None, world.data))


def test_another_blob_at_the_destination_supersedes_a_dead_workers_copy(either: Moving) -> None:
    either.memory.put(TO, OLD)
    job_id = dead_publishing(either, "before")
    either.memory.put(TO, b"theirs")
    either.fail(job_id, "superseded")
    assert (either.seen(), unfinished(either.memory)) == ((either.data, b"theirs"), [])


def test_a_copy_that_may_have_come_and_gone_is_not_made_again_and_the_source_stays(world: Moving) -> None:
    job_id = dead_publishing(world, "after")
    world.memory.delete_batch([TO])
    world.fail(job_id, "outcome_unknown")
    assert world.seen() == (world.data, None)


def test_a_source_that_goes_once_the_copy_is_published_is_no_error(either: Moving) -> None:
    """Whoever sees the copy may remove the source by hand."""
    job_id = dead_publishing(either, "after")
    either.memory.delete_batch([FROM])
    either.succeed(job_id)
    assert either.seen() == (None, either.data)


# --- deleting the source ---------------------------------------------------------------------------------------------


@on_each_database
def test_the_row_says_that_the_source_is_going_before_it_goes(world: Moving) -> None:
    job_id, phases = world.move(), list[str | None]()
    look = at("delete_batch", do=lambda: phases.append(world.job_row(job_id).phase))
    world.run(job_id, HookedStore(world.memory, before=look))
    assert phases == ["deleting_source"]


@on_each_database
@pytest.mark.parametrize(("when", "verbs"), [("before", {"head", "delete_batch"}), ("after", {"head"})])
def test_a_worker_that_dies_around_the_delete_of_the_source_has_lost_nothing(
    when: When, verbs: set[str], world: Moving
) -> None:
    job_id, recording = dead_deleting(world, when), RecordingStore(world.memory)
    world.succeed(job_id, recording)
    assert ({call.verb for call in recording.calls}, world.seen()) == (verbs, (None, world.data))
    assert world.outcomes(job_id) == ["died", "succeeded"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_another_blob_that_came_to_the_sources_path_meanwhile_stays(when: When, either: Moving) -> None:
    job_id = dead_deleting(either, when)
    either.memory.put(FROM, b"tomorrow's")
    either.fail(job_id, "source_changed")
    assert either.seen() == (b"tomorrow's", either.data)


def test_a_copy_that_vanishes_while_the_source_is_still_to_be_deleted_keeps_the_source(either: Moving) -> None:
    job_id = dead_deleting(either)
    either.memory.delete_batch([TO])
    either.put_off(job_id)
    assert either.seen() == (either.data, None)
    either.change(job_id, verify_until=ago(1))
    either.fail(job_id, "verification_failed")
    assert either.seen() == (either.data, None)


def test_a_source_that_must_not_be_deleted_fails_the_job_at_once_and_both_are_kept(world: Moving) -> None:
    world.fail(world.move(), "permission_denied", StubbornStore(world.memory, {FROM: "AccessDenied"}.get))
    assert world.seen() == (world.data, world.data)


def test_a_source_that_cannot_be_deleted_now_is_deleted_by_a_later_run_with_nothing_brought(world: Moving) -> None:
    job_id, recording = world.move(), RecordingStore(world.memory)
    row = world.put_off(job_id, StubbornStore(world.memory, {FROM: "SlowDown"}.get))
    assert (row.state, row.phase, row.error_code) == ("retrying", "deleting_source", "delete_incomplete")
    world.succeed(job_id, recording)
    assert {call.verb for call in recording.calls} == {"head", "delete_batch"}
    assert world.seen() == (None, world.data)


# --- wishes, slices, drain -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dest_storage", "verb"), [(None, "copy_part"), ("cold", "upload_part")])
def test_a_cancel_before_the_point_of_no_return_leaves_both_places_as_they_were(
    dest_storage: str | None, verb: str, world: Moving
) -> None:
    store = world.store(dest_storage)
    store.put(TO, OLD)
    job_id = world.move(dest_storage=dest_storage)
    world.cancel(job_id, **instead(dest_storage, world.requesting(job_id, verb, store)), lease=QUICK)
    assert (world.seen(dest_storage), unfinished(store)) == ((world.data, OLD), [])
    assert [upload.state for upload in world.uploads(job_id)] == ["gone"]


def test_a_cancel_before_a_single_copy_is_in_time(small: Moving) -> None:
    job_id = small.move()
    small.cancel(job_id, small.requesting(job_id, "options_of", is_noticed=False))
    assert small.seen() == (small.data, None)


@pytest.mark.parametrize("verb", ["copy", "delete_batch"])
def test_a_cancel_is_too_late_once_readers_may_see_the_copy(verb: str, either: Moving) -> None:
    job_id = either.move()
    verb = "complete_upload" if verb == "copy" and len(either.data) == LARGE else verb
    either.succeed(job_id, either.requesting(job_id, verb), lease=QUICK)
    assert either.seen() == (None, either.data)


def test_a_cancel_between_two_runs_of_a_move_that_is_deleting_its_source_is_too_late(world: Moving) -> None:
    job_id = dead_deleting(world)
    world.change(job_id, cancel_requested=True, pause_requested=True)
    world.succeed(job_id)
    assert world.seen() == (None, world.data)


@pytest.mark.parametrize("size", [95])
@pytest.mark.parametrize(("dest_storage", "verb"), [(None, "copy_part"), ("cold", "upload_part")])
@pytest.mark.parametrize("why", ["pause", "drain", "slice"])
def test_a_move_that_is_handed_over_in_the_middle_goes_on_without_copying_again(
    why: str, dest_storage: str | None, verb: str, world: Moving
) -> None:
    job_id, store = world.move(dest_storage=dest_storage), world.store(dest_storage)
    hooked = {
        "pause": lambda: world.requesting(job_id, verb, store, pause_requested=True),
        "drain": lambda: HookedStore(store, after=at(verb, do=drain.start)),
        "slice": lambda: HookedStore(store, after=lambda called: time.sleep(0.06) if called == verb else None),
    }[why]()
    first, second = RecordingStore(hooked), RecordingStore(store)
    row = world.put_off(job_id, **instead(dest_storage, first), lease=QUICK, transfer={"slice_seconds": 0.05})
    assert (row.state, row.attempt, row.worker) == ("paused" if why == "pause" else "queued", 1, None)
    assert 0 < row.bytes_done < 95
    world.change(job_id, state="queued", pause_requested=False)
    world.succeed(job_id, **instead(dest_storage, second))
    parts = len(world.part_rows(world.uploads(job_id)[0].id))
    assert brought(first, second) == list(range(1, parts + 1))
    assert (world.outcomes(job_id), world.seen(dest_storage)) == (["succeeded"], (None, world.data))


# --- a lost lease ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["head", "create_upload", "copy_part", "complete_upload"])
def test_a_move_that_was_taken_over_writes_nothing_more_and_deletes_nothing(verb: str, world: Moving) -> None:
    job_id, rows = world.move(), list[Any]()
    taken = at(verb, do=lambda: rows.append(world.taken_over(job_id)))
    recording = RecordingStore(HookedStore(world.memory, before=taken))
    assert world.run(job_id, recording) == NotClaimed()
    assert [world.job_row(job_id).as_row()] == rows
    assert (recording.named("delete_batch"), blob(world.memory, FROM)) == ([], world.data)


@pytest.mark.parametrize("newer", [b"newer", None], ids=["other bytes", "the very same bytes"])
def test_a_move_that_was_taken_over_deletes_no_newer_source(newer: bytes | None, either: Moving) -> None:
    """It slept before the delete; meanwhile another worker ended the job, and somebody uploaded the next file.

    Its heartbeat knows: with the lease gone it must begin no call that changes what readers see.
    """
    job_id, others = either.move(), list[Any]()
    newer = newer or either.data

    def sleep(verb: str) -> None:
        if verb == "head" and either.job_row(job_id).phase == "deleting_source" and not others:
            either.take_away(job_id)
            others.append(either.succeed(job_id))
            either.memory.put(FROM, newer)
            heartbeat_gives_up()

    assert either.run(job_id, HookedStore(either.memory, before=sleep), lease=QUICK) == NotClaimed()
    assert len(others) == 1
    assert either.has_ended(job_id, JobState.SUCCEEDED)
    assert either.seen() == (newer, either.data)


# --- retries ---------------------------------------------------------------------------------------------------------


@on_each_database
@pytest.mark.parametrize("size", [95])
def test_a_move_goes_on_with_its_copied_parts_after_an_error(world: Moving) -> None:
    job_id, recording = world.move(), RecordingStore(world.memory)
    world.put_off(job_id, FaultyStore(world.memory, "copy_part", fail_at=5, times=100))
    (upload,) = world.uploads(job_id)
    done = {part.part_number for part in world.part_rows(upload.id)}
    assert len(done) >= 4
    world.succeed(job_id, recording)
    assert not done & set(brought(recording))
    assert world.seen() == (None, world.data)
    assert world.outcomes(job_id) == ["retrying", "succeeded"]


@pytest.mark.parametrize("dest_storage", [None, "cold"])
def test_a_move_that_may_not_write_fails_at_once_and_leaves_nothing(dest_storage: str | None, world: Moving) -> None:
    store = world.store(dest_storage)
    denied = FaultyStore(store, "complete_upload", times=9, error=lambda: PermissionDeniedError("no"))
    world.fail(world.move(dest_storage=dest_storage), "permission_denied", **instead(dest_storage, denied))
    assert (world.seen(dest_storage), unfinished(store)) == ((world.data, None), [])


def test_a_destination_storage_that_was_moved_elsewhere_fails_the_job_and_its_upload_is_not_called_gone(
    world: Moving,
) -> None:
    job_id = world.move(dest_storage="cold")
    world.put_off(job_id, cold=FaultyStore(world.cold, "upload_part", fail_at=2, times=100))
    assert "storages.cold" in world.fail(job_id, "configuration", cold=world.moved_store("bucket"), **AT_ONCE)
    (upload,) = world.uploads(job_id)
    assert (upload.state, upload.storage, upload.bucket) == ("aborting", "cold", "cold")
    assert unfinished(world.cold) == [upload.upload_id]


@on_each_database
def test_a_dead_workers_upload_in_the_destinations_storage_is_aborted_there_once_the_job_is_cancelled(
    world: Moving,
) -> None:
    job_id = world.move(dest_storage="cold")
    world.crash(job_id, cold=world.dying("upload_part", store=world.cold, number=3))
    world.change(job_id, cancel_requested=True)
    assert len(unfinished(world.cold)) == 1
    world.sweep()
    assert (world.job_row(job_id).state, unfinished(world.cold)) == ("cancelled", [])
    assert world.seen("cold") == (world.data, None)


def test_a_copy_that_was_begun_before_the_destination_changed_is_begun_again(world: Moving) -> None:
    """A versioned bucket dates a blob by the opening of its upload: completing the old one would hide the new blob."""
    job_id = world.move()
    world.put_off(job_id, FaultyStore(world.memory, "copy_part", fail_at=2, times=100))
    world.memory.put(TO, b"theirs")
    world.succeed(job_id)
    assert world.job_row(job_id).restarts == 1
    assert [upload.state for upload in world.uploads(job_id)] == ["aborting", "completed"]
    assert world.seen() == (None, world.data)


def test_parts_keep_their_ranges_though_the_settings_change_between_two_attempts(world: Moving) -> None:
    job_id, recording = world.move(), RecordingStore(world.memory)
    world.put_off(job_id, FaultyStore(world.memory, "copy_part", fail_at=3))
    world.copying = Copying(threshold=100, part_size=4, threads=1)
    world.succeed(job_id, recording)
    assert (brought(recording), world.seen()) == ([3, 4], (None, world.data))


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_copy_of_a_dead_worker_that_takes_effect_between_two_looks_is_known_as_ours(
    overwrite: bool, small: Moving
) -> None:
    job_id, slow = small.move(overwrite=overwrite), SlowStore(small.memory)
    small.crash(job_id, slow)
    small.succeed(job_id, HookedStore(small.memory, before=at("options_of", do=slow.arrive)))
    assert (slow.on_its_way, small.seen()) == ([], (None, small.data))


def test_a_plain_move_between_two_names_of_one_bucket_keeps_it_too(world: Moving) -> None:
    Driver(world.memory).move(SOURCE, SOURCE, dest=Driver(renamed(WrappedStore(world.memory), "bucket")))
    assert blob(world.memory, FROM) == world.data


def test_a_run_that_has_lost_its_lease_does_not_delete_the_source_again(small: Moving) -> None:
    """Its first delete timed out; meanwhile the next owner has finished, and the app has put the same file there."""
    job_id = small.move()

    class TimingOut(WrappedStore):
        calls = 0

        def _do(self, name: str, args: Any, keywords: Any) -> Any:
            if name == "delete_batch":
                self.calls += 1
                small.expire_lease(job_id)
                while not isinstance(small.run(job_id), Finished):  # a heartbeat may come between
                    small.expire_lease(job_id)
                small.memory.put(FROM, small.data)
                raise StoreUnavailableError("read timeout")
            return super()._do(name, args, keywords)

    store = TimingOut(small.memory)
    small.run(job_id, store, lease=QUICK)
    assert (store.calls, small.job_row(job_id).state) == (1, "succeeded")
    assert blob(small.memory, FROM) == small.data
