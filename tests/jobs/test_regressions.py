"""Bugs that a reviewer proved in jobs' lives: each was mended once and must not come back."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery.app.task import Context
from sqlalchemy import delete, event, insert, update
from sqlalchemy.orm import Session

from blobferry import Client
from blobferry.contract import REQUEST_VERSION, UploadState
from blobferry.messages.job_messages import Message
from blobferry.sql.clock import db_now
from models import Database, PathLockRow, TombstoneRow, queries
from tests.doubles import (
    DeathError,
    FaultyStore,
    HookedStore,
    LaggingStore,
    LyingStore,
    RecordingStore,
    WrappedStore,
    blob,
    tiny_store,
    unfinished,
)
from tests.jobs.job_world import KEY, OLD, PART, PATH, World
from tests.models.rows import (
    add_upload,
    ago,
    change,
    change_upload,
    claim,
    count_rows,
    expire_lease,
    job_row,
    lease_of,
    outcomes,
    submit,
    tombstones,
    try_claim,
    uploads,
)
from worker.celery.bare_task import make_row
from worker.driver import Driver
from worker.errors import LeaseLostError, UnreachableError
from worker.jobs.outcome import Finished, NotClaimed, Outcome, Rescheduled
from worker.jobs.runner import run_job
from worker.jobs.sql_checkpoint import SqlCheckpoint
from worker.maintenance.abort_uploads import BATCH, abort_given_up
from worker.maintenance.caretaker import Caretaker
from worker.runtime import Runtime
from worker.stores.store import Store
from worker.transfer.upload.engine import Engine

DAY = 24 * 3600.0


@pytest.fixture
def world(sqlite_database: Database, tmp_path: Path) -> World:
    return make_world(sqlite_database, tmp_path)


def make_world(database: Database, directory: Path, size: int = 95) -> World:
    incoming = directory / "incoming"
    incoming.mkdir()
    return World(database, incoming, size)


def due(world: World, job_id: str) -> None:
    """Time passes until the job may run again."""
    change(world.database, job_id, run_at=ago(1))


def sweep(world: World, store: Store | None = None) -> int:
    """One sweep; how many uploads it aborted."""
    with world.worker(store) as runtime:
        return Caretaker(runtime, lambda message: True).sweep().aborted


def died(world: World, job_id: str, store: Store) -> None:
    """A run whose worker dies, and whose lease runs out."""
    with pytest.raises(DeathError):
        world.run(job_id, store)
    expire_lease(world.database, job_id)


@contextmanager
def worker_with(world: World, **stores: tuple[Store, str]) -> Iterator[Runtime]:
    """A worker with these storages, each a store and its root directory."""
    engine = Engine(part_size=PART, part_threads=1)
    drivers = {name: Driver(store, root=root, engine=engine) for name, (store, root) in stores.items()}
    with world.worker() as usual:
        runtime = Runtime(usual.settings, database=world.database, drivers=drivers)
        try:
            yield runtime
        finally:
            runtime.engine.close()
            engine.close()


def run_with(world: World, job_id: str, **stores: tuple[Store, str]) -> Outcome:
    with worker_with(world, **stores) as runtime:
        return run_job(runtime, job_id)


def half_sent(world: World) -> str:
    """A job whose first run had to stop after five parts."""
    job_id = world.submit()
    assert isinstance(world.run(job_id, FaultyStore(world.memory, "upload_part", fail_at=6, times=100)), Rescheduled)
    due(world, job_id)
    return job_id


def sent_and_not_completed(world: World) -> str:
    """A job whose completion the store answers with 503, so that nobody knows whether it will work."""
    job_id = world.submit()
    assert isinstance(world.run(job_id, FaultyStore(world.memory, "complete_upload", times=100)), Rescheduled)
    assert job_row(world.database, job_id).phase == "completing"
    due(world, job_id)
    return job_id


def sent_and_not_seen(world: World) -> str:
    """A job whose blob Stat does not show yet."""
    job_id = world.submit()
    assert isinstance(world.run(job_id, LaggingStore(world.memory, 3)), Rescheduled)
    assert job_row(world.database, job_id).phase == "verifying"
    due(world, job_id)
    return job_id


# --- the answer of a COMMIT is lost --------------------------------------------------------------------------------


class ForgetfulDatabase(Database):
    """Commits, and loses the answer of the one commit that brings the job into this state."""

    def __init__(self, url: str, job_id: str, state: str) -> None:
        super().__init__(url)
        self.lost = 0
        self._job_id = job_id
        self._state = state

    @contextmanager
    def begin(self) -> Iterator[Session]:
        with super().begin() as session:
            yield session
        if self.lost:
            return
        with super().begin() as session:
            job = queries.find_job(session, self._job_id)
        if job is not None and job.state == self._state:
            self.lost += 1
            raise UnreachableError("server closed the connection unexpectedly")


def run_forgetfully(world: World, job_id: str, state: str) -> Outcome:
    database = ForgetfulDatabase(str(world.database.engine.url), job_id, state)
    with world.worker(database=database) as runtime:
        outcome = run_job(runtime, job_id)
    assert database.lost == 1
    database.close()
    return outcome


def test_a_job_whose_last_commit_lost_its_answer_has_succeeded_and_says_so(world: World) -> None:
    job_id = world.submit()
    outcome = run_forgetfully(world, job_id, "succeeded")
    row = job_row(world.database, job_id)
    assert (row.state, row.error_code, row.attempt) == ("succeeded", None, 1)
    assert row.result is not None
    assert outcome == Finished(result=row.result)
    assert outcomes(world.database, job_id) == ["succeeded"]
    world.file.unlink()  # whoever sees "succeeded" may do that
    due(world, job_id)
    assert world.run(job_id) == NotClaimed()
    assert job_row(world.database, job_id).state == "succeeded"


def test_a_run_that_has_ended_writes_nothing_more(world: World) -> None:
    job_id = world.submit()
    world.run(job_id)
    row = job_row(world.database, job_id)
    with pytest.raises(LeaseLostError), world.database.begin() as session:
        queries.update_owned(session, job_id, row.token, state="retrying")
    with world.database.begin() as session:
        assert queries.extend_lease(session, job_id, row.token, 30) is None
    assert job_row(world.database, job_id).as_row() == row.as_row()


def test_a_job_whose_failure_lost_its_answer_stays_failed(world: World) -> None:
    job_id = world.submit()
    world.file.unlink()
    run_forgetfully(world, job_id, "failed")
    row = job_row(world.database, job_id)
    assert (row.state, row.error_code) == ("failed", "source_not_found")


# --- a death around the completion ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5, 95], ids=["a put", "parts"])
@pytest.mark.parametrize("fate", ["deleted", "replaced"])
def test_a_source_may_go_once_readers_see_the_blob_though_the_worker_died(
    fate: str, size: int, sqlite_database: Database, tmp_path: Path
) -> None:
    world = make_world(sqlite_database, tmp_path, size)
    job_id = world.submit()
    died(world, job_id, FaultyStore(world.memory, "complete_upload", "put", when="after", error=DeathError))
    assert blob(world.memory, KEY) == world.data
    if fate == "deleted":
        world.file.unlink()
    else:
        world.file.write_bytes(b"tomorrow's file")
    outcome = world.run(job_id)
    assert isinstance(outcome, Finished)
    assert outcome.error is None
    assert job_row(world.database, job_id).state == "succeeded"
    assert blob(world.memory, KEY) == world.data


@pytest.mark.parametrize("old", [None, OLD], ids=["over nothing", "over an old blob"])
def test_a_completion_that_takes_effect_between_the_look_and_the_list_is_ours(old: bytes | None, world: World) -> None:
    if old is not None:
        world.memory.put(KEY, old)
    job_id = world.submit()
    on_its_way: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    class SlowStore(WrappedStore):
        """Its worker dies while a completion is on its way."""

        def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
            if name == "complete_upload":
                on_its_way.append((args, keywords))
                raise DeathError
            return super()._do(name, args, keywords)

    def arrive(verb: str) -> None:
        if verb == "list_parts" and on_its_way:
            args, keywords = on_its_way.pop()
            world.memory.complete_upload(*args, **keywords)

    died(world, job_id, SlowStore(world.memory))
    recording = RecordingStore(HookedStore(world.memory, before=arrive))
    outcome = world.run(job_id, recording)
    assert on_its_way == []
    assert isinstance(outcome, Finished)
    row = job_row(world.database, job_id)
    assert (row.state, row.error_code, row.restarts) == ("succeeded", None, 0)
    assert recording.sent() == [], "nothing is sent again"
    assert blob(world.memory, KEY) == world.data


def test_a_part_replaced_behind_our_back_is_sent_again_by_the_next_run(world: World) -> None:
    """A dead worker's request lands between our list of the parts and our completion."""
    job_id = world.submit()
    late = [3]

    def land(verb: str) -> None:
        if verb == "complete_upload" and late:
            (upload_id,) = unfinished(world.memory)
            world.memory.upload_part(KEY, upload_id, late.pop(), b"x" * PART)

    assert isinstance(world.run(job_id, HookedStore(world.memory, before=land)), Rescheduled)
    row = job_row(world.database, job_id)
    assert (row.state, row.error_code) == ("retrying", "invalid_part")
    due(world, job_id)
    recording = RecordingStore(world.memory)
    assert isinstance(world.run(job_id, recording), Finished)
    assert recording.sent() == [(3, world.data[2 * PART : 3 * PART])]
    assert job_row(world.database, job_id).state == "succeeded"
    assert blob(world.memory, KEY) == world.data


