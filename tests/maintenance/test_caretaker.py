"""The caretaker's sweep: each step for itself, and none that stops the others."""

import os
import select
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from blobferry.checks.arguments import MAX_JOB_ID
from blobferry.messages.job_messages import Message
from models import Database, TombstoneRow
from tests.doubles import FaultyStore, blob, unfinished
from tests.jobs.counted_run import Cost, counted
from tests.jobs.job_world import KEY, OLD, World, on_each_database
from tests.models.rows import ago
from worker.celery.caretaker_process import request_line
from worker.errors import PermissionDeniedError, StoreUnavailableError
from worker.maintenance.caretaker import AHEAD, Caretaker, Swept
from worker.processes import WorkerProcesses
from worker.runtime import Runtime
from worker.settings import SweepSettings


@pytest.fixture
def runtime(world: World) -> Iterator[Runtime]:
    with world.worker() as runtime:
        yield runtime


@pytest.fixture
def sent() -> list[Message]:
    return []


@pytest.fixture
def caretaker(runtime: Runtime, sent: list[Message]) -> Caretaker:
    def publish(*messages: Message) -> int:
        sent.extend(messages)
        return len(messages)

    return Caretaker(runtime, publish)


def cancelled(world: World, **upload: Any) -> str:
    """A job that has been cancelled, with an upload in the ledger."""
    job_id = world.submit(state="cancelled", finished_at=ago(1))
    world.add_upload(job_id, key=KEY, **upload)
    return job_id


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
    assert not caretaker.sweep(), "a sweep with nothing to do did nothing"


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


def test_a_broker_that_is_away_is_not_counted_as_published(world: World) -> None:
    world.submit()
    assert world.sweep(publish=lambda *messages: 0) == Swept()


def test_jobs_whose_message_could_not_be_sent_count_as_not_published(world: World) -> None:
    jobs = [world.submit() for _ in range(4)]
    assert world.sweep(publish=lambda *messages: 1) == Swept(published=1)
    assert [world.job_row(job_id).published_at is None for job_id in jobs] == [False, True, True, True]


def test_a_dead_workers_job_is_queued_and_published_in_one_sweep(
    world: World, caretaker: Caretaker, sent: list[Message]
) -> None:
    job = world.claim(world.submit())
    world.expire_lease(job.id)
    assert caretaker.sweep() == Swept(requeued=1, published=1)
    row = world.job_row(job.id)
    assert row.token > job.token
    assert [message.seq for message in sent] == [row.publish_seq]


def test_a_cancelled_idle_job_ends_and_its_upload_is_aborted_in_one_sweep(world: World, caretaker: Caretaker) -> None:
    world.memory.put(KEY, OLD)
    job_id = world.half_sent()
    world.change(job_id, cancel_requested=True)
    assert caretaker.sweep() == Swept(changed=1, aborted=1)
    assert world.job_row(job_id).state == "cancelled"
    assert (blob(world.memory, KEY), unfinished(world.memory)) == (OLD, [])
    assert [upload.state for upload in world.uploads(job_id)] == ["gone"]


def test_a_kept_upload_is_aborted_when_its_time_is_over(world: World, caretaker: Caretaker) -> None:
    job_id = world.submit()
    world.run(job_id, FaultyStore(world.memory, "upload_part", fail_at=4), retry={"max_attempts": 1})
    assert (caretaker.sweep(), len(unfinished(world.memory))) == (Swept(), 1)
    (upload,) = world.uploads(job_id)
    world.change_upload(upload.id, recheck_at=ago(1))
    assert (caretaker.sweep(), unfinished(world.memory)) == (Swept(aborted=1), [])


def test_a_part_that_lands_after_the_abort_is_found_by_the_second_look(world: World, caretaker: Caretaker) -> None:
    """A store where an aborted upload may come back with its late part."""
    job_id = cancelled(world, upload_id=world.memory.create_upload(KEY), state="gone", recheck_at=ago(-3600))
    assert caretaker.sweep() == Swept()
    world.change_upload(world.uploads(job_id)[0].id, recheck_at=ago(1))
    assert (caretaker.sweep(), unfinished(world.memory)) == (Swept(aborted=1), [])
    assert not caretaker.sweep()


