"""Interleavings that a review proved to lose a blob or a job, and what keeps them from it now."""

import threading
import time
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.app.trace import build_tracer

from models import Database
from tests.doubles import DeathError, Fuse, FusedDatabase, HookedStore, WrappedStore, blob
from tests.jobs.job_world import PATH, QUICK, World, due, heartbeat_passes
from tests.models.rows import change, expire_lease, job_row
from tests.transfer.sources.http.http_site import Handler, give, serving
from worker.celery.read_task import ReadTask
from worker.driver import Driver
from worker.errors import StoreUnavailableError
from worker.jobs.outcome import Finished, Rescheduled
from worker.jobs.runner import run_job
from worker.stores.blob_values import DeleteFailure
from worker.stores.memory.memory_store import MemoryStore


@pytest.fixture
def world(sqlite_database: Database, tmp_path: Path) -> World:
    return World(sqlite_database, tmp_path)


class Renamed(WrappedStore):
    """The same bucket under another name: another spelling of the endpoint, an alias, a symlink."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.bucket = "alias"


@pytest.mark.parametrize("size", [8, 95])
def test_a_move_between_two_names_of_one_bucket_keeps_the_only_blob(size: int, world: World) -> None:
    world.memory.put("a", world.data[:size])
    job_id = world.ask("move", source_path="/a", dest_path="/a", dest_storage="cold")
    with world.worker(cold=Renamed(world.memory)) as runtime:
        assert isinstance(run_job(runtime, job_id), Finished)
    assert job_row(world.database, job_id).state == "succeeded"
    assert blob(world.memory, "a") == world.data[:size]


def test_a_plain_move_between_two_names_of_one_bucket_keeps_it_too(world: World) -> None:
    world.memory.put("a", world.data)
    Driver(world.memory).move("/a", "/a", dest=Driver(Renamed(world.memory)))
    assert blob(world.memory, "a") == world.data


def test_a_run_that_has_lost_its_lease_does_not_delete_the_source_again(world: World) -> None:
    """Its first delete timed out; meanwhile the next owner has finished, and the app has put the same file there."""
    world.memory.put("src", b"x")
    job_id = world.ask("move", source_path="/src", dest_path="/dst")

    class TimingOut(WrappedStore):
        calls = 0

        def _do(self, name: str, args: Any, keywords: Any) -> Any:
            if name == "delete_batch":
                self.calls += 1
                expire_lease(world.database, job_id)
                while not isinstance(world.run(job_id), Finished):  # a heartbeat of the first may have come in between
                    expire_lease(world.database, job_id)
                world.memory.put("src", b"x")
                raise StoreUnavailableError("read timeout")
            return super()._do(name, args, keywords)

    store = TimingOut(world.memory)
    world.run(job_id, store, lease=QUICK)
    assert store.calls == 1
    assert job_row(world.database, job_id).state == "succeeded"
    assert blob(world.memory, "src") == b"x"


def test_a_delete_spares_what_was_written_after_its_first_look(world: World) -> None:
    now = [datetime(2026, 5, 1, 12, tzinfo=UTC)]
    world.memory = MemoryStore(now=lambda: now[0])
    world.memory.put("a", b"old")
    now[0] += timedelta(seconds=10)

    def write_again(verb: str) -> None:
        if verb == "delete_batch" and blob(world.memory, "a") is None:
            now[0] += timedelta(seconds=0.3)
            world.memory.put("a", b"the new one")

    job_id = world.ask("delete", path="/a")
    assert isinstance(world.run(job_id, HookedStore(world.memory, after=write_again)), Finished)
    assert blob(world.memory, "a") == b"the new one"


def test_a_delete_of_a_key_that_never_goes_ends(world: World) -> None:
    class Stubborn(WrappedStore):
        def delete_batch(self, *args: Any, **keywords: Any) -> Any:
            return [DeleteFailure("a", "InternalError", "try again")]

    world.memory.put("a", b"x")
    job_id = world.ask("delete", path="/a")
    for _ in range(3):
        outcome = world.run(job_id, Stubborn(world.memory), retry={"max_attempts": 3})
        if not isinstance(outcome, Rescheduled):
            break
        due(world, job_id)
    row = job_row(world.database, job_id)
    assert (row.state, row.error_code) == ("failed", "delete_incomplete")
    assert "/a (InternalError)" in str(row.error_message)


def test_a_source_that_is_read_from_its_beginning_is_fetched_once(world: World) -> None:
    """Were the run to end with its slice, the next one would fetch all of it again."""

    def slowly(handler: Handler) -> None:
        time.sleep(0.2)
        give(handler)

    with serving(world.data) as site:
        site.ranges = False
        site.routes["/f"] = slowly
        job_id = world.submit(arguments={"source": f"{site.url}/f"})
        sources = {"http_allow_private": True}
        assert isinstance(world.run(job_id, transfer={"slice_seconds": 0.1}, sources=sources), Finished)
        assert len(site.requests) <= 2
    assert blob(world.memory, PATH[1:]) == world.data


def test_a_pause_that_is_taken_back_while_a_part_is_in_hand_is_no_cancel(world: World) -> None:
    job_id = world.submit()
    parts, paused = count(), threading.Event()

    def pause_and_resume(verb: str) -> None:
        if verb != "upload_part":
            return
        if next(parts) == 0:
            change(world.database, job_id, pause_requested=True)
            heartbeat_passes(world, job_id)  # from here on the run begins no other part
            paused.set()
        else:  # the part that was begun beside the first one
            assert paused.wait(30)
            change(world.database, job_id, pause_requested=False)
            heartbeat_passes(world, job_id)

    world.run(job_id, HookedStore(world.memory, before=pause_and_resume), lease=QUICK)
    assert job_row(world.database, job_id).state in ("queued", "succeeded")


def test_a_file_that_is_published_is_success_even_if_its_directory_is_gone(world: World, tmp_path: Path) -> None:
    directory = tmp_path / "out"
    for fail_at in range(1, 100):
        directory.mkdir()
        world.memory.put(f"videos/{fail_at}", world.data)  # the dead hold their paths
        job_id = world.ask("read_stream", path=f"/videos/{fail_at}", dest=(directory / "x").as_uri())
        mortal = FusedDatabase(str(world.database.engine.url), Fuse(fail_at, "before"))
        try:
            with pytest.raises(DeathError), world.worker(database=mortal) as runtime:
                run_job(runtime, job_id)
        finally:
            mortal.close()
        published = job_row(world.database, job_id).phase == "verifying"
        for left in directory.iterdir():  # whoever waited for the file has taken it
            left.unlink()
        directory.rmdir()
        if published:
            expire_lease(world.database, job_id)
            assert isinstance(world.run(job_id), Finished)
            assert job_row(world.database, job_id).state == "succeeded"
            return
    pytest.fail("it was never published")


def test_the_answer_of_a_read_is_neither_logged_nor_sent_as_an_event(caplog: pytest.LogCaptureFixture) -> None:
    app = Celery("test", set_as_current=False, broker="memory://", backend="cache+memory://")

    @app.task(base=ReadTask, name="tests.secret")
    def secret() -> str:
        return "https://bucket/a?X-Amz-Signature=hunter2"

    with caplog.at_level("INFO", "celery"), caplog.at_level("INFO"):
        trace = build_tracer("tests.secret", secret, app=app, propagate=True)
        trace("an-id", (), {}, {"id": "an-id", "hostname": "h", "ignore_result": True, "is_eager": False})
    assert "an-id" in caplog.text
    assert "hunter2" not in caplog.text
