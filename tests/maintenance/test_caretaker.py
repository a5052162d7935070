"""The caretaker's sweep: each step for itself, and none that stops the others."""

import os
import select
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from blobferry.checks.arguments import MAX_JOB_ID
from blobferry.messages.job_messages import Message
from models import Database, TombstoneRow, queries
from tests.doubles import (
    FaultyStore,
    blob,
    unfinished,
)
from tests.jobs.job_world import KEY, OLD, World
from tests.models.rows import (
    add_upload,
    ago,
    change,
    change_upload,
    claim,
    count_rows,
    expire_lease,
    job_row,
    tombstones,
    uploads,
)
from worker.celery.caretaker_process import request_line
from worker.errors import PermissionDeniedError, StoreUnavailableError
from worker.maintenance.caretaker import AHEAD, Caretaker, Swept
from worker.processes import WorkerProcesses
from worker.runtime import Runtime
from worker.settings import SweepSettings

Sweeper = Callable[..., Caretaker]


@pytest.fixture
def world(sqlite_database: Database, tmp_path: Path) -> World:
    return World(sqlite_database, tmp_path)


@pytest.fixture
def runtime(world: World) -> Iterator[Runtime]:
    with world.worker() as runtime:
        yield runtime


@pytest.fixture
def sent() -> list[Message]:
    return []


@pytest.fixture
def caretaker(runtime: Runtime, sent: list[Message]) -> Caretaker:
    def publish(message: Message) -> bool:
        sent.append(message)
        return True

    return Caretaker(runtime, publish)


def test_a_sweep_with_nothing_to_do_did_nothing(caretaker: Caretaker) -> None:
    assert caretaker.sweep() == Swept()
    assert not caretaker.sweep()


def test_a_job_that_nobody_published_is_published_with_all_that_a_worker_needs(
    world: World, caretaker: Caretaker, sent: list[Message]
) -> None:
    link = {"link": [{"task": "app.done", "args": []}]}
    job_id = world.submit(message_options=link, parent_id="parent", root_id="root", queue="blobferry")
    assert caretaker.sweep() == Swept(published=1)
    (message,) = sent
    assert (message.job_id, message.operation, message.queue, message.seq) == (job_id, "write_stream", "blobferry", 0)
    own = {"path": "/videos/7.mp4", "source": world.file.as_uri(), "offset": 0, "overwrite": True}
    assert message.arguments == own | {"storage": "default"}
    assert (message.options, message.parent_id, message.root_id) == (link, "parent", "root")
    assert caretaker.sweep() == Swept()


def test_only_so_many_jobs_are_published_ahead(world: World, caretaker: Caretaker, sent: list[Message]) -> None:
    for _ in range(12):
        world.submit()
    assert caretaker.sweep().published == AHEAD * 2  # two slots
    assert caretaker.sweep().published == 0


def test_every_fifth_pick_over_several_sweeps_is_the_oldest(
    world: World, caretaker: Caretaker, sent: list[Message]
) -> None:
    oldest = world.submit()
    for _ in range(11):
        world.submit(arguments={"priority": 9})
    caretaker.sweep()
    assert [message.job_id for message in sent].index(oldest) == 4


def test_a_broker_that_is_away_is_not_counted_as_published(world: World, runtime: Runtime) -> None:
    world.submit()
    assert Caretaker(runtime, lambda message: False).sweep() == Swept()


def test_a_dead_workers_job_is_queued_and_published_in_one_sweep(
    world: World, caretaker: Caretaker, sent: list[Message]
) -> None:
    job_id = world.submit()
    job = claim(world.database, job_id)
    expire_lease(world.database, job_id)
    assert caretaker.sweep() == Swept(requeued=1, published=1)
    assert job_row(world.database, job_id).token > job.token
    assert [message.seq for message in sent] == [job_row(world.database, job_id).publish_seq]


def test_a_cancelled_idle_job_ends_and_its_upload_is_aborted_in_one_sweep(world: World, caretaker: Caretaker) -> None:
    world.memory.put(KEY, OLD)
    job_id = world.submit()
    world.run(job_id, FaultyStore(world.memory, "upload_part", fail_at=4))
    change(world.database, job_id, cancel_requested=True)
    assert caretaker.sweep() == Swept(changed=1, aborted=1)
    assert job_row(world.database, job_id).state == "cancelled"
    assert unfinished(world.memory) == []
    assert blob(world.memory, KEY) == OLD
    assert [upload.state for upload in uploads(world.database, job_id)] == ["gone"]