@pytest.mark.parametrize("before", [sent_and_not_completed, sent_and_not_seen])
def test_a_worker_without_the_storage_leaves_a_job_past_its_return_to_one_that_has_it(
    before: Any, world: World
) -> None:
    job_id = before(world)
    assert isinstance(run_with(world, job_id, another=(tiny_store(), "")), Rescheduled)
    row = job_row(world.database, job_id)
    assert (row.state, row.error_code) == ("retrying", "configuration")
    due(world, job_id)
    assert isinstance(world.run(job_id), Finished)
    assert job_row(world.database, job_id).state == "succeeded"
    assert blob(world.memory, KEY) == world.data


def test_a_completing_upload_is_kept_when_the_error_says_nothing_about_its_completion(world: World) -> None:
    job_id = sent_and_not_completed(world)
    world.file.unlink()
    assert isinstance(world.run(job_id), Finished)
    row = job_row(world.database, job_id)
    assert (row.state, row.error_code) == ("failed", "source_not_found")
    (upload,) = uploads(world.database, job_id)
    assert upload.state == UploadState.COMPLETING
    assert upload.recheck_at is not None
    assert sweep(world) == 0
    assert len(unfinished(world.memory)) == 1
    change_upload(world.database, upload.id, recheck_at=ago(1))
    assert sweep(world) == 1
    assert unfinished(world.memory) == []


