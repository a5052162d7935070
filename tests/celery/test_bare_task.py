"""Tasks on a real worker, asked by bare Celery as an app without our client would: rows, results, links, events."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from celery import Celery
from celery.result import AsyncResult
from sqlalchemy.exc import NoResultFound

from blobferry.contract import JOBS_QUEUE, ROW_HEADER, SEQ_HEADER
from dev.services import moto, valkey
from dev.stack import BUCKET, Stack
from models import Database, JobRow, TombstoneRow
from tests.celery.task_events import TaskEvents, task_events
from tests.models.rows import ago, change, count_rows, job_row, outcomes, submit
from worker.errors import SourceNotFoundError

MIB = 1024 * 1024
SETTINGS = {
    "BLOBFERRY_TRANSFER__PART_SIZE": str(5 * MIB),
    "BLOBFERRY_TRANSFER__PART_THREADS": "1",
    "BLOBFERRY_TRANSFER__SLICE_SECONDS": "0.4",
    "BLOBFERRY_SWEEP__INTERVAL_SECONDS": "0.3",
    "BLOBFERRY_CONCURRENCY": "1",
}


@dataclass(frozen=True)
class Running:
    """A stack with one worker, an app that knows nothing but Celery, and all that Celery said of its tasks."""

    stack: Stack
    app: Celery
    database: Database
    broker: "redis.Redis"
    events: TaskEvents

    def file(self, size: int = 1000) -> Path:
        path = self.stack.incoming / uuid4().hex
        with path.open("wb") as stream:
            stream.truncate(size)
        return path

    def send(self, operation: str, task_id: str | None = None, *args: Any, **arguments: Any) -> AsyncResult:
        """``app.send_task``, as bare as can be. ``options`` are what it takes beside the task."""
        options = arguments.pop("options", {})
        name, task_id = f"blobferry.{operation}", task_id or uuid4().hex
        return self.app.send_task(name, args, arguments, queue=JOBS_QUEUE, task_id=task_id, **options)

    def write(
        self, path: str, task_id: str | None = None, *, file: Path | None = None, **arguments: Any
    ) -> AsyncResult:
        """The same for a file, by default a new one of 1000 bytes."""
        return self.send("write_stream", task_id, path=path, source=(file or self.file()).as_uri(), **arguments)

    def wait_until_idle(self) -> None:
        """Everything that was sent has been taken, and the worker has come to a marker behind it."""
        self.write("/marker").get(timeout=20)

    def row(self, task_id: str) -> JobRow:
        return job_row(self.database, task_id)

    def has_no_row(self, task_id: str) -> None:
        with pytest.raises(NoResultFound):
            self.row(task_id)

    def links(self, queue: str) -> list[Any]:
        """The arguments of the messages that wait in a queue of the app's own."""
        messages = [json.loads(message) for message in self.broker.lrange(queue, 0, -1)]
        return [json.loads(base64.b64decode(message["body"]))[0] for message in messages]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("tasks")
    url = f"sqlite:///{directory / 'blobferry.db'}"
    with valkey() as broker, moto() as s3, redis.Redis.from_url(broker.url) as client:
        stack = Stack(broker.url, url, s3, directory, settings=SETTINGS)
        stack.prepare()
        database = Database(url)
        app = Celery("app", broker=broker.url, backend=broker.url, set_as_current=False)
        with stack.worker(), task_events(app) as events:
            yield Running(stack, app, database, client, events)
        database.close()
        app.close()


def test_a_bare_task_makes_its_row_and_succeeds_once(running: Running) -> None:
    result = running.write("/bare", file=running.file(3000), labels={"app": "shop"}, priority=3)
    answer = result.get(timeout=20)
    assert (answer["path"], answer["size"]) == ("/bare", 3000)
    row = running.row(result.id)
    assert (row.state, row.labels, row.priority, row.attempt) == ("succeeded", {"app": "shop"}, 3, 1)
    assert row.result == answer
    running.wait_until_idle()
    assert running.events.ends(result.id) == ["task-succeeded"]
    client = running.stack.s3.client()
    head = client.head_object(Bucket=BUCKET, Key="bare")
    client.close()
    assert head["ContentLength"] == 3000