def test_a_kept_upload_is_aborted_when_its_time_is_over(world: World, caretaker: Caretaker) -> None:
    job_id = world.submit()
    world.run(job_id, FaultyStore(world.memory, "upload_part", fail_at=4), retry={"max_attempts": 1})
    assert caretaker.sweep() == Swept()
    assert len(unfinished(world.memory)) == 1
    (upload,) = uploads(world.database, job_id)
    change_upload(world.database, upload.id, recheck_at=ago(1))
    assert caretaker.sweep() == Swept(aborted=1)
    assert unfinished(world.memory) == []


def test_a_part_that_lands_after_the_abort_is_found_by_the_second_look(world: World, caretaker: Caretaker) -> None:
    """A store where an aborted upload may come back with its late part."""
    upload_id = world.memory.create_upload(KEY)
    job_id = world.submit()
    change(world.database, job_id, state="cancelled", finished_at=ago(1))
    upload = add_upload(world.database, job_id, key=KEY, upload_id=upload_id, state="gone", recheck_at=ago(-3600))
    assert caretaker.sweep() == Swept()
    change_upload(world.database, upload, recheck_at=ago(1))
    assert caretaker.sweep() == Swept(aborted=1)
    assert unfinished(world.memory) == []
    assert caretaker.sweep() == Swept()


def test_a_lost_upload_without_an_id_is_found_and_aborted_and_others_are_left(
    world: World, caretaker: Caretaker
) -> None:
    job_id = world.submit()
    change(world.database, job_id, state="cancelled", finished_at=ago(1))
    add_upload(world.database, job_id, key=KEY, upload_id=None, state="aborting")
    world.memory.create_upload(KEY)
    theirs = world.memory.create_upload(KEY)
    world.memory.upload_part(KEY, theirs, 1, b"theirs")
    assert caretaker.sweep() == Swept(aborted=1)
    assert unfinished(world.memory) == [theirs]


@pytest.mark.parametrize("error", [StoreUnavailableError, PermissionDeniedError])
def test_an_upload_that_cannot_be_aborted_stays_in_the_ledger_and_does_not_stop_the_others(
    error: type[Exception], world: World
) -> None:
    job_id = world.submit()
    change(world.database, job_id, state="cancelled", finished_at=ago(1))
    for _ in range(2):
        add_upload(world.database, job_id, key=KEY, upload_id=world.memory.create_upload(KEY), state="aborting")
    add_upload(world.database, job_id, key=KEY, upload_id="x", state="aborting", storage="nowhere")
    failing = FaultyStore(world.memory, "abort_upload", error=lambda: error("not now"))
    with world.worker(failing) as runtime:
        caretaker = Caretaker(runtime, lambda message: True)
        assert caretaker.sweep().aborted == 1
        assert len(unfinished(world.memory)) == 1
        assert caretaker.sweep().aborted == 0, "the one that failed is put off, so that others need not wait behind it"
        for upload in uploads(world.database, job_id)[:2]:
            change_upload(world.database, upload.id, recheck_at=None if upload.state == "gone" else ago(1))
        assert caretaker.sweep().aborted == 1
    assert unfinished(world.memory) == []
    assert [upload.state for upload in uploads(world.database, job_id)] == ["gone", "gone", "aborting"]


def test_old_jobs_are_pruned(world: World, caretaker: Caretaker) -> None:
    job_id = world.submit()
    world.run(job_id)
    assert caretaker.sweep() == Swept()
    change(world.database, job_id, finished_at=ago(31 * 24 * 3600))
    assert caretaker.sweep() == Swept(pruned=1)
    assert tombstones(world.database) == {job_id}


@pytest.mark.parametrize("broken", ["publish", "store"])
def test_a_step_that_fails_does_not_stop_the_others(broken: str, world: World) -> None:
    def publish(message: Message) -> bool:
        if broken == "publish":
            raise RuntimeError("a bug")
        return True

    dead, old, waiting, cancelled = (world.submit() for _ in range(4))
    claim(world.database, dead)
    expire_lease(world.database, dead)
    change(world.database, old, state="succeeded", finished_at=datetime(2020, 1, 1, tzinfo=UTC))
    change(world.database, cancelled, cancel_requested=True)
    add_upload(world.database, cancelled, key=KEY, upload_id=world.memory.create_upload(KEY))

    def surprise() -> BaseException:
        return RuntimeError("a bug")

    store = FaultyStore(world.memory, "abort_upload", times=9 if broken == "store" else 0, error=surprise)
    with world.worker(store) as runtime:
        swept = Caretaker(runtime, publish).sweep()
    assert (swept.requeued, swept.pruned) == (1, 1)
    assert job_row(world.database, cancelled).state == "cancelled"
    assert (swept.published, swept.aborted) == ((0, 1) if broken == "publish" else (2, 0))
    assert job_row(world.database, waiting).published_at is not None


