"""write_stream at an offset and from other sources, and put_content, as jobs: what rows say, and what is refused."""

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from blobferry.checks.arguments import MARK_NAME
from blobferry.contract import JobState
from blobferry.jobs import control
from blobferry.jobs.replaced_source import ReplacedSource
from blobferry.sealing import Sealer
from blobferry.sql.tables import jobs
from models import Database
from tests.doubles import TINY, FaultyStore, HookedStore, RecordingStore, When, blob, unfinished
from tests.jobs.job_world import CARRIED, KEY, PART, PATH, QUICK, World, at, brought, on_each_database
from tests.models.rows import ago
from tests.transfer.sources.http.http_site import Handler, Site, drop_after, give, send, serving, status
from worker import drain
from worker.driver import Driver
from worker.errors import PermissionDeniedError
from worker.jobs.mark import mark_of
from worker.jobs.outcome import Cancelled, Finished, NotClaimed, Rescheduled
from worker.stores.blob_values import Limits
from worker.transfer.plan import plan_parts

BASE = bytes(range(100, 140))
PRIVATE = {"http_allow_private": True}

either_operation = pytest.mark.parametrize("offset", [0, 33], ids=["put_content", "write_stream"])
ranges_or_not = pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "from the start only"])


class Writing(World):
    """A world with an old blob at the path."""

    def __init__(self, database: Database, directory: Path, size: int = 25) -> None:
        super().__init__(database, directory, size)
        self.memory.put(KEY, BASE, options=CARRIED)

    def append(self, offset: int = 33, **arguments: Any) -> str:
        return self.ask("write_stream", **{"path": PATH, "source": self.file.as_uri(), "offset": offset, **arguments})

    def put_content(self, contents: bytes | None = None, **arguments: Any) -> str:
        return self.ask("put_content", path=PATH, contents=self.data if contents is None else contents, **arguments)


@pytest.fixture
def size() -> int:
    return 25


@pytest.fixture
def world(world_database: Database, tmp_path: Path, size: int) -> Writing:
    return Writing(world_database, tmp_path, size)


@pytest.fixture
def site(world: Writing) -> Iterator[Site]:
    with serving(world.data) as site:
        yield site


# --- write_stream at an offset ---------------------------------------------------------------------------------------


@on_each_database
@pytest.mark.parametrize("offset", [1, 15, 33, 40, 57])
def test_a_job_writes_at_an_offset_and_sends_less_than_a_part_of_what_was_there(offset: int, world: Writing) -> None:
    job_id, recording = world.append(offset), RecordingStore(world.memory)
    outcome = world.succeed(job_id, recording)
    new = BASE[:offset] + bytes(max(offset - len(BASE), 0)) + world.data
    assert (world.seen(), unfinished(world.memory)) == (new, [])
    row, kept = world.job_row(job_id), min(offset, len(BASE))
    plan = plan_parts(len(new), part_size=PART, limits=TINY, prefix=kept)
    assert kept - PART < plan.prefix <= kept
    result = {"path": PATH, "size": len(new), "etag": world.memory.head(KEY).etag, "version_id": None}
    assert outcome.result == row.result == result
    assert (row.size, row.bytes_done, row.bytes_sent) == (len(new), len(new), len(new) - plan.prefix)
    assert [attempt.bytes_sent for attempt in world.attempts(job_id)] == [len(new) - plan.prefix]
    (upload,) = world.uploads(job_id)
    assert (upload.state, upload.head, upload.head_parts) == ("completed", plan.prefix, plan.prefix_parts)
    assert sum(part.size for part in world.part_rows(upload.id)) == len(new)
    assert len(recording.named("get")) == (plan.prefix < kept)


@pytest.mark.parametrize("old", [None, b"", BASE], ids=["nothing", "an empty blob", "a blob"])
@pytest.mark.parametrize("offset", [0, 5, 45])
@pytest.mark.parametrize("size", [0, 25])
def test_what_is_there_is_kept_up_to_the_offset_and_a_gap_is_filled(
    offset: int, old: bytes | None, world: Writing
) -> None:
    world.memory.delete_batch([KEY])
    if old is not None:
        world.memory.put(KEY, old)
    world.succeed(world.append(offset))
    kept = (old or b"")[:offset]
    assert world.seen() == kept + bytes(offset - len(kept)) + world.data


