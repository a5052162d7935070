"""What Celery hears of a run, and what is sent for the next one: tasks as a child runs them, without the processes."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery, signals
from celery.app.task import Context
from celery.exceptions import Ignore, Retry
from celery.worker import state as worker_state
from sqlalchemy import event
from sqlalchemy.orm import Session

from blobferry import Client
from blobferry.checks.arguments import MAX_JOB_ID
from blobferry.contract import JOBS_QUEUE, ROW_HEADER, SEQ_HEADER
from blobferry.messages.job_messages import Message, client_app, publish
from dev.services import free_port
from dev.waiting import wait_until
from models import ClaimedJob, Database, JobRow, queries
from tests.doubles import PUBLISHING, DeathError, FaultyStore, HookedStore, blob
from tests.jobs.job_world import KEY, PART, PATH, THREADS, World
from tests.models.rows import (
    LEASE,
    ago,
    claim,
    count_rows,
    expire_lease,
    in_transaction,
    job_row,
    outcomes,
    submit,
    tombstones,
)
from worker.celery.bare_task import make_row
from worker.celery.job_task import JobTask
from worker.celery.next_jobs import publish_next
from worker.celery.revoke import ask_to_cancel, asked_since
from worker.errors import InvalidRequestError, UnreachableError
from worker.jobs.lease import lease_clock
from worker.jobs.outcome import Finished, NotClaimed
from worker.jobs.runner import run_job
from worker.maintenance.caretaker import Caretaker
from worker.runtime import Runtime, start_runtime
from worker.stores.store import Store

NOTHING: dict[str, Any] = {"args": [], "kwargs": {}, "options": {}}
#: What an app may ask of Celery beside the task itself, as a worker gets it: what a message embeds, and its headers.
EMBEDDED: dict[str, Any] = {
    "callbacks": [{"task": "app.done", **NOTHING}],
    "errbacks": [{"task": "app.failed", **NOTHING}],
    "chain": [{"task": "app.next", **NOTHING}],
    "chord": {"task": "app.all_done", **NOTHING},
}
HEADERS: dict[str, Any] = {
    "group": "the-group",
    "group_index": 0,
    "parent_id": "the-parent",
    "root_id": "the-root",
}


class Tasks:
    """Our tasks, a broker in memory, and one runtime after another."""

    def __init__(self, app: Celery, world: World) -> None:
        self.app = app
        self.world = world

    @contextmanager
    def child(self, store: Store | None = None, **sections: Any) -> Iterator[Runtime]:
        """A worker child: the runtime that tasks find."""
        with self.world.worker(store, **sections) as runtime:
            yield start_runtime(runtime)

    @property
    def task(self) -> JobTask:
        task = self.app.tasks["blobferry.write_stream"]
        assert isinstance(task, JobTask)
        return task

    def deliver(self, task_id: str, headers: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """What the run of a message ends with, as Celery's child sees it."""
        self.task.push_request(id=task_id, **(headers or {}), **options)
        try:
            return self.task.run(path=PATH, source=self.world.file.as_uri())
        finally:
            self.task.pop_request()

    def deliver_newest(self, task_id: str) -> Any:
        return self.deliver(task_id, {ROW_HEADER: True, SEQ_HEADER: self.row(task_id).publish_seq})

    def row(self, task_id: str = "job") -> JobRow:
        return job_row(self.world.database, task_id)

    def sent(self) -> list[Any]:
        """The messages that were sent since the last look."""
        found = []
        with self.app.connection_for_read() as connection, connection.SimpleQueue(JOBS_QUEUE) as queue:
            while queue.qsize():
                message = queue.get_nowait()
                message.ack()
                found.append(message)
        return found

    def ends_a_run(self) -> None:
        """What Celery calls after a run that is not the last."""
        self.task.on_retry(None, "", [], {}, None)


@pytest.fixture
def world(sqlite_database: Database, tmp_path: Path) -> World:
    """A world whose file has parts enough for some slices."""
    return World(sqlite_database, tmp_path, size=40 * PART)


@pytest.fixture
def tasks(world: World) -> Iterator[Tasks]:
    app = Celery("rules", broker=f"memory://{uuid4().hex}", backend="cache+memory://", include=["tasks.transfers"])
    app.loader.import_default_modules()
    tasks = Tasks(app, world)
    tasks.sent()
    yield tasks
    app.close()


SLICED: dict[str, Any] = {"transfer": {"slice_seconds": 0.000001}}


def test_a_run_that_is_not_the_last_ends_by_retry_and_sends_nothing(tasks: Tasks) -> None:
    away = FaultyStore(tasks.world.memory, "upload_part", times=99)
    with tasks.child(away), pytest.raises(Retry) as caught:
        tasks.deliver("job")
    assert caught.value.when is not None
    assert tasks.row().state == "retrying"
    assert tasks.sent() == [], "the schedule is SQL"