@pytest.mark.parametrize(
    ("operation", "arguments", "answered"),
    [
        ("put_content", {"path": "/other/new", "contents": b"\0\xff"}, ("/other/new", 2)),
        ("move", {"source_path": "/other/old", "dest_path": "/other/moved"}, ("/other/moved", 1000)),
        ("delete", {"path": "/other"}, ("/other", None)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bare_task_of_another_operation_makes_its_row_and_succeeds_once(
    operation: str, arguments: dict[str, Any], answered: tuple[str, int | None], running: Running
) -> None:
    running.write("/other/old").get(timeout=20)
    result = running.send(operation, **arguments)
    answer = result.get(timeout=30)
    assert (answer["path"], answer.get("size")) == answered
    row = running.row(result.id)
    assert (row.operation, row.state, row.result) == (operation, "succeeded", answer)
    running.wait_until_idle()
    assert running.events.of(result.id, "task-succeeded") == ["task-succeeded"]


def test_any_string_can_be_a_task_id(running: Running) -> None:
    task_id = f"order 7/ä☃ {uuid4().hex}"
    running.write("/any-id", task_id).get(timeout=20)
    assert running.row(task_id).state == "succeeded"


def test_positional_arguments_fail_with_no_row(running: Running) -> None:
    before = count_rows(running.database, "blobferry_jobs")
    with pytest.raises(Exception, match="positional"):
        running.send("write_stream", None, "/a", "file:///a").get(timeout=20)
    assert count_rows(running.database, "blobferry_jobs") == before


def test_a_job_that_fails_ends_in_failure_with_our_error_and_its_row(running: Running) -> None:
    result = running.write("/fails", file=running.stack.incoming / "none.mp4")
    with pytest.raises(SourceNotFoundError, match=r"none\.mp4"):
        result.get(timeout=20)
    row = running.row(result.id)
    assert (result.state, row.state, row.error_code) == ("FAILURE", "failed", "source_not_found")
    running.wait_until_idle()
    assert running.events.ends(result.id) == ["task-failed"]


def test_a_message_whose_row_is_missing_is_dropped(running: Running) -> None:
    """Its transaction rolled back, or its job was pruned: whatever it says, nobody asks for it any more."""
    result = running.write("/dropped", options={"headers": {ROW_HEADER: True, SEQ_HEADER: 0}})
    running.wait_until_idle()
    assert result.state in ("PENDING", "STARTED")  # neither SUCCESS nor FAILURE
    running.has_no_row(result.id)


def test_a_message_with_an_old_number_is_dropped(running: Running) -> None:
    file = running.file()
    arguments = {"path": "/old", "source": file.as_uri()}
    unlike = {"deadline": ago(-3600)}  # so that no batch of another message takes it along
    job_id = submit(running.database, arguments=arguments, job_id=uuid4().hex, size=None, **unlike)
    change(running.database, job_id, publish_seq=5, published_at=ago(-3600))  # the caretaker leaves it alone
    running.write("/old", job_id, file=file, options={"headers": {ROW_HEADER: True, SEQ_HEADER: 4}})
    running.wait_until_idle()
    assert (running.row(job_id).state, running.row(job_id).attempt) == ("queued", 0)
    running.write("/old", job_id, file=file, options={"headers": {ROW_HEADER: True, SEQ_HEADER: 5}}).get(timeout=20)
    assert running.row(job_id).state == "succeeded"


def test_the_same_id_with_another_operation_or_arguments_is_ignored(running: Running) -> None:
    file = running.file(100)
    result = running.write("/same", file=file)
    result.get(timeout=20)
    before = running.row(result.id).as_row()
    running.send("delete", result.id, path="/same")
    running.write("/other", result.id)
    running.write("/same", result.id, file=file)
    running.wait_until_idle()
    assert running.row(result.id).as_row() == before
    assert outcomes(running.database, result.id) == ["succeeded"]
    assert running.events.of(result.id, "task-succeeded") == ["task-succeeded"]


def test_a_bare_replay_of_a_pruned_job_is_dropped(running: Running) -> None:
    task_id = uuid4().hex
    with running.database.begin() as session:
        session.add(TombstoneRow(id=task_id))
    running.write("/pruned", task_id)
    running.wait_until_idle()
    running.has_no_row(task_id)


def test_an_idempotency_key_makes_one_job_of_two_tasks(running: Running) -> None:
    file, key = running.file(), uuid4().hex
    running.write("/key", file=file, idempotency_key=key).get(timeout=20)
    second = running.write("/key", file=file, idempotency_key=key)
    running.wait_until_idle()
    running.has_no_row(second.id)


@pytest.fixture
def links(running: Running) -> dict[str, Any]:
    """What an app asks to be called at the end: messages for two queues of its own."""
    queue = f"app-{uuid4().hex}"
    return {name: running.app.signature(f"app.{name}", queue=f"{queue}-{name}") for name in ("link", "link_error")}


def called(running: Running, links: dict[str, Any]) -> tuple[list[Any], ...]:
    """The messages of each."""
    return tuple(running.links(link.options["queue"]) for link in links.values())


@pytest.mark.parametrize("size", [1000, 100 * MIB], ids=["one run", "several slices"])
def test_a_link_is_called_once_at_the_very_end_with_the_result(
    size: int, running: Running, links: dict[str, Any]
) -> None:
    result = running.write("/linked", file=running.file(size), options=links)
    answer = result.get(timeout=60)
    running.wait_until_idle()
    assert called(running, links) == ([[answer]], [])
    row = running.row(result.id)
    assert row.attempt == 1
    assert running.events.ends(result.id) == ["task-retried"] * (row.token - 1) + ["task-succeeded"]
    if size > MIB:
        assert row.token > 1  # it was claimed more than once, or this test shows nothing
        assert row.bytes_sent == size


def test_a_link_error_is_called_once_when_the_job_fails(running: Running, links: dict[str, Any]) -> None:
    result = running.write("/x", file=running.stack.incoming / "none", options=links)
    with pytest.raises(SourceNotFoundError):
        result.get(timeout=20)
    running.wait_until_idle()
    succeeded, failed = called(running, links)
    assert (succeeded, len(failed)) == ([], 1)


def test_nothing_of_ours_lies_in_the_queue_of_an_app_that_shares_the_broker(running: Running) -> None:
    assert running.broker.llen("celery") == 0