def test_a_head_that_is_too_small_to_be_copied_is_fetched(world: Writing) -> None:
    world.memory.limits = Limits(min_part_size=50)
    job_id, recording = world.append(), RecordingStore(world.memory)
    world.succeed(job_id, recording)
    assert (world.seen(), recording.named("copy_part")) == (BASE[:33] + world.data, [])


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
    world.run(world.append())
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
    job_id, old = world.append(**arguments), world.seen()
    world.put_off(job_id, FaultyStore(world.memory, "upload_part", fail_at=2, times=100))
    (upload,) = world.uploads(job_id)
    rows = {part.part_number for part in world.part_rows(upload.id)}
    assert len(rows) >= 3 or old is None
    assert world.seen() == old
    return job_id, rows


@on_each_database
def test_a_job_goes_on_with_its_copied_and_sent_parts(world: Writing) -> None:
    (job_id, rows), recording = stopped_by_an_error(world), RecordingStore(world.memory)
    world.succeed(job_id, recording)
    assert not rows & set(brought(recording))
    assert world.seen() == BASE[:33] + world.data
    assert world.outcomes(job_id) == ["retrying", "succeeded"]


@pytest.mark.parametrize(
    ("old", "newer"),
    [(BASE, b"newer"), (BASE, BASE[::-1]), (BASE, None), (None, b"theirs")],
    ids=["other size", "same size", "gone", "came"],
)
def test_a_blob_that_is_replaced_between_two_attempts_is_not_written_onto(
    old: bytes | None, newer: bytes | None, world: Writing
) -> None:
    if old is None:
        world.memory.delete_batch([KEY])
    job_id, _ = stopped_by_an_error(world)
    world.memory.delete_batch([KEY])
    if newer is not None:
        world.memory.put(KEY, newer)
    world.fail(job_id, "source_changed")
    assert (world.seen(), unfinished(world.memory)) == (newer, [])
    assert [upload.state for upload in world.uploads(job_id)] == ["gone"]


@pytest.mark.parametrize("verb", ["copy_part", "upload_part", "complete_upload"])
def test_a_blob_that_is_replaced_during_a_run_is_never_mixed_with_the_old_one(verb: str, world: Writing) -> None:
    job_id, replace_it = world.append(), at(verb, do=lambda: world.memory.put(KEY, BASE[::-1]))
    world.run(job_id, HookedStore(world.memory, before=replace_it))
    row = world.job_row(job_id)
    assert (row.state, row.error_code in ("source_changed", "superseded")) == ("failed", True)
    assert (world.seen(), unfinished(world.memory)) == (BASE[::-1], [])


@pytest.mark.parametrize("storage", [None, "cold"], ids=["a file", "a blob of another storage"])
def test_a_source_that_changes_between_two_attempts_fails_the_job(storage: str | None, world: Writing) -> None:
    world.cold.put("a/b", world.data)
    job_id, _ = stopped_by_an_error(world, **({"source": f"blob://{storage}/a/b"} if storage else {}))
    world.cold.put("a/b", world.data[::-1])
    world.file.write_bytes(world.data[::-1])
    world.fail(job_id, "source_changed")
    assert (world.seen(), unfinished(world.memory)) == (BASE, [])


@pytest.mark.parametrize("first", [0, 12])
def test_a_rewrite_that_keeps_size_and_time_makes_no_blob_of_two_halves(first: int, world: Writing) -> None:
    job_id, _ = stopped_by_an_error(world)
    before = world.file.stat()
    world.file.write_bytes(world.data[:first] + bytes(25 - first))
    os.utime(world.file, ns=(before.st_atime_ns, before.st_mtime_ns))
    world.run(job_id)
    assert (world.seen(), unfinished(world.memory)) in [(BASE, []), (BASE[:33] + world.file.read_bytes(), [])]
    assert first or world.has_ended(job_id, JobState.FAILED, "source_changed")


def test_a_restored_file_with_the_same_bytes_is_gone_on_with(world: Writing) -> None:
    (job_id, rows), recording = stopped_by_an_error(world), RecordingStore(world.memory)
    before, restored = world.file.stat(), world.file.with_name("restored")
    restored.write_bytes(world.data)
    restored.rename(world.file)
    os.utime(world.file, ns=(before.st_atime_ns, before.st_mtime_ns))
    world.succeed(job_id, recording)
    assert not rows & set(brought(recording))
    assert world.seen() == BASE[:33] + world.data