# --- uploads that nobody knows of ----------------------------------------------------------------------------------


def test_an_old_owners_upload_that_is_opened_after_the_takeover_is_aborted_by_itself(world: World) -> None:
    job_id = world.submit()
    others: list[Outcome] = []

    def take_over(verb: str) -> None:
        if verb == "create_upload" and not others:
            expire_lease(world.database, job_id)
            others.append(world.run(job_id))

    assert world.run(job_id, HookedStore(world.memory, before=take_over)) == NotClaimed()
    assert isinstance(others[0], Finished)
    assert job_row(world.database, job_id).state == "succeeded"
    assert unfinished(world.memory) == []


def test_an_upload_whose_create_arrives_after_its_row_was_given_up_is_found_later(world: World) -> None:
    job_id = world.submit()
    died(world, job_id, FaultyStore(world.memory, "create_upload", error=DeathError))
    assert isinstance(world.run(job_id), Finished)
    world.memory.create_upload(KEY)  # the dead worker's
    lost, last = uploads(world.database, job_id)
    assert (lost.state, lost.upload_id, last.state) == ("gone", None, "completed")
    assert lost.recheck_at is not None
    assert sweep(world) == 0
    change_upload(world.database, lost.id, recheck_at=ago(1))
    assert sweep(world) == 1
    assert unfinished(world.memory) == []
    assert sweep(world) == 0


def test_a_rescue_leaves_another_storages_fresh_upload_in_the_same_bucket_alone(world: World) -> None:
    lost, other = world.submit(), world.submit(arguments={"storage": "second"})
    died(world, lost, FaultyStore(world.memory, "create_upload", error=DeathError))
    change(world.database, lost, not_before=db_now(3600), attempt=0)  # a job of its time holds the path, this one not
    with world.database.begin() as session:
        session.execute(delete(PathLockRow))
    run_with(world, other, second=(FaultyStore(world.memory, "upload_part", times=99), ""))
    change(world.database, lost, not_before=None, attempt=1)
    with world.database.begin() as session:
        session.execute(update(PathLockRow).values(job_id=lost))
    (fresh,) = uploads(world.database, other)
    assert unfinished(world.memory) == [fresh.upload_id]
    assert isinstance(world.run(lost), Finished)
    assert unfinished(world.memory) == [fresh.upload_id]
    change(world.database, lost, state="cancelled")
    add_upload(world.database, lost, key=KEY, part_size=PART, upload_id=None, state="aborting")
    assert sweep(world) == 1
    assert unfinished(world.memory) == [fresh.upload_id]