def test_a_run_that_claims_nothing_ends_by_ignore(tasks: Tasks) -> None:
    job_id = tasks.world.submit()
    claim(tasks.world.database, job_id)
    with tasks.child(), pytest.raises(Ignore):
        tasks.deliver_newest(job_id)
    with tasks.child(), pytest.raises(Ignore):
        tasks.deliver("never", {ROW_HEADER: True, SEQ_HEADER: 0})
    assert outcomes(tasks.world.database, job_id) == [None]


def test_the_last_run_ends_with_the_result_that_its_row_has(tasks: Tasks) -> None:
    with tasks.child():
        result = tasks.deliver("job")
    assert result == tasks.row().result
    assert blob(tasks.world.memory, KEY) == tasks.world.data


def test_what_celery_was_asked_beside_the_task_is_on_the_row_and_goes_with_every_message(tasks: Tasks) -> None:
    with tasks.child(**SLICED):
        with pytest.raises(Retry):
            tasks.deliver("job", **EMBEDDED, **HEADERS)
        for _ in range(2):  # slices
            tasks.ends_a_run()
            (message,) = tasks.sent()
            expected = {"id": "job", ROW_HEADER: True, SEQ_HEADER: tasks.row().publish_seq, **HEADERS}
            assert {name: message.headers[name] for name in expected} == expected
            embedded = json.loads(message.body)[2]
            assert {name: plain(embedded[name]) for name in EMBEDDED} == EMBEDDED
            with pytest.raises(Retry):
                tasks.deliver_newest("job")


def plain(signature: Any) -> Any:
    """A signature, or some, without what Celery itself adds."""
    if isinstance(signature, list):
        return [plain(one) for one in signature]
    return {name: signature[name] for name in ("task", "args", "kwargs", "options")}


@pytest.mark.parametrize("end", ["after_return", "on_retry"])
def test_a_run_that_ends_publishes_the_next_job_without_a_caretaker(tasks: Tasks, end: str) -> None:
    following = tasks.world.submit(arguments={"path": "/another"})
    with tasks.child():
        getattr(tasks.task, end)(None, "", [], {}, None)
    assert [message.headers["id"] for message in tasks.sent()] == [following]


@contextmanager
def noted_statements(database: Database) -> Iterator[list[str]]:
    """The statements that the block sends, transactions included."""
    said: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        said.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    yield said
    event.remove(database.engine, "before_cursor_execute", note)


def test_a_run_that_ends_asks_sql_once_if_no_job_needs_a_message(tasks: Tasks) -> None:
    tasks.world.submit(published_at=ago(1))
    tasks.world.submit(arguments={"path": "/later"}, run_at=ago(-60))
    with tasks.child(), noted_statements(tasks.world.database) as said:
        tasks.ends_a_run()
    assert (len(said), tasks.sent()) == (1, [])


def test_a_run_that_ends_asks_nothing_while_the_broker_is_known_to_be_away(tasks: Tasks) -> None:
    job_id = tasks.world.submit()
    with tasks.child(), closing(client_app(f"redis://127.0.0.1:{free_port()}/0")) as away:
        publish_next(away)
        assert tasks.world.job_row(job_id).published_at is None
        with noted_statements(tasks.world.database) as said:
            publish_next(away)
    assert said == []


def test_a_bare_task_is_durable_from_its_arrival(tasks: Tasks) -> None:
    """The worker dies with it, and the broker has forgotten its message."""
    deadly = FaultyStore(tasks.world.memory, "upload_part", error=lambda: DeathError("SIGKILL"))
    with tasks.child(deadly), pytest.raises(DeathError):
        tasks.deliver("job")
    expire_lease(tasks.world.database, "job")
    with tasks.child() as runtime:
        assert Caretaker(runtime, partial(publish, tasks.app)).sweep().published == 1
        (message,) = tasks.sent()
        assert message.headers[ROW_HEADER] is True
        tasks.deliver("job", {name: message.headers[name] for name in (ROW_HEADER, SEQ_HEADER)})
    assert outcomes(tasks.world.database, "job") == ["died", "succeeded"]
    assert blob(tasks.world.memory, KEY) == tasks.world.data


def test_a_message_of_an_earlier_slice_is_old(tasks: Tasks) -> None:
    with tasks.child(**SLICED):
        with pytest.raises(Retry):
            tasks.deliver("job")
        first = tasks.row().publish_seq
        with pytest.raises(Retry):
            tasks.deliver_newest("job")
        before = tasks.row().as_row()
        with pytest.raises(Ignore):
            tasks.deliver("job", {ROW_HEADER: True, SEQ_HEADER: first})
        assert tasks.row().as_row() == before


def test_a_revoke_is_told_to_the_caretaker_and_forgotten_by_celery(tasks: Tasks) -> None:
    before = max((when for when, _ in asked_since(0)), default=0.0)
    request = Context(id="revoked-job")
    worker_state.revoked.add(request.id)
    signals.task_revoked.send(sender=tasks.task, request=request, terminated=False, signum=None, expired=False)
    assert request.id not in worker_state.revoked, "it may be retried under this id"
    assert [task_id for _, task_id in asked_since(before)] == [request.id]