@pytest.mark.parametrize("offset", [0, 33])
def test_a_file_that_says_0_bytes_is_no_empty_blob(offset: int, world: Writing) -> None:
    job_id = world.append(offset, source="file:///proc/version")
    world.succeed(job_id, sources={"file_roots": (Path("/proc"),)})
    assert world.seen() == BASE[:offset] + Path("/proc/version").read_bytes()


# --- found in the middle of publishing -------------------------------------------------------------------------------


def dead_publishing(world: Writing, when: When, offset: int) -> tuple[str, RecordingStore]:
    """A job whose worker died around the call that readers see, and the store for the next one."""
    job_id = world.append(offset) if offset else world.put_content(b"seven")
    world.crash(job_id, world.dying("put", "complete_upload", when=when))
    assert world.job_row(job_id).phase == "completing"
    return job_id, RecordingStore(world.memory)


@on_each_database
@either_operation
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_blob_that_a_dead_worker_was_publishing_is_published_with_no_part_brought_again(
    when: When, offset: int, world: Writing
) -> None:
    job_id, recording = dead_publishing(world, when, offset)
    if when == "after":  # then its source is not needed either, and a cancel comes too late
        world.file.unlink()
        world.change(job_id, cancel_requested=True)
    world.succeed(job_id, recording)
    assert brought(recording) == []
    assert when == "before" or {call.verb for call in recording.calls} == {"head"}
    expected = BASE[:33] + world.data if offset else b"seven"
    assert (world.seen(), world.job_row(job_id).bytes_done) == (expected, len(expected))


@either_operation
def test_another_blob_supersedes_what_a_dead_worker_had_begun_to_publish(offset: int, world: Writing) -> None:
    job_id, recording = dead_publishing(world, "before", offset)
    world.memory.put(KEY, b"theirs")
    world.fail(job_id, "superseded", recording)
    assert (world.seen(), unfinished(world.memory)) == (b"theirs", [])
    assert brought(recording) == []


def test_an_append_that_may_have_come_and_gone_is_not_sent_again(world: Writing) -> None:
    world.memory.delete_batch([KEY])
    job_id, _ = dead_publishing(world, "after", 7)
    world.memory.delete_batch([KEY])
    world.fail(job_id, "outcome_unknown")
    assert world.seen() is None


# --- wishes, slices, a lost lease ------------------------------------------------------------------------------------


def test_a_cancel_while_the_head_is_copied_leaves_the_old_blob(world: Writing) -> None:
    job_id = world.append()
    world.cancel(job_id, world.requesting(job_id, "copy_part"), lease=QUICK)
    assert (world.seen(), unfinished(world.memory)) == (BASE, [])


@pytest.mark.parametrize("size", [95])
@pytest.mark.parametrize("why", ["pause", "drain"])
@pytest.mark.parametrize("verb", ["copy_part", "upload_part"])
def test_an_append_that_is_handed_over_brings_no_part_twice(verb: str, why: str, world: Writing) -> None:
    job_id = world.append(len(BASE))
    hooked = {
        "pause": lambda: world.requesting(job_id, verb, pause_requested=True),
        "drain": lambda: HookedStore(world.memory, before=at(verb, do=drain.start)),
    }[why]()
    first, second = RecordingStore(hooked), RecordingStore(world.memory)
    world.put_off(job_id, first, lease=QUICK)
    assert world.seen() == BASE
    world.change(job_id, state="queued", pause_requested=False)
    world.succeed(job_id, second)
    assert brought(first, second) == list(range(1, 15))
    assert world.seen() == BASE + world.data