def test_a_lost_upload_without_an_id_is_found_and_aborted_and_others_are_left(
    world: World, caretaker: Caretaker
) -> None:
    cancelled(world, upload_id=None, state="aborting")
    world.memory.create_upload(KEY)
    theirs = world.memory.create_upload(KEY)
    world.memory.upload_part(KEY, theirs, 1, b"theirs")
    assert (caretaker.sweep(), unfinished(world.memory)) == (Swept(aborted=1), [theirs])


@pytest.mark.parametrize("error", [StoreUnavailableError, PermissionDeniedError])
def test_an_upload_that_cannot_be_aborted_stays_in_the_ledger_and_does_not_stop_the_others(
    error: type[Exception], world: World
) -> None:
    job_id = cancelled(world, upload_id=world.memory.create_upload(KEY), state="aborting")
    world.add_upload(job_id, key=KEY, upload_id=world.memory.create_upload(KEY), state="aborting")
    world.add_upload(job_id, key=KEY, upload_id="x", state="aborting", storage="nowhere")
    failing = FaultyStore(world.memory, "abort_upload", error=lambda: error("not now"))
    assert (world.sweep(failing).aborted, len(unfinished(world.memory))) == (1, 1)
    assert world.sweep(failing).aborted == 0, "what failed is put off, so that others need not wait behind it"
    for upload in world.uploads(job_id)[:2]:
        world.change_upload(upload.id, recheck_at=None if upload.state == "gone" else ago(1))
    assert (world.sweep(failing).aborted, unfinished(world.memory)) == (1, [])
    assert [upload.state for upload in world.uploads(job_id)] == ["gone", "gone", "aborting"]


@pytest.mark.parametrize("had_tombstone", [False, True])
def test_old_jobs_are_pruned_also_where_a_tombstone_is_there_already(
    had_tombstone: bool, world: World, caretaker: Caretaker
) -> None:
    jobs = {world.submit(), world.submit(arguments={"path": "/other"})}
    for job_id in jobs:
        world.run(job_id)
    assert caretaker.sweep() == Swept()
    for job_id in jobs:
        world.change(job_id, finished_at=ago(31 * 24 * 3600))
    if had_tombstone:
        with world.database.begin() as session:
            session.execute(insert(TombstoneRow).values(id=min(jobs)))
    assert caretaker.sweep() == Swept(pruned=2)
    assert (world.tombstones(), world.count_rows("blobferry_jobs")) == (jobs, 0)


@pytest.mark.parametrize("broken", ["publish", "store"])
def test_a_step_that_fails_does_not_stop_the_others(broken: str, world: World) -> None:
    def publish(*messages: Message) -> int:
        if broken == "publish":
            raise RuntimeError("a bug")
        return len(messages)

    dead, waiting, cancelled = (world.submit() for _ in range(3))
    world.submit(state="succeeded", finished_at=datetime(2020, 1, 1, tzinfo=UTC))
    world.abandon(dead)
    world.change(cancelled, cancel_requested=True)
    world.add_upload(cancelled, key=KEY, upload_id=world.memory.create_upload(KEY))
    failing = FaultyStore(world.memory, "abort_upload", times=9 * (broken == "store"), error=RuntimeError)
    swept = world.sweep(failing, publish=publish)
    assert (swept.requeued, swept.pruned) == (1, 1)
    assert world.job_row(cancelled).state == "cancelled"
    assert (swept.published, swept.aborted) == ((0, 1) if broken == "publish" else (2, 0))
    assert world.job_row(waiting).published_at is not None


def test_a_database_that_is_away_is_no_error_of_a_sweep(world: World, tmp_path: Path) -> None:
    empty = Database(f"sqlite:///{tmp_path / 'empty.db'}")  # without tables: every statement fails
    assert not world.sweep(database=empty)
    empty.close()


def test_the_loop_sweeps_until_it_is_told_to_end_and_in_time_for_the_next_run(world: World, runtime: Runtime) -> None:
    ended, seen, sent = threading.Event(), threading.Event(), list[Message]()

    def publish(*messages: Message) -> int:
        sent.extend(messages)
        seen.set()
        return len(messages)

    job_id = world.submit(state="retrying", run_at=ago(-0.3))
    runtime.settings = runtime.settings.model_copy(update={"sweep": SweepSettings(interval_seconds=3600)})
    thread = threading.Thread(target=Caretaker(runtime, publish).loop, args=(ended,))
    thread.start()
    assert seen.wait(60), "long before the interval is over"
    ended.set()
    thread.join(60)
    assert not thread.is_alive()
    assert [message.job_id for message in sent] == [job_id]


