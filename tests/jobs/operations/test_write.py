"""write_stream at an offset and from other sources, and put_content, as jobs: what rows say, and what is refused."""

import os
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from blobferry.checks.arguments import MARK_NAME
from blobferry.contract import JobState
from blobferry.jobs import control
from blobferry.jobs.replaced_source import ReplacedSource
from blobferry.sealing import Sealer
from models import Database
from tests.doubles import (
    DeathError,
    FaultyStore,
    HookedStore,
    RecordingStore,
    blob,
    unfinished,
)
from tests.jobs.job_world import KEY, OLD, PART, PATH, QUICK, World, due, has_ended, heartbeat_passes, requesting
from tests.models.rows import ago, attempts, change, expire_lease, job_row, outcomes, part_rows, take_away, uploads
from tests.transfer.sources.http.http_site import Handler, Site, drop_after, give, serving, status
from worker import drain
from worker.driver import Driver
from worker.errors import PermissionDeniedError
from worker.jobs.mark import mark_of
from worker.jobs.outcome import Cancelled, Finished, NotClaimed, Rescheduled
from worker.stores.blob_values import BlobOptions, Limits

BASE = bytes(range(100, 140))
CARRIED = BlobOptions(
    content_type="video/mp4", metadata={"title": "seven"}, tags={"team": "blue"}, headers={"Cache-Control": "no-store"}
)
PRIVATE = {"http_allow_private": True}


class Writing(World):
    """A world with an old blob at the path."""

    def __init__(self, database: Database, directory: Path, size: int = 25) -> None:
        super().__init__(database, directory, size)
        self.memory.put(KEY, BASE, options=CARRIED)

    def append(self, offset: int = 33, **arguments: Any) -> str:
        return self.ask("write_stream", **{"path": PATH, "source": self.file.as_uri(), "offset": offset, **arguments})

    def put_content(self, contents: bytes | None = None, **arguments: Any) -> str:
        return self.ask("put_content", path=PATH, contents=self.data if contents is None else contents, **arguments)

    def seen(self) -> bytes | None:
        return blob(self.memory, KEY)


@pytest.fixture
def world(sqlite_database: Database, tmp_path: Path) -> Writing:
    return Writing(sqlite_database, tmp_path)


@pytest.fixture
def site(world: Writing) -> Iterator[Site]:
    with serving(world.data) as site:
        yield site


def died(world: World, job_id: str, store: Any) -> None:
    """A run whose worker dies, and whose lease runs out."""
    with pytest.raises(DeathError):
        world.run(job_id, store)
    expire_lease(world.database, job_id)


def brought(*stores: RecordingStore) -> list[int]:
    """The numbers of the parts that were copied or sent."""
    return sorted(call.args[2] for store in stores for call in store.named("copy_part", "upload_part"))