@pytest.mark.parametrize("verb", ["copy_part", "upload_part"])
def test_a_pause_that_is_taken_back_while_a_part_is_on_its_way_is_no_cancel(verb: str, world: Writing) -> None:
    """The run stops for the pause; when its last part is through, nobody wants anything any more."""
    job_id, parts = world.append(len(BASE)), count()
    beside, paused = threading.Event(), threading.Event()

    def pause_and_resume(called: str) -> None:
        number = next(parts) if called == verb else None
        if number == 0:
            assert beside.wait(30)
            world.change(job_id, pause_requested=True)
            world.heartbeat_passes(job_id)  # from here on the run begins no other part
            paused.set()
        elif number == 1:  # the part that was begun beside the first one
            beside.set()
            assert paused.wait(30)
            world.change(job_id, pause_requested=False)
            world.heartbeat_passes(job_id)

    outcome = world.run(job_id, HookedStore(world.memory, before=pause_and_resume), lease=QUICK)
    if isinstance(outcome, Rescheduled):
        assert world.job_row(job_id).state == "queued"
        world.succeed(job_id)
    assert world.has_ended(job_id, JobState.SUCCEEDED)


@pytest.mark.parametrize("verb", ["options_of", "copy_part", "upload_part"])
def test_an_append_that_was_taken_over_leaves_the_others_blob_alone(verb: str, world: Writing) -> None:
    job_id = world.append()

    def take_over() -> None:
        world.take_away(job_id)
        world.succeed(job_id)
        world.memory.put(KEY, b"what came next")

    assert world.run(job_id, HookedStore(world.memory, before=at(verb, do=take_over))) == NotClaimed()
    assert world.has_ended(job_id, JobState.SUCCEEDED)
    assert (world.seen(), unfinished(world.memory)) == (b"what came next", [])


# --- put_content -----------------------------------------------------------------------------------------------------


@on_each_database
@pytest.mark.parametrize("size", [0, 1, PART, 25])
def test_put_content_brings_the_bytes_of_its_row(size: int, world: Writing) -> None:
    world.file.unlink()
    job_id = world.put_content(content_type="text/css", metadata={"a": "b"})
    with world.database.begin() as session:
        assert session.scalar(select(jobs.c.contents).where(jobs.c.id == job_id)) == world.data
    outcome = world.succeed(job_id)
    assert (world.seen(), unfinished(world.memory)) == (world.data, [])
    row, head = world.job_row(job_id), world.memory.head(KEY)
    assert outcome.result == row.result == {"path": PATH, "size": size, "etag": head.etag, "version_id": None}
    assert (row.size, row.bytes_done, row.bytes_sent) == (size, size, size)
    assert (head.content_type, head.metadata) == ("text/css", {"a": "b", MARK_NAME: mark_of(job_id)})
    assert world.memory.options_of(KEY).tags == {}, "it replaces entirely"


@pytest.mark.parametrize("operation", ["put_content", "write_stream at an offset"])
def test_a_blob_is_not_overwritten_where_it_may_not_be(operation: str, world: Writing) -> None:
    world.fail((world.put_content if operation == "put_content" else world.append)(overwrite=False), "blob_exists")
    assert world.seen() == BASE
    world.succeed(world.ask("put_content", path="/new", contents=b"new", overwrite=False))
    assert blob(world.memory, "new") == b"new"


@pytest.mark.parametrize("size", [5, 25], ids=["a put", "parts"])
def test_put_content_is_tried_again_after_a_transient_error(world: Writing) -> None:
    job_id = world.put_content()
    world.put_off(job_id, FaultyStore(world.memory, "put", "upload_part", error=ZeroDivisionError, times=2))
    assert world.seen() == BASE
    world.succeed(job_id)
    assert world.seen() == world.data


def test_put_content_that_may_not_write_fails_at_once(world: Writing) -> None:
    denied = FaultyStore(world.memory, "create_upload", times=9, error=lambda: PermissionDeniedError("no"))
    world.fail(world.put_content(), "permission_denied", denied)
    assert world.seen() == BASE


# --- sources over http and of another storage ------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0, 33])
@ranges_or_not
def test_a_job_fetches_from_a_web_server(ranges: bool, offset: int, world: Writing, site: Site) -> None:
    site.ranges = ranges
    job_id = world.append(offset, source=site.url + "/7.mp4")
    world.succeed(job_id, sources=PRIVATE)
    assert (world.seen(), world.job_row(job_id).source) == (BASE[:offset] + world.data, site.url + "/7.mp4")