def test_a_stale_owner_is_not_told_of_the_uploads(world: World) -> None:
    job_id = world.submit()
    stale = claim(world.database, job_id)
    checkpoint = SqlCheckpoint(lease_of(world.database, stale), world.memory, max_restarts=3)
    assert checkpoint.load() is None
    expire_lease(world.database, job_id)
    claim(world.database, job_id)
    with pytest.raises(LeaseLostError):
        checkpoint.load()


def test_fifty_uploads_that_cannot_be_aborted_do_not_hold_up_the_next(world: World) -> None:
    failed = world.submit(state="failed")
    for number in range(BATCH):
        add_upload(world.database, failed, storage="retired", upload_id=f"u{number}", state="aborting")
    upload_id = world.memory.create_upload(KEY)
    add_upload(world.database, failed, key=KEY, upload_id=upload_id, state="aborting")
    with world.worker() as runtime:
        assert abort_given_up(runtime) + abort_given_up(runtime) == 1
    assert unfinished(world.memory) == []
    assert [upload.state for upload in uploads(world.database, failed)] == ["aborting"] * BATCH + ["gone"]


# --- the configuration changed meanwhile ---------------------------------------------------------------------------


def moved_store(what: str) -> Store:
    """The storage's store after somebody has changed its bucket or its endpoint."""
    store = WrappedStore(tiny_store(bucket="other" if what == "bucket" else "memory"))
    if what == "endpoint":
        store.endpoint = "http://elsewhere:9000"
    return store


@pytest.mark.parametrize("what", ["bucket", "endpoint"])
def test_a_job_whose_storage_was_moved_fails_and_its_upload_is_not_called_gone(what: str, world: World) -> None:
    job_id = half_sent(world)
    moved = moved_store(what)
    outcome = world.run(job_id, moved)
    assert isinstance(outcome, Finished)
    row = job_row(world.database, job_id)
    assert (row.state, row.error_code) == ("failed", "configuration")
    assert "storages.default" in str(row.error_message)
    (upload,) = uploads(world.database, job_id)
    assert (upload.state, upload.bucket, upload.endpoint) == ("aborting", "memory", "")
    assert unfinished(world.memory) == [upload.upload_id]
    assert unfinished(moved) == []
    assert blob(moved, KEY) is None
    change_upload(world.database, upload.id, recheck_at=ago(1))
    assert sweep(world) == 1, "once it is moved back"
    assert unfinished(world.memory) == []


@pytest.mark.parametrize("what", ["bucket", "endpoint"])
def test_an_upload_in_a_bucket_that_the_storage_names_no_longer_stays_in_the_ledger(what: str, world: World) -> None:
    job_id = half_sent(world)
    change(world.database, job_id, cancel_requested=True)
    assert sweep(world, moved_store(what)) == 0
    assert job_row(world.database, job_id).state == "cancelled"
    (upload,) = uploads(world.database, job_id)
    assert upload.state == "aborting"
    assert unfinished(world.memory) == [upload.upload_id]


def test_a_job_whose_root_directory_was_changed_fails_and_its_upload_is_aborted_where_it_is(world: World) -> None:
    job_id = half_sent(world)
    assert isinstance(run_with(world, job_id, default=(world.memory, "moved")), Finished)
    row = job_row(world.database, job_id)
    assert (row.state, row.error_code) == ("failed", "configuration")
    assert "rootdirectory" in str(row.error_message)
    assert [upload.key for upload in uploads(world.database, job_id)] == [KEY]
    assert unfinished(world.memory) == []
    assert blob(world.memory, f"moved/{KEY}") is None


def test_a_completion_in_doubt_is_not_given_up_because_the_root_directory_was_changed(world: World) -> None:
    world.memory.put(KEY, OLD)
    job_id = sent_and_not_completed(world)
    run_with(world, job_id, default=(world.memory, "moved"))
    row = job_row(world.database, job_id)
    assert (row.state, row.error_code) == ("retrying", "configuration")
    due(world, job_id)
    assert isinstance(world.run(job_id), Finished)
    assert blob(world.memory, KEY) == world.data