class Pruning(Caretaker):
    """A caretaker whose first two sweeps find something to prune; it ends after the fifth."""

    def __init__(self, runtime: Runtime, ended: threading.Event) -> None:
        super().__init__(runtime, lambda *messages: len(messages))
        self.ended, self.were_quick = ended, list[bool]()

    def sweep(self, *, is_quick: bool = False) -> Swept:
        self.were_quick.append(is_quick)
        if len(self.were_quick) == 5:
            self.ended.set()
        return Swept(pruned=int(len(self.were_quick) <= 2))


def test_the_loop_prunes_at_once_and_goes_on_while_there_is_something_to_prune(runtime: Runtime) -> None:
    runtime.settings = runtime.settings.model_copy(update={"sweep": SweepSettings(interval_seconds=0.1)})
    caretaker = Pruning(runtime, threading.Event())
    caretaker.loop(caretaker.ended)
    assert caretaker.were_quick == [False, False, False, True, True]


def test_a_quick_sweep_leaves_out_nothing_but_what_waits_for_hours(
    world: World, caretaker: Caretaker, sent: list[Message]
) -> None:
    dead, cancelled_job = world.submit(), world.submit(arguments={"path": "/b"}, cancel_requested=True)
    world.abandon(dead)
    cancelled(world, upload_id=world.memory.create_upload(KEY), state="aborting")
    world.submit(state="succeeded", finished_at=datetime(2020, 1, 1, tzinfo=UTC))
    assert caretaker.sweep(is_quick=True) == Swept(requeued=1, changed=1, published=1, aborted=1)
    assert world.job_row(cancelled_job).state == "cancelled"
    assert caretaker.sweep() == Swept(pruned=1)


@on_each_database
def test_an_idle_sweep_costs_no_more_than_this(world: World, runtime: Runtime) -> None:
    processes = WorkerProcesses("cafe", os.getpid())
    caretaker, cost = Caretaker(runtime, lambda *messages: 0, processes, runs_jobs=True), Cost()
    caretaker.sweep()
    with counted(world.database, cost):
        caretaker.sweep(is_quick=True)
    assert cost.transactions <= 7, "five that may write, and two reads"
    assert len(cost.statements) <= 11, cost.statements


class Noting(Caretaker):
    """A caretaker that only notes what it is to cancel."""

    def cancel(self, job_id: str) -> None:
        self.noted = job_id


@pytest.mark.parametrize("job_id", ["job", "quoted '\" id", "two\nlines", "ä ☃ 🙂", "lone \udc80", "🙂" * MAX_JOB_ID])
def test_the_parents_request_for_a_cancel_arrives_whatever_the_id(runtime: Runtime, job_id: str) -> None:
    line = request_line(job_id)
    assert len(line) <= select.PIPE_BUF
    assert line.count(b"\n") == 1
    caretaker = Noting(runtime, lambda *messages: len(messages))
    caretaker.listen([line.decode("ascii")])
    assert caretaker.noted == job_id


@on_each_database
def test_a_silent_broker_holds_up_a_sweep_once(world: World) -> None:
    jobs = [world.submit(arguments={"path": f"/{number}"}, cancel_requested=True) for number in range(5)]
    tried: list[int] = []

    def silent(*messages: Message) -> int:
        tried.append(len(messages))
        return 0

    world.sweep(publish=silent)
    assert tried == [len(jobs)]
    assert {world.job_row(job_id).state for job_id in jobs} == {"cancelled"}


# --- which workers are alive -----------------------------------------------------------------------------------------


def others_alive(world: World) -> int:
    return int(world.count_others("somebody else", "storages.default"))


@pytest.mark.parametrize("runs_jobs", [True, False], ids=["jobs", "reads only"])
def test_a_caretaker_reports_a_worker_that_runs_jobs_as_alive_until_it_signs_off(
    runs_jobs: bool, world: World, runtime: Runtime
) -> None:
    processes = WorkerProcesses("cafe", os.getpid())
    caretaker = Caretaker(runtime, lambda *messages: len(messages), processes, runs_jobs=runs_jobs)
    for _ in range(2):
        caretaker.sweep()
    assert others_alive(world) == int(runs_jobs)
    caretaker.sign_off()
    assert others_alive(world) == 0


def test_a_caretaker_of_no_worker_reports_none(world: World, caretaker: Caretaker) -> None:
    caretaker.sweep()
    assert others_alive(world) == 0