def test_a_private_address_is_refused_where_it_is_not_allowed(world: Writing, site: Site) -> None:
    recording = RecordingStore(world.memory)
    assert "http_allow_private" in world.fail(world.append(source=site.url), "source_not_allowed", recording)
    assert (site.requests, recording.calls, world.seen()) == ([], [], BASE)


@pytest.mark.parametrize(
    ("moment", "ranges"), [("between two attempts", True), ("between two attempts", False), ("during a run", True)]
)
def test_what_a_web_server_changes_fails_the_job(moment: str, ranges: bool, world: Writing, site: Site) -> None:
    def change_it() -> None:
        site.data, site.etag = site.data[::-1], '"two"'

    site.ranges = ranges
    job_id, store = world.append(source=site.url), HookedStore(world.memory, before=at("create_upload", do=change_it))
    if moment == "between two attempts":
        world.put_off(job_id, FaultyStore(world.memory, "upload_part", fail_at=2, times=100), sources=PRIVATE)
        change_it()
        store = HookedStore(world.memory)
    world.fail(job_id, "source_changed", store, sources=PRIVATE)
    assert (world.seen(), unfinished(world.memory)) == (BASE, [])


def test_a_job_over_http_goes_on_with_the_parts_that_have_rows(world: Writing, site: Site) -> None:
    job_id, recording = world.append(source=site.url), RecordingStore(world.memory)
    world.put_off(job_id, FaultyStore(world.memory, "upload_part", fail_at=2, times=100), sources=PRIVATE)
    rows = {part.part_number for part in world.part_rows(world.uploads(job_id)[0].id)}
    world.succeed(job_id, recording, sources=PRIVATE)
    assert not rows & set(brought(recording))
    assert world.seen() == BASE[:33] + world.data


def stopped_over_http(world: Writing, url: str) -> tuple[str, set[int]]:
    """A job whose first run sent one part of its source and ended in an error, and the parts that have rows."""
    job_id = world.append(source=url)
    world.put_off(job_id, FaultyStore(world.memory, "upload_part", fail_at=2, times=100), sources=PRIVATE)
    return job_id, {part.part_number for part in world.part_rows(world.uploads(job_id)[0].id)}


@pytest.fixture
def refused(world: Writing, site: Site) -> tuple[str, set[int]]:
    """A failed job whose URL has expired, and the parts that it keeps."""
    job_id, rows = stopped_over_http(world, f"{site.url}/7.mp4?sig=old")
    site.routes["/7.mp4?sig=old"] = status(403)
    world.fail(job_id, "source_not_allowed", sources=PRIVATE)
    return job_id, rows


def retry_from(world: Writing, job_id: str, url: str) -> None:
    control.retry(world.database.engine, job_id, ReplacedSource.of(url, Sealer()))


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
def test_a_url_that_expires_keeps_the_upload(code: int, world: Writing, site: Site) -> None:
    def expire() -> None:
        site.routes["/7.mp4"] = status(code)

    job_id = world.append(source=f"{site.url}/7.mp4")
    world.part_size = 5
    world.run(job_id, HookedStore(world.memory, after=at("upload_part", do=expire)), sources=PRIVATE)
    assert world.job_row(job_id).state == "failed"
    (upload,) = world.uploads(job_id)
    assert upload.state == "open"
    assert upload.recheck_at is not None
    assert len(unfinished(world.memory)) == 1


@pytest.mark.parametrize("etag", ['"one"', '"two"', None])
@pytest.mark.parametrize("url", ["/7.mp4?sig=new", "/elsewhere.mp4", "file"])
def test_a_retry_goes_on_from_another_url_of_the_same_content(
    url: str, etag: str | None, world: Writing, site: Site, refused: tuple[str, set[int]]
) -> None:
    (job_id, rows), recording = refused, RecordingStore(world.memory)
    site.etag = etag
    retry_from(world, job_id, world.file.as_uri() if url == "file" else site.url + url)
    world.succeed(job_id, recording, sources=PRIVATE)
    assert not rows & set(brought(recording))
    assert world.seen() == BASE[:33] + world.data