# --- the lease -------------------------------------------------------------------------------------------------------


class DeafDatabase(Database):
    """No heartbeat gets through."""

    @contextmanager
    def begin(self) -> Iterator[Session]:
        if threading.current_thread().name == "heartbeat":
            raise UnreachableError("database: timeout expired")
        with super().begin() as session:
            yield session


@pytest.mark.parametrize(
    ("verb", "times"), [("upload_part", 3), ("head", 2)], ids=["amid parts", "right before the commit call"]
)
def test_near_the_end_of_a_lease_that_is_not_renewed_no_part_and_no_publishing_call_begins(
    world: World, verb: str, times: int
) -> None:
    """Though the job is still this run's, and its other writes get through."""
    for scale in (1, 4, 16):  # on a busy machine a short lease is over before the call in question
        job_id = world.submit()
        calls, late = _calls_of_a_deaf_run(world, job_id, verb, times, scale)
        if late is not None:
            break
        expire_lease(world.database, job_id)
        assert isinstance(world.run(job_id), Finished)
        world.memory.delete_batch([KEY])
    assert late is not None, "the call in question was reached"
    assert calls[late:].count("upload_part") <= THREADS - 1, "what was in hand"
    assert PUBLISHING.isdisjoint(calls)
    assert blob(world.memory, KEY) is None
    expire_lease(world.database, job_id)
    assert isinstance(world.run(job_id), Finished)
    assert blob(world.memory, KEY) == world.data


def _calls_of_a_deaf_run(world: World, job_id: str, verb: str, times: int, scale: int) -> tuple[list[str], int | None]:
    """What a run that cannot renew its lease calls, and how many calls there were once the lease was near its end."""
    lease = {"seconds": 4 * scale, "heartbeat_seconds": 0.5, "margin_seconds": 2.5 * scale}
    claimed_at = lease_clock()
    calls: list[str] = []
    late: list[int] = []

    def wait_for_the_margin(called: str) -> None:
        calls.append(called)
        if calls.count(verb) >= times and not late:
            wait_until(lambda: lease_clock() - claimed_at > 1.7 * scale, 60, "the lease is near its end")
            late.append(len(calls))

    deaf = DeafDatabase(str(world.database.engine.url))
    with world.worker(HookedStore(world.memory, before=wait_for_the_margin), database=deaf, lease=lease) as runtime:
        assert isinstance(run_job(runtime, job_id), NotClaimed)
    deaf.close()
    return calls, late[0] if late else None


# --- one job, whoever asks again -------------------------------------------------------------------------------------

DAY = 24 * 3600.0


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
                assert queries.prune(session, job_seconds=DAY, tombstone_seconds=99 * DAY, limit=10) == 1

    event.listen(database.engine, "before_cursor_execute", prune)
    arguments = {**(row.request or {}), "storage": row.storage}
    with World(database, tmp_path).worker() as runtime:
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


def test_a_bare_replay_of_a_rows_own_message_is_no_failure_of_its_job(world: World) -> None:
    """It shows no contents, so that it is no request; but Celery has the job's result already."""
    job_id = world.ask("put_content", path=PATH, contents=b"the bytes")
    shown = Message.from_row(world.job_row(job_id).as_row()).arguments
    with world.worker() as runtime:
        assert not make_row(runtime, Context(id=job_id), "put_content", shown)
        with pytest.raises(InvalidRequestError, match="contents"):
            make_row(runtime, Context(id="unknown"), "put_content", shown)
    assert count_rows(world.database, "blobferry_jobs") == 1


def test_a_bare_message_whose_claim_lost_its_answer_finds_its_job_again(database: Database) -> None:
    job_id = submit(database)

    def claim(worker: str) -> ClaimedJob | None:
        means = {"lease_seconds": LEASE, "failed_upload_seconds": DAY, "is_repeated": True}
        return in_transaction(database, queries.claim_job, job_id, worker=worker, **means)

    assert claim("w:1") is not None
    assert claim("w:2") is None
    again = claim("w:1")
    assert again is not None
    assert (again.attempt, again.crashes) == (1, 0)


def test_a_message_that_can_never_be_sent_is_not_taken_for_a_broker_that_is_away() -> None:
    """Whoever publishes stops at the first that the broker does not take: all others would wait behind this one."""
    app = client_app("memory://")
    unsendable = Message("job", "delete", "blobferry", {}, 0, {"link": object()})
    assert publish(app, unsendable)
    app.close()


def test_a_revoke_of_what_can_be_no_job_is_not_told_to_the_caretaker() -> None:
    ask_to_cancel("x" * 5000)
    ask_to_cancel("a job's")
    assert [task_id for _, task_id in asked_since(0)][-1] == "a job's"
    assert all(len(task_id) <= MAX_JOB_ID for _, task_id in asked_since(0))