# --- other people's rows -------------------------------------------------------------------------------------------


def test_rows_of_an_unknown_operation_are_left_to_workers_that_know_it(world: World) -> None:
    unknown = [world.submit() for _ in range(8)]
    for job_id in unknown:
        change(world.database, job_id, operation="teleport", priority=5)
    known = world.submit()
    sent: list[Message] = []

    def send(message: Message) -> bool:
        sent.append(message)
        return True

    with world.worker() as runtime:
        assert Caretaker(runtime, send).sweep().published == 1
    assert [message.job_id for message in sent] == [known]
    assert try_claim(world.database, unknown[0]) is None
    assert {job_row(world.database, job_id).state for job_id in unknown} == {"queued"}
    assert {job_row(world.database, job_id).published_at for job_id in unknown} == {None}


def test_rows_of_a_newer_request_version_are_left_to_workers_that_know_it(world: World) -> None:
    newer = world.submit(request_version=REQUEST_VERSION + 1)
    assert try_claim(world.database, newer) is None
    change(world.database, newer, request_version=REQUEST_VERSION)
    assert try_claim(world.database, newer) is not None


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


@pytest.mark.parametrize("statement", range(4))
def test_a_bare_message_of_a_job_that_is_pruned_meanwhile_makes_no_row(
    statement: int, postgres_database: Database, tmp_path: Path
) -> None:
    """Pruning commits right before the first, second … statement of the message's transaction."""
    job_id = submit(postgres_database, state="succeeded", finished_at=ago(31 * DAY))
    row = job_row(postgres_database, job_id)
    url = postgres_database.engine.url.render_as_string(hide_password=False)
    pruner, database = Database(url), Database(url)
    left = [statement]

    def prune(*args: Any) -> None:
        left[0] -= 1
        if left[0] == -1:
            with pruner.begin() as session:
                assert queries.prune(session, keep_seconds=DAY, tombstone_seconds=99 * DAY, limit=10) == 1

    event.listen(database.engine, "before_cursor_execute", prune)
    arguments = {**(row.request or {}), "storage": row.storage}
    with make_world(database, tmp_path).worker(database=database) as runtime:
        made = make_row(runtime, Context(id=job_id), "write_stream", arguments)
    if left[0] >= 0:  # there are not as many: it goes as if nothing was pruned
        assert statement >= 2
        prune()
    else:
        assert not made
    assert count_rows(database, "blobferry_jobs") == 0
    assert tombstones(database) == {job_id}
    pruner.close()
    database.close()


@pytest.mark.parametrize("first", ["the bare task", "the client"])
def test_a_bare_task_and_a_client_with_one_idempotency_key_are_one_job(first: str, world: World) -> None:
    arguments = {"path": PATH, "source": world.file.as_uri(), "idempotency_key": "K"}
    url = str(world.database.engine.url)
    with world.worker() as runtime, Client(database_url=url, broker_url="memory://") as client:
        if first == "the client":
            job = client.write_stream(PATH, world.file, idempotency_key="K")
            assert not make_row(runtime, Context(id="bare"), "write_stream", arguments)
        else:
            assert make_row(runtime, Context(id="bare"), "write_stream", arguments)
            job = client.write_stream(PATH, world.file, idempotency_key="K")
            assert job.id == "bare"
    assert count_rows(world.database, "blobferry_jobs") == 1
    assert job_row(world.database, job.id).idempotency_key == "K"


def test_the_first_member_of_a_group_keeps_its_place(world: World) -> None:
    with world.worker() as runtime:
        arguments = {"path": PATH, "source": world.file.as_uri()}
        assert make_row(runtime, Context(id="first", group="g", group_index=0, callbacks=[]), "write_stream", arguments)
    assert job_row(world.database, "first").message_options == {"group_id": "g", "group_index": 0}


# --- numbers -------------------------------------------------------------------------------------------------------


def test_two_thousand_polls_do_not_overflow(world: World) -> None:
    job_id = sent_and_not_seen(world)
    change(world.database, job_id, polls=2000)
    outcome = world.run(job_id, LyingStore(world.memory), transfer={"verify_seconds": DAY})
    assert isinstance(outcome, Rescheduled)
    row = job_row(world.database, job_id)
    assert (row.state, row.polls, row.error_code) == ("verifying", 2001, None)