@pytest.mark.parametrize("etag", ['"one"', '"two"', None])
@pytest.mark.parametrize("other", [bytes(25), bytes(24)], ids=["other bytes", "other size"])
def test_a_retry_with_other_content_fails_and_keeps_the_upload(
    other: bytes, etag: str | None, world: Writing, site: Site, refused: tuple[str, set[int]]
) -> None:
    job_id, _ = refused
    data, site.data, site.etag = site.data, other, etag
    retry_from(world, job_id, site.url + "/elsewhere.mp4")
    world.fail(job_id, "source_changed", sources=PRIVATE)
    assert (world.seen(), len(unfinished(world.memory))) == (BASE, 1)
    site.data = data
    retry_from(world, job_id, site.url + "/right.mp4")
    world.succeed(job_id, sources=PRIVATE)
    assert world.seen() == BASE[:33] + data


def test_a_retry_from_another_file_of_the_same_date_behind_the_same_path_fails(world: Writing, site: Site) -> None:
    """``?file=1`` and ``?file=2`` may have one size and, when they were deployed together, one date."""
    site.etag = None
    job_id, _ = stopped_over_http(world, f"{site.url}/get?file=1")
    site.routes["/get?file=1"] = status(403)
    world.fail(job_id, "source_not_allowed", sources=PRIVATE)
    site.data = site.data[::-1]
    retry_from(world, job_id, f"{site.url}/get?file=2")
    world.fail(job_id, "source_changed", sources=PRIVATE)
    assert world.seen() == BASE


@pytest.mark.parametrize("when", ["within a run", "between two runs"])
@pytest.mark.parametrize("etag", ['"two"', None])
def test_another_server_with_another_etag_for_the_same_file_is_gone_on_with(
    etag: str | None, when: str, world: Writing, site: Site
) -> None:
    def other_server() -> None:
        site.etag = etag

    if when == "within a run":
        job_id = world.append(source=site.url)
        world.part_size = 5  # the first part is sent, and then every answer has the other ETag
        store = HookedStore(world.memory, after=at("upload_part", do=other_server))
    else:
        job_id, _ = stopped_over_http(world, site.url)
        other_server()
        store = HookedStore(world.memory)
    world.succeed(job_id, store, sources=PRIVATE)
    assert (world.seen(), unfinished(world.memory)) == (BASE[:33] + world.data, [])


def test_of_many_servers_with_an_etag_each_all_is_taken_at_once(world: Writing, site: Site) -> None:
    etags = (f'"{number}"' for number in count())

    def next_server(handler: Handler) -> None:
        site.etag = next(etags)
        give(handler)

    site.routes["/7.mp4"] = next_server
    world.succeed(world.append(source=f"{site.url}/7.mp4"), sources=PRIVATE)
    assert world.seen() == BASE[:33] + world.data


@pytest.mark.parametrize("odd", ["all of it", "somewhere else", "no total"])
def test_a_server_with_a_range_for_the_first_byte_only_is_asked_for_all_of_it(
    odd: str, world: Writing, site: Site
) -> None:
    def first_byte_only(handler: Handler) -> None:
        if handler.headers["Range"] in (None, "bytes=0-0"):
            give(handler)
        elif odd == "all of it":
            send(handler, 200, {}, site.data)
        else:
            total = "25" if odd == "somewhere else" else "*"
            send(handler, 206, {"Content-Range": f"bytes 0-9/{total}"}, site.data[:10])

    site.routes["/7.mp4"] = first_byte_only
    world.succeed(world.append(source=f"{site.url}/7.mp4"), sources=PRIVATE)
    assert world.seen() == BASE[:33] + world.data


def test_another_file_with_another_etag_within_a_run_makes_no_blob(world: Writing, site: Site) -> None:
    def change_it() -> None:
        site.data, site.etag = site.data[:1] + bytes(24), '"two"'

    world.part_size = 5
    store = HookedStore(world.memory, after=at("upload_part", do=change_it))
    world.fail(world.append(source=site.url), "source_changed", store, sources=PRIVATE)
    assert (world.seen(), unfinished(world.memory)) == (BASE, [])


@pytest.mark.parametrize(("asked", "least", "most"), [("3600", 3590, 3610), ("9999999", 86_390, 86_410)])
def test_a_source_that_asks_to_wait_moves_the_next_run(
    asked: str, least: float, most: float, world: Writing, site: Site
) -> None:
    site.routes["/7.mp4"] = status(503, Retry_After=asked)
    row = world.put_off(world.append(source=f"{site.url}/7.mp4"), sources=PRIVATE)
    assert row.run_at is not None
    assert least < (row.run_at - row.updated_at).total_seconds() < most
    assert "asks to wait" in str(row.error_message)
    assert len(site.requests) == 1