# --- write_stream at an offset ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [1, 15, 33, 40, 57])
def test_a_job_writes_at_an_offset_and_sends_no_byte_of_what_was_there(
    offset: int, database: Database, tmp_path: Path
) -> None:
    world = Writing(database, tmp_path)
    job_id, recording = world.append(offset), RecordingStore(world.memory)
    outcome = world.run(job_id, recording)
    assert isinstance(outcome, Finished)
    assert outcome.error is None
    new = BASE[:offset] + bytes(max(offset - len(BASE), 0)) + world.data
    assert world.seen() == new
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    row, kept = job_row(database, job_id), min(offset, len(BASE))
    assert outcome.result == row.result
    assert row.result == {"path": PATH, "size": len(new), "etag": world.memory.head(KEY).etag, "version_id": None}
    assert (row.size, row.bytes_done, row.bytes_sent) == (len(new), len(new), len(new) - kept)
    assert [attempt.bytes_sent for attempt in attempts(database, job_id)] == [len(new) - kept]
    (upload,) = uploads(database, job_id)
    assert (upload.state, upload.head, upload.head_parts) == ("completed", kept, max(kept // PART, 1))
    assert sum(part.size for part in part_rows(database, upload.id)) == len(new)
    assert recording.named("get") == []
    assert unfinished(world.memory) == []


@pytest.mark.parametrize("old", [b"", BASE])
@pytest.mark.parametrize("offset", [0, 5, 45])
def test_empty_data_follow_the_same_rule(offset: int, old: bytes, sqlite_database: Database, tmp_path: Path) -> None:
    world = Writing(sqlite_database, tmp_path, size=0)
    world.memory.put(KEY, old)
    job_id = world.append(offset)
    world.run(job_id)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert world.seen() == old[:offset] + bytes(max(offset - len(old), 0))


def test_nothing_there_is_a_gap_from_the_beginning(world: Writing) -> None:
    world.memory.delete_batch([KEY])
    job_id = world.append(7)
    world.run(job_id)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert world.seen() == bytes(7) + world.data


def test_a_head_that_is_too_small_to_be_copied_is_fetched(world: Writing) -> None:
    world.memory.limits = Limits(min_part_size=50)
    job_id, recording = world.append(), RecordingStore(world.memory)
    world.run(job_id, recording)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert world.seen() == BASE[:33] + world.data
    assert recording.named("copy_part") == []


def test_what_the_old_blob_carries_is_kept_with_this_jobs_mark(world: Writing) -> None:
    job_id = world.append()
    world.run(job_id)
    kept = replace(CARRIED, metadata={"title": "seven", MARK_NAME: mark_of(job_id)})
    assert world.memory.options_of(KEY) == kept
    second = world.append(len(BASE))
    world.run(second)
    assert world.memory.options_of(KEY).metadata == {"title": "seven", MARK_NAME: mark_of(second)}


def test_what_is_given_anew_replaces_what_the_old_blob_carries(world: Writing) -> None:
    job_id = world.append(content_type="video/webm", metadata={"title": "eight"})
    world.run(job_id)
    metadata = {"title": "eight", MARK_NAME: mark_of(job_id)}
    assert world.memory.options_of(KEY) == replace(CARRIED, content_type="video/webm", metadata=metadata)


def test_a_plain_call_does_not_carry_a_jobs_mark_on(world: Writing) -> None:
    """The mark says "this job wrote this very blob": what a plain call makes of it is another blob."""
    job_id = world.append()
    world.run(job_id)
    Driver(world.memory).write_stream(PATH, 33, BytesReader(world.data[::-1]))
    assert world.memory.options_of(KEY).metadata == {"title": "seven"}


class BytesReader:
    """A reader of bytes, and nothing more."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int) -> bytes:
        piece, self._data = self._data[:size], self._data[size:]
        return piece


def stopped_by_an_error(world: Writing, **arguments: Any) -> tuple[str, set[int]]:
    """A job whose first run ended in a transient error, and the parts that have rows."""
    job_id = world.append(**arguments)
    assert isinstance(world.run(job_id, FaultyStore(world.memory, "upload_part", fail_at=2, times=100)), Rescheduled)
    due(world, job_id)
    (upload,) = uploads(world.database, job_id)
    rows = {part.part_number for part in part_rows(world.database, upload.id)}
    assert len(rows) >= 3
    assert world.seen() == BASE
    return job_id, rows


def test_a_job_goes_on_with_its_copied_and_sent_parts(database: Database, tmp_path: Path) -> None:
    world = Writing(database, tmp_path)
    job_id, rows = stopped_by_an_error(world)
    recording = RecordingStore(world.memory)
    world.run(job_id, recording)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert not rows & set(brought(recording))
    assert world.seen() == BASE[:33] + world.data
    assert outcomes(database, job_id) == ["retrying", "succeeded"]


@pytest.mark.parametrize("newer", [b"newer", BASE[::-1], None], ids=["other size", "same size", "gone"])
def test_a_blob_that_is_replaced_between_two_attempts_is_not_written_onto(newer: bytes | None, world: Writing) -> None:
    job_id, _ = stopped_by_an_error(world)
    if newer is None:
        world.memory.delete_batch([KEY])
    else:
        world.memory.put(KEY, newer)
    outcome = world.run(job_id)
    assert isinstance(outcome, Finished)
    assert has_ended(world, job_id, JobState.FAILED, "source_changed")
    assert world.seen() == newer
    assert unfinished(world.memory) == []
    assert [upload.state for upload in uploads(world.database, job_id)] == ["gone"]


def test_a_blob_that_appears_between_two_attempts_is_not_written_onto(world: Writing) -> None:
    world.memory.delete_batch([KEY])
    job_id = world.append(7)
    assert isinstance(world.run(job_id, FaultyStore(world.memory, "upload_part", fail_at=2, times=100)), Rescheduled)
    due(world, job_id)
    world.memory.put(KEY, b"theirs")
    world.run(job_id)
    assert has_ended(world, job_id, JobState.FAILED, "source_changed")
    assert world.seen() == b"theirs"
    assert unfinished(world.memory) == []


@pytest.mark.parametrize("verb", ["copy_part", "upload_part", "complete_upload"])
def test_a_blob_that_is_replaced_during_a_run_is_never_mixed_with_the_old_one(verb: str, world: Writing) -> None:
    done: list[str] = []

    def replace_it(called: str) -> None:
        if called == verb and not done:
            done.append(called)
            world.memory.put(KEY, BASE[::-1])

    job_id = world.append()
    world.run(job_id, HookedStore(world.memory, before=replace_it))
    row = job_row(world.database, job_id)
    assert (row.state, row.error_code in ("source_changed", "superseded")) == ("failed", True)
    assert world.seen() == BASE[::-1]
    assert unfinished(world.memory) == []


def test_a_source_that_changes_between_two_attempts_fails_the_job(world: Writing) -> None:
    job_id, _ = stopped_by_an_error(world)
    world.file.write_bytes(world.data[::-1])
    world.run(job_id)
    assert has_ended(world, job_id, JobState.FAILED, "source_changed")
    assert world.seen() == BASE
    assert unfinished(world.memory) == []


@pytest.mark.parametrize("first", [0, 12])
def test_a_rewrite_that_keeps_size_and_time_makes_no_blob_of_two_halves(first: int, world: Writing) -> None:
    job_id, _ = stopped_by_an_error(world)
    before = world.file.stat()
    world.file.write_bytes(world.data[:first] + bytes(25 - first))
    os.utime(world.file, ns=(before.st_atime_ns, before.st_mtime_ns))
    world.run(job_id)
    assert (world.seen(), unfinished(world.memory)) in [(BASE, []), (BASE[:33] + world.file.read_bytes(), [])]
    assert first or has_ended(world, job_id, JobState.FAILED, "source_changed")


def test_a_restored_file_with_the_same_bytes_is_gone_on_with(world: Writing) -> None:
    job_id, rows = stopped_by_an_error(world)
    before = world.file.stat()
    restored = world.file.with_name("restored")
    restored.write_bytes(world.data)
    restored.rename(world.file)
    os.utime(world.file, ns=(before.st_atime_ns, before.st_mtime_ns))
    recording = RecordingStore(world.memory)
    world.run(job_id, recording)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert not rows & set(brought(recording))
    assert world.seen() == BASE[:33] + world.data


@pytest.mark.parametrize("offset", [0, 33])
def test_a_file_that_says_0_bytes_is_no_empty_blob(offset: int, world: Writing) -> None:
    job_id = world.append(offset, source="file:///proc/version")
    world.run(job_id, sources={"file_roots": (Path("/proc"),)})
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert world.seen() == BASE[:offset] + Path("/proc/version").read_bytes()


def test_without_overwriting_an_offset_is_refused_where_a_blob_is(world: Writing) -> None:
    job_id = world.append(overwrite=False)
    world.run(job_id)
    assert has_ended(world, job_id, JobState.FAILED, "blob_exists")
    assert world.seen() == BASE


# --- found in the middle of publishing -------------------------------------------------------------------------------


def dead_publishing(world: Writing, when: Any, offset: int) -> str:
    """A job whose worker died around the call that readers see."""
    job_id = world.append(offset) if offset else world.put_content(b"seven")
    died(world, job_id, FaultyStore(world.memory, "put", "complete_upload", when=when, error=DeathError))
    assert job_row(world.database, job_id).phase == "completing"
    return job_id


@pytest.mark.parametrize("offset", [0, 33], ids=["put_content", "write_stream"])
def test_a_blob_that_a_dead_worker_published_is_found_without_its_source(
    offset: int, database: Database, tmp_path: Path
) -> None:
    world = Writing(database, tmp_path)
    job_id, recording = dead_publishing(world, "after", offset), RecordingStore(world.memory)
    world.file.unlink()
    change(database, job_id, cancel_requested=True)  # which is too late
    world.run(job_id, recording)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert {call.verb for call in recording.calls} == {"head"}
    assert world.seen() == (BASE[:33] + world.data if offset else b"seven")
    assert job_row(database, job_id).bytes_done == len(world.seen() or b"")


@pytest.mark.parametrize("offset", [0, 33], ids=["put_content", "write_stream"])
def test_a_blob_that_was_not_published_is_published_with_no_part_brought_again(offset: int, world: Writing) -> None:
    job_id, recording = dead_publishing(world, "before", offset), RecordingStore(world.memory)
    world.run(job_id, recording)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert brought(recording) == []
    assert world.seen() == (BASE[:33] + world.data if offset else b"seven")


@pytest.mark.parametrize("offset", [0, 33], ids=["put_content", "write_stream"])
def test_another_blob_supersedes_what_a_dead_worker_had_begun_to_publish(offset: int, world: Writing) -> None:
    job_id, recording = dead_publishing(world, "before", offset), RecordingStore(world.memory)
    world.memory.put(KEY, b"theirs")
    world.run(job_id, recording)
    assert has_ended(world, job_id, JobState.FAILED, "superseded")
    assert world.seen() == b"theirs"
    assert unfinished(world.memory) == []
    assert brought(recording) == []


def test_an_append_that_may_have_come_and_gone_is_not_sent_again(world: Writing) -> None:
    world.memory.delete_batch([KEY])
    job_id = dead_publishing(world, "after", 7)
    world.memory.delete_batch([KEY])
    world.run(job_id)
    assert has_ended(world, job_id, JobState.FAILED, "outcome_unknown")
    assert world.seen() is None


# --- wishes, slices, a lost lease ------------------------------------------------------------------------------------


def test_a_cancel_while_the_head_is_copied_leaves_the_old_blob(world: Writing) -> None:
    job_id = world.append()
    assert world.run(job_id, requesting(world, job_id, "copy_part"), lease=QUICK) == Cancelled()
    assert has_ended(world, job_id, JobState.CANCELLED)
    assert (world.seen(), unfinished(world.memory)) == (BASE, [])


@pytest.mark.parametrize("why", ["pause", "drain"])
@pytest.mark.parametrize("verb", ["copy_part", "upload_part"])
def test_an_append_that_is_handed_over_brings_no_part_twice(
    verb: str, why: str, sqlite_database: Database, tmp_path: Path
) -> None:
    world = Writing(sqlite_database, tmp_path, 95)
    job_id = world.append(len(BASE))
    hooked = {
        "pause": lambda: requesting(world, job_id, verb, pause_requested=True),
        "drain": lambda: HookedStore(world.memory, before=lambda called: drain.start() if called == verb else None),
    }[why]()
    first, second = RecordingStore(hooked), RecordingStore(world.memory)
    try:
        assert isinstance(world.run(job_id, first, lease=QUICK), Rescheduled)
    finally:
        drain._flag[0] = 0
    assert world.seen() == BASE
    change(world.database, job_id, state="queued", pause_requested=False)
    world.run(job_id, second)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert brought(first, second) == list(range(1, 15))
    assert world.seen() == BASE + world.data


def test_a_pause_that_is_taken_back_while_a_part_is_on_its_way_is_no_cancel(world: Writing) -> None:
    """The run stops for the pause; when its last part is through, nobody wants anything any more."""
    job_id = world.append()
    lock, numbers, paused = threading.Lock(), iter(range(100)), threading.Event()

    def wish(called: str) -> None:
        if called != "copy_part":
            return
        with lock:
            number = next(numbers)
        if number == 0:
            change(world.database, job_id, pause_requested=True)
            heartbeat_passes(world, job_id)
            paused.set()
        elif number == 1:
            assert paused.wait(30)
            change(world.database, job_id, pause_requested=False)
            heartbeat_passes(world, job_id)

    outcome = world.run(job_id, HookedStore(world.memory, before=wish), lease=QUICK)
    assert outcome != Cancelled()
    if isinstance(outcome, Rescheduled):
        assert job_row(world.database, job_id).state == "queued"
        world.run(job_id)
    assert has_ended(world, job_id, JobState.SUCCEEDED)


@pytest.mark.parametrize("verb", ["options_of", "copy_part", "upload_part"])
def test_an_append_that_was_taken_over_leaves_the_others_blob_alone(verb: str, world: Writing) -> None:
    job_id = world.append()
    others: list[Any] = []
    lock = threading.Lock()

    def take_over(called: str) -> None:
        if called == verb and lock.acquire(blocking=False):
            take_away(world.database, job_id)
            others.append(world.run(job_id))
            world.memory.put(KEY, b"what came next")

    assert world.run(job_id, HookedStore(world.memory, before=take_over)) == NotClaimed()
    assert isinstance(others[0], Finished)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert world.seen() == b"what came next"
    assert unfinished(world.memory) == []


# --- put_content -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, PART, 25])
def test_put_content_brings_the_bytes_of_its_row(size: int, database: Database, tmp_path: Path) -> None:
    world = Writing(database, tmp_path, size)
    world.file.unlink()
    job_id = world.put_content(content_type="text/css", metadata={"a": "b"})
    row = job_row(database, job_id)
    assert row.request is not None
    assert set(row.request["contents"]) == {"base64"}
    assert b64decode(row.request["contents"]["base64"]) == world.data
    outcome = world.run(job_id)
    assert isinstance(outcome, Finished)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert world.seen() == world.data
    row, head = job_row(database, job_id), world.memory.head(KEY)
    assert outcome.result == row.result == {"path": PATH, "size": size, "etag": head.etag, "version_id": None}
    assert (row.size, row.bytes_done, row.bytes_sent) == (size, size, size)
    assert (head.content_type, head.metadata) == ("text/css", {"a": "b", MARK_NAME: mark_of(job_id)})
    assert world.memory.options_of(KEY).tags == {}, "it replaces entirely"
    assert unfinished(world.memory) == []


def test_put_content_does_not_overwrite_where_it_may_not(world: Writing) -> None:
    job_id = world.put_content(overwrite=False)
    world.run(job_id)
    assert has_ended(world, job_id, JobState.FAILED, "blob_exists")
    assert world.seen() == BASE
    second = world.ask("put_content", path="/new", contents=b"new", overwrite=False)
    world.run(second)
    assert has_ended(world, second, JobState.SUCCEEDED)
    assert blob(world.memory, "new") == b"new"


@pytest.mark.parametrize("size", [5, 25], ids=["a put", "parts"])
def test_put_content_is_tried_again_after_a_transient_error(
    size: int, sqlite_database: Database, tmp_path: Path
) -> None:
    world = Writing(sqlite_database, tmp_path, size)
    job_id = world.put_content()
    surprise: Callable[[], BaseException] = lambda: ZeroDivisionError("a bug")  # noqa: E731
    failing = FaultyStore(world.memory, "put", "upload_part", error=surprise, times=2)
    assert isinstance(world.run(job_id, failing), Rescheduled)
    assert world.seen() == BASE
    due(world, job_id)
    world.run(job_id)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert world.seen() == world.data


def test_put_content_that_may_not_write_fails_at_once(world: Writing) -> None:
    job_id = world.put_content()
    denied = FaultyStore(world.memory, "create_upload", times=9, error=lambda: PermissionDeniedError("no"))
    world.run(job_id, denied)
    assert has_ended(world, job_id, JobState.FAILED, "permission_denied")
    assert world.seen() == BASE


# --- sources over http and of another storage ------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0, 33])
@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "from the start only"])
def test_a_job_fetches_from_a_web_server(ranges: bool, offset: int, world: Writing, site: Site) -> None:
    site.ranges = ranges
    job_id = world.append(offset, source=site.url + "/7.mp4")
    outcome = world.run(job_id, sources=PRIVATE)
    assert isinstance(outcome, Finished)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert world.seen() == BASE[:offset] + world.data
    assert job_row(world.database, job_id).source == site.url + "/7.mp4"


def test_a_private_address_is_refused_where_it_is_not_allowed(world: Writing, site: Site) -> None:
    job_id, recording = world.append(source=site.url), RecordingStore(world.memory)
    world.run(job_id, recording)
    assert has_ended(world, job_id, JobState.FAILED, "source_not_allowed")
    assert "http_allow_private" in str(job_row(world.database, job_id).error_message)
    assert (site.requests, recording.calls, world.seen()) == ([], [], BASE)


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "from the start only"])
def test_what_a_web_server_changes_between_two_attempts_fails_the_job(ranges: bool, world: Writing, site: Site) -> None:
    site.ranges = ranges
    job_id = world.append(source=site.url)
    failing = FaultyStore(world.memory, "upload_part", fail_at=2, times=100)
    assert isinstance(world.run(job_id, failing, sources=PRIVATE), Rescheduled)
    site.data, site.etag = site.data[::-1], '"two"'
    due(world, job_id)
    world.run(job_id, sources=PRIVATE)
    assert has_ended(world, job_id, JobState.FAILED, "source_changed")
    assert world.seen() == BASE
    assert unfinished(world.memory) == []


def test_what_a_web_server_changes_during_a_run_fails_the_job(world: Writing, site: Site) -> None:
    def change_it(called: str) -> None:
        if called == "create_upload":
            site.data, site.etag = site.data[::-1], '"two"'

    job_id = world.append(source=site.url)
    world.run(job_id, HookedStore(world.memory, before=change_it), sources=PRIVATE)
    assert has_ended(world, job_id, JobState.FAILED, "source_changed")
    assert world.seen() == BASE
    assert unfinished(world.memory) == []


def test_a_job_over_http_goes_on_with_the_parts_that_have_rows(world: Writing, site: Site) -> None:
    job_id, rows = world.append(source=site.url), set[int]()
    failing = FaultyStore(world.memory, "upload_part", fail_at=2, times=100)
    assert isinstance(world.run(job_id, failing, sources=PRIVATE), Rescheduled)
    rows = {part.part_number for part in part_rows(world.database, uploads(world.database, job_id)[0].id)}
    due(world, job_id)
    recording = RecordingStore(world.memory)
    world.run(job_id, recording, sources=PRIVATE)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert not rows & set(brought(recording))
    assert world.seen() == BASE[:33] + world.data


@pytest.fixture
def refused(world: Writing, site: Site) -> tuple[str, set[int]]:
    """A failed job whose URL has expired, and the parts that it keeps."""
    job_id = world.append(source=f"{site.url}/7.mp4?sig=old")
    failing = FaultyStore(world.memory, "upload_part", fail_at=2, times=100)
    assert isinstance(world.run(job_id, failing, sources=PRIVATE), Rescheduled)
    rows = {part.part_number for part in part_rows(world.database, uploads(world.database, job_id)[0].id)}
    site.routes["/7.mp4?sig=old"] = status(403)
    due(world, job_id)
    world.run(job_id, sources=PRIVATE)
    assert has_ended(world, job_id, JobState.FAILED, "source_not_allowed")
    return job_id, rows


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
def test_a_url_that_expires_keeps_the_upload(code: int, world: Writing, site: Site) -> None:
    def expire(called: str) -> None:
        if called == "upload_part":
            site.routes["/7.mp4"] = status(code)

    job_id = world.append(source=f"{site.url}/7.mp4")
    world.part_size = 5
    world.run(job_id, HookedStore(world.memory, after=expire), sources=PRIVATE)
    assert job_row(world.database, job_id).state == "failed"
    (upload,) = uploads(world.database, job_id)
    assert upload.state == "open"
    assert upload.recheck_at is not None
    assert len(unfinished(world.memory)) == 1


@pytest.mark.parametrize("etag", ['"one"', '"two"', None])
@pytest.mark.parametrize("url", ["/7.mp4?sig=new", "/elsewhere.mp4", "file"])
def test_a_retry_goes_on_from_another_url_of_the_same_content(
    url: str, etag: str | None, world: Writing, site: Site, refused: tuple[str, set[int]]
) -> None:
    job_id, rows = refused
    site.etag = etag
    control.retry(
        world.database.engine,
        job_id,
        ReplacedSource.of(world.file.as_uri() if url == "file" else site.url + url, Sealer()),
    )
    recording = RecordingStore(world.memory)
    world.run(job_id, recording, sources=PRIVATE)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert not rows & set(brought(recording))
    assert world.seen() == BASE[:33] + world.data


@pytest.mark.parametrize("etag", ['"one"', '"two"', None])
@pytest.mark.parametrize("other", [bytes(25), bytes(24)], ids=["other bytes", "other size"])
def test_a_retry_with_other_content_fails_and_keeps_the_upload(
    other: bytes, etag: str | None, world: Writing, site: Site, refused: tuple[str, set[int]]
) -> None:
    job_id, _ = refused
    data, site.data, site.etag = site.data, other, etag
    control.retry(world.database.engine, job_id, ReplacedSource.of(site.url + "/elsewhere.mp4", Sealer()))
    world.run(job_id, sources=PRIVATE)
    assert has_ended(world, job_id, JobState.FAILED, "source_changed")
    assert (world.seen(), len(unfinished(world.memory))) == (BASE, 1)
    site.data = data
    control.retry(world.database.engine, job_id, ReplacedSource.of(site.url + "/right.mp4", Sealer()))
    world.run(job_id, sources=PRIVATE)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert world.seen() == BASE[:33] + data


@pytest.mark.parametrize("when", ["within a run", "between two runs"])
@pytest.mark.parametrize("etag", ['"two"', None])
def test_another_server_with_another_etag_for_the_same_file_is_gone_on_with(
    etag: str | None, when: str, world: Writing, site: Site
) -> None:
    def other_server(called: str) -> None:
        if called == "upload_part":
            site.etag = etag

    job_id = world.append(source=site.url)
    if when == "within a run":
        world.part_size = 5  # the first part is sent, and then every answer has the other ETag
        world.run(job_id, RecordingStore(HookedStore(world.memory, after=other_server)), sources=PRIVATE)
    else:
        failing = FaultyStore(world.memory, "upload_part", fail_at=2, times=100)
        assert isinstance(world.run(job_id, failing, sources=PRIVATE), Rescheduled)
        site.etag = etag
        due(world, job_id)
        world.run(job_id, sources=PRIVATE)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert world.seen() == BASE[:33] + world.data
    assert unfinished(world.memory) == []


def test_another_file_with_another_etag_within_a_run_makes_no_blob(world: Writing, site: Site) -> None:
    def change_it(called: str) -> None:
        if called == "upload_part":
            site.data, site.etag = site.data[:1] + bytes(24), '"two"'

    job_id = world.append(source=site.url)
    world.part_size = 5
    world.run(job_id, HookedStore(world.memory, after=change_it), sources=PRIVATE)
    row = job_row(world.database, job_id)
    assert (row.state, row.error_code, world.seen()) == ("failed", "source_changed", BASE)
    assert unfinished(world.memory) == []


@pytest.mark.parametrize(("asked", "least", "most"), [("3600", 3590, 3610), ("9999999", 86_390, 86_410)])
def test_a_source_that_asks_to_wait_moves_the_next_run(
    asked: str, least: float, most: float, world: Writing, site: Site
) -> None:
    site.routes["/7.mp4"] = status(503, Retry_After=asked)
    job_id = world.append(source=f"{site.url}/7.mp4")
    assert isinstance(world.run(job_id, sources=PRIVATE), Rescheduled)
    row = job_row(world.database, job_id)
    assert row.run_at is not None
    assert least < (row.run_at - row.updated_at).total_seconds() < most
    assert "asks to wait" in str(row.error_message)
    assert len(site.requests) == 1


@pytest.mark.parametrize("wish", ["cancel", "deadline", "drain"])
@pytest.mark.parametrize("drips", [True, False], ids=["drips", "hangs"])
def test_a_source_that_never_ends_ends_with_the_wish_for_it(drips: bool, wish: str, world: Writing, site: Site) -> None:
    """Without being asked between the pieces, a part would last for as long as its source likes."""
    release = threading.Event()
    wishes = {"cancel": {"cancel_requested": True}, "deadline": {"deadline": ago(1)}, "drain": {}}

    def answer(handler: Handler) -> None:
        if handler.headers["Range"] == "bytes=0-0":
            give(handler)
            return
        handler.send_response(206)
        first, last = (int(number) for number in handler.headers["Range"].removeprefix("bytes=").split("-"))
        for name, value in {
            "ETag": '"one"',
            "Content-Range": f"bytes {first}-{last}/25",
            "Content-Length": str(last - first + 1),
        }.items():
            handler.send_header(name, value)
        handler.end_headers()
        change(world.database, job_id, **(wishes[wish] or {"labels": {}}))
        if wish == "drain":
            drain.start()
        handler.wfile.write(b"x")
        release.wait(0.5 if drips else 30)
        handler.wfile.write(b"x")
        release.wait(30)

    job_id = world.append(source=f"{site.url}/7.mp4")
    change(world.database, job_id, deadline=ago(-3600))
    site.routes["/7.mp4"] = answer
    try:
        # Neither the source's own time limit nor the next heartbeat would come before the end of the test.
        calm = {"seconds": 60, "heartbeat_seconds": 45, "margin_seconds": 5}
        outcome = world.run(job_id, sources=PRIVATE | {"http_read_seconds": 40}, lease=calm)
    finally:
        drain._flag[0] = 0
        release.set()
    kind = {"cancel": Cancelled, "deadline": Finished, "drain": Rescheduled}[wish]
    assert isinstance(outcome, kind)
    state = {"cancel": "cancelled", "deadline": "failed", "drain": "queued"}[wish]
    row = job_row(world.database, job_id)
    assert (row.state, row.failures) == (state, 0)
    assert world.seen() == BASE


def test_a_connection_that_drops_is_made_again_within_the_run(world: Writing, site: Site) -> None:
    def drop(called: str) -> None:
        if called == "create_upload":
            site.script.append(drop_after(3))

    job_id = world.append(source=site.url)
    world.run(job_id, HookedStore(world.memory, before=drop), sources=PRIVATE)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert world.seen() == BASE[:33] + world.data


@pytest.mark.parametrize("offset", [0, 33])
def test_a_job_copies_from_another_storage(offset: int, world: Writing) -> None:
    world.cold.put("a/b", world.data)
    job_id = world.append(offset, source="blob://cold/a/b")
    world.run(job_id)
    assert has_ended(world, job_id, JobState.SUCCEEDED)
    assert world.seen() == BASE[:offset] + world.data
    assert blob(world.cold, "a/b") == world.data


def test_a_blob_of_another_storage_that_changes_between_two_attempts_fails_the_job(world: Writing) -> None:
    world.cold.put("a/b", world.data)
    job_id, _ = stopped_by_an_error(world, source="blob://cold/a/b")
    world.cold.put("a/b", OLD)
    world.run(job_id)
    assert has_ended(world, job_id, JobState.FAILED, "source_changed")
    assert (world.seen(), unfinished(world.memory)) == (BASE, [])


def test_a_blob_that_is_not_there_fails_the_job(world: Writing) -> None:
    job_id = world.append(source="blob://cold/nothing")
    world.run(job_id)
    assert has_ended(world, job_id, JobState.FAILED, "source_not_found")
    assert world.seen() == BASE


@pytest.fixture
def plain_world(sqlite_database: Database, tmp_path: Path) -> World:
    return World(sqlite_database, tmp_path)


def test_a_source_that_is_read_from_its_beginning_is_fetched_once(plain_world: World) -> None:
    """Were the run to end with its slice, the next one would fetch all of it again."""

    def slowly(handler: Handler) -> None:
        time.sleep(0.2)
        give(handler)

    with serving(plain_world.data) as site:
        site.ranges = False
        site.routes["/f"] = slowly
        job_id = plain_world.submit(arguments={"source": f"{site.url}/f"})
        sources = {"http_allow_private": True}
        assert isinstance(plain_world.run(job_id, transfer={"slice_seconds": 0.1}, sources=sources), Finished)
        assert len(site.requests) <= 2
    assert blob(plain_world.memory, PATH[1:]) == plain_world.data


def test_a_pause_that_is_taken_back_while_a_part_is_in_hand_is_no_cancel(plain_world: World) -> None:
    job_id = plain_world.submit()
    parts, paused = count(), threading.Event()

    def pause_and_resume(verb: str) -> None:
        if verb != "upload_part":
            return
        if next(parts) == 0:
            change(plain_world.database, job_id, pause_requested=True)
            heartbeat_passes(plain_world, job_id)  # from here on the run begins no other part
            paused.set()
        else:  # the part that was begun beside the first one
            assert paused.wait(30)
            change(plain_world.database, job_id, pause_requested=False)
            heartbeat_passes(plain_world, job_id)

    plain_world.run(job_id, HookedStore(plain_world.memory, before=pause_and_resume), lease=QUICK)
    assert job_row(plain_world.database, job_id).state in ("queued", "succeeded")