def test_a_database_that_is_away_is_no_error_of_a_sweep(world: World, tmp_path: Path) -> None:
    empty = Database(f"sqlite:///{tmp_path / 'empty.db'}")  # without tables: every statement fails
    with world.worker(database=empty) as runtime:
        assert Caretaker(runtime, lambda message: True).sweep() == Swept()
    empty.close()


def test_the_loop_sweeps_until_it_is_told_to_end_and_in_time_for_the_next_run(world: World, runtime: Runtime) -> None:
    ended, seen = threading.Event(), threading.Event()
    messages: list[Any] = []

    def publish(message: Message) -> bool:
        messages.append(message)
        seen.set()
        return True

    job_id = world.submit()
    change(world.database, job_id, state="retrying", run_at=ago(-0.3))
    runtime.settings = runtime.settings.model_copy(update={"sweep": SweepSettings(interval_seconds=3600)})
    thread = threading.Thread(target=Caretaker(runtime, publish).loop, args=(ended,))
    thread.start()
    assert seen.wait(60), "long before the interval is over"
    ended.set()
    thread.join(60)
    assert not thread.is_alive()
    assert [message.job_id for message in messages] == [job_id]


class Noting(Caretaker):
    """A caretaker that only notes what it is to cancel."""

    def cancel(self, job_id: str) -> None:
        self.noted = job_id


@pytest.mark.parametrize("job_id", ["job", "quoted '\" id", "two\nlines", "ä ☃ 🙂", "lone \udc80", "🙂" * MAX_JOB_ID])
def test_the_parents_request_for_a_cancel_arrives_whatever_the_id(runtime: Runtime, job_id: str) -> None:
    line = request_line(job_id)
    assert len(line) <= select.PIPE_BUF
    assert line.count(b"\n") == 1
    caretaker = Noting(runtime, lambda message: True)
    caretaker.listen([line.decode("ascii")])
    assert caretaker.noted == job_id


DAY = 24 * 3600.0


def test_a_tombstone_that_is_there_already_does_not_stop_pruning(world: World) -> None:
    pruned_before, other = world.submit(), world.submit()
    for job_id in (pruned_before, other):
        world.run(job_id)
        change(world.database, job_id, finished_at=ago(31 * DAY))
    with world.database.begin() as session:
        session.execute(insert(TombstoneRow).values(id=pruned_before))
    with world.worker() as runtime:
        assert Caretaker(runtime, lambda message: True).sweep().pruned == 2
    assert count_rows(world.database, "blobferry_jobs") == 0
    assert tombstones(world.database) == {pruned_before, other}


@pytest.fixture
def each_world(database: Database, tmp_path: Path) -> World:
    directory = tmp_path / "incoming"
    directory.mkdir()
    return World(database, directory, size=400)


def test_a_silent_broker_holds_up_a_sweep_once(each_world: World) -> None:
    jobs = [each_world.submit(arguments={"path": f"/{number}"}, cancel_requested=True) for number in range(5)]
    tried: list[str] = []

    def silent(message: Message) -> bool:
        tried.append(message.job_id)
        return False

    with each_world.worker() as runtime:
        Caretaker(runtime, silent).sweep()
    assert len(tried) == 1
    assert {job_row(each_world.database, job_id).state for job_id in jobs} == {"cancelled"}


# --- which workers are alive -----------------------------------------------------------------------------------------


def others_alive(world: World) -> int:
    with world.database.begin() as session:
        return queries.count_others(session, "somebody else", "storages.default")


@pytest.mark.parametrize("runs_jobs", [True, False], ids=["jobs", "reads only"])
def test_a_caretaker_reports_a_worker_that_runs_jobs_as_alive_until_it_signs_off(
    runs_jobs: bool, world: World, runtime: Runtime
) -> None:
    processes = WorkerProcesses("cafe", os.getpid())
    caretaker = Caretaker(runtime, lambda message: True, processes, runs_jobs=runs_jobs)
    for _ in range(2):
        caretaker.sweep()
    assert others_alive(world) == int(runs_jobs)
    caretaker.sign_off()
    assert others_alive(world) == 0


def test_a_caretaker_of_no_worker_reports_none(world: World, caretaker: Caretaker) -> None:
    caretaker.sweep()
    assert others_alive(world) == 0