@pytest.mark.parametrize("wish", ["cancel", "deadline", "drain"])
@pytest.mark.parametrize("drips", [True, False], ids=["drips", "hangs"])
def test_a_source_that_never_ends_ends_with_the_wish_for_it(drips: bool, wish: str, world: Writing, site: Site) -> None:
    """Without being asked between the pieces, a part would last for as long as its source likes."""
    release = threading.Event()
    wishes = {"cancel": {"cancel_requested": True}, "deadline": {"deadline": ago(1)}, "drain": {"labels": {}}}

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
        world.change(job_id, **wishes[wish])
        if wish == "drain":
            drain.start()
        handler.wfile.write(b"x")
        release.wait(0.5 if drips else 30)
        handler.wfile.write(b"x")
        release.wait(30)

    job_id = world.append(source=f"{site.url}/7.mp4")
    world.change(job_id, deadline=ago(-3600))
    site.routes["/7.mp4"] = answer
    try:
        # Neither the source's own time limit nor the next heartbeat would come before the end of the test.
        calm = {"seconds": 60, "heartbeat_seconds": 45, "margin_seconds": 5}
        outcome = world.run(job_id, sources=PRIVATE | {"http_read_seconds": 40}, lease=calm)
    finally:
        release.set()
    kind, state = {
        "cancel": (Cancelled, "cancelled"),
        "deadline": (Finished, "failed"),
        "drain": (Rescheduled, "queued"),
    }[wish]
    row = world.job_row(job_id)
    assert (type(outcome), row.state, row.failures) == (kind, state, 0)
    assert world.seen() == BASE


def test_a_connection_that_drops_is_made_again_within_the_run(world: Writing, site: Site) -> None:
    drop = at("create_upload", do=lambda: site.script.append(drop_after(3)))
    world.succeed(world.append(source=site.url), HookedStore(world.memory, before=drop), sources=PRIVATE)
    assert world.seen() == BASE[:33] + world.data


@pytest.mark.parametrize("offset", [0, 33])
def test_a_job_copies_from_another_storage(offset: int, world: Writing) -> None:
    world.cold.put("a/b", world.data)
    world.succeed(world.append(offset, source="blob://cold/a/b"))
    assert (world.seen(), blob(world.cold, "a/b")) == (BASE[:offset] + world.data, world.data)


def test_a_blob_that_is_not_there_fails_the_job(world: Writing) -> None:
    world.fail(world.append(source="blob://cold/nothing"), "source_not_found")
    assert world.seen() == BASE


@pytest.mark.parametrize("size", [95])
def test_a_source_that_is_read_from_its_beginning_is_fetched_once(world: Writing, site: Site) -> None:
    """Were the run to end with its slice, the next one would fetch all of it again."""

    def slowly(handler: Handler) -> None:
        time.sleep(0.2)
        give(handler)

    site.ranges = False
    site.routes["/f"] = slowly
    world.succeed(world.append(0, source=f"{site.url}/f"), transfer={"slice_seconds": 0.1}, sources=PRIVATE)
    assert len(site.requests) <= 2
    assert world.seen() == world.data


@on_each_database
@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("delete", {"path": "/originals/a"}),
        ("delete", {"path": "/originals"}),
        ("move", {"source_path": "/originals/a", "dest_path": "/b"}),
        ("write_stream", {"path": "/originals/a", "source": "blob://default/videos/7.mp4"}),
    ],
    ids=["delete", "delete of its directory", "move", "write over it"],
)
def test_what_changes_the_source_of_a_copy_never_overtakes_the_copy(
    operation: str, arguments: dict[str, str], world: Writing
) -> None:
    world.memory.put("originals/a", b"the only copy of these bytes")
    copy = world.ask("write_stream", path="/archive/a", source="blob://default/originals/a")
    later = world.ask(operation, **arguments)
    assert isinstance(world.run(later), NotClaimed)
    world.succeed(copy)
    world.succeed(later)
    assert blob(world.memory, "archive/a") == b"the only copy of these bytes"
