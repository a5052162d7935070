"""Tasks on a real worker, asked by bare Celery as an app without our client would: rows, results, links, events."""

import base64
import json
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
import urllib3
from celery import Celery
from celery.result import AsyncResult

from blobferry.contract import ROW_HEADER, SEQ_HEADER
from dev.services import moto, valkey, wait_until
from dev.stack import BUCKET, Stack
from models import Database, TombstoneRow
from tests.models.rows import ago, attempts, change, count_rows, job_row, submit
from worker.errors import InvalidOffsetError, InvalidPathError, InvalidRequestError, SourceNotFoundError

MIB = 1024 * 1024
SETTINGS = {
    "BLOBFERRY_TRANSFER__PART_SIZE": str(5 * MIB),
    "BLOBFERRY_TRANSFER__PART_THREADS": "1",
    "BLOBFERRY_TRANSFER__SLICE_SECONDS": "0.4",
    "BLOBFERRY_SWEEP__INTERVAL_SECONDS": "0.3",
    "BLOBFERRY_CONCURRENCY": "1",
}


class Running:
    """A stack with one worker, an app that knows nothing but Celery, and all that Celery said of its tasks."""

    def __init__(self, stack: Stack, app: Celery, database: Database, broker: "redis.Redis") -> None:
        self.stack = stack
        self.app = app
        self.database = database
        self.broker = broker
        self.events: list[dict[str, Any]] = []

    def file(self, size: int = 1000) -> Path:
        path = self.stack.incoming / uuid4().hex
        path.write_bytes(b"")
        with path.open("r+b") as stream:
            stream.truncate(size)
        return path

    def send(
        self, task_id: str | None = None, *, options: Mapping[str, Any] | None = None, **arguments: Any
    ) -> AsyncResult:
        """``app.send_task``, as bare as can be."""
        return self.app.send_task(
            "blobferry.write_stream",
            kwargs=arguments,
            queue="blobferry",
            task_id=task_id or uuid4().hex,
            **(options or {}),
        )

    def said(self, task_id: str, kind: str) -> int:
        return sum(event["type"] == kind and event["uuid"] == task_id for event in self.events)

    def wait_until_said(self, task_id: str, kind: str) -> None:
        wait_until(lambda: self.said(task_id, kind), 20, f"{kind} of {task_id}")

    def wait_until_idle(self) -> None:
        """Everything that was sent has been taken, and the worker has come to a marker behind it."""
        marker = self.send(path="/marker", source=self.file(1).as_uri())
        marker.get(timeout=20)

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
        found = Running(stack, app, database, client)
        with stack.worker(), _listening(found):
            yield found
        database.close()
        app.close()


class _listening:
    """Collects what Celery says of its tasks."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._connection = running.app.connection_for_read()
        handlers = {"*": running.events.append}
        self._receiver = running.app.events.Receiver(self._connection, handlers=handlers)
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._receiver.should_stop = True
        self._thread.join()
        self._connection.release()

    def _listen(self) -> None:
        self._receiver.capture(limit=None, timeout=None, wakeup=False)


def test_a_bare_task_makes_its_row_and_succeeds_once(running: Running) -> None:
    file = running.file(3000)
    result = running.send(path="/bare", source=file.as_uri(), labels={"app": "shop"}, priority=3)
    answer = result.get(timeout=20)
    assert (answer["path"], answer["size"]) == ("/bare", 3000)
    row = job_row(running.database, result.id)
    assert (row.state, row.labels, row.priority, row.attempt) == ("succeeded", {"app": "shop"}, 3, 1)
    assert row.result == answer
    running.wait_until_idle()
    assert running.said(result.id, "task-succeeded") == 1
    assert running.said(result.id, "task-failed") == 0
    client = running.stack.s3.client()
    head = client.head_object(Bucket=BUCKET, Key="bare")
    client.close()
    assert head["ContentLength"] == 3000


def test_any_string_can_be_a_task_id(running: Running) -> None:
    task_id = f"order 7/ä☃ {uuid4().hex}"
    running.send(task_id, path="/any-id", source=running.file().as_uri()).get(timeout=20)
    assert job_row(running.database, task_id).state == "succeeded"


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"path": "bad"}, InvalidPathError, "'bad'"),
        ({"offset": -5}, InvalidOffsetError, "offset"),
        ({"pth": "/a"}, InvalidRequestError, "pth"),
        ({"source": "ftp://host/a"}, InvalidRequestError, "source"),
        ({"priority": "high"}, InvalidRequestError, "priority"),
    ],
    ids=["path", "offset", "unknown", "source", "priority"],
)
def test_a_bare_task_of_the_wrong_shape_fails_with_our_error_and_no_row(
    arguments: dict[str, Any], error: type[Exception], named: str, running: Running
) -> None:
    before = count_rows(running.database, "blobferry_jobs")
    result = running.send(**{"path": "/shape", "source": running.file().as_uri(), **arguments})
    with pytest.raises(error, match=named):
        result.get(timeout=20)
    assert result.state == "FAILURE"
    assert count_rows(running.database, "blobferry_jobs") == before


def test_a_missing_argument_and_positional_ones_fail_with_no_row(running: Running) -> None:
    before = count_rows(running.database, "blobferry_jobs")
    with pytest.raises(InvalidRequestError, match="'source' is missing"):
        running.send(path="/shape").get(timeout=20)
    positional = running.app.send_task("blobferry.write_stream", args=["/a", "file:///a"], queue="blobferry")
    with pytest.raises(Exception, match="positional"):
        positional.get(timeout=20)
    assert count_rows(running.database, "blobferry_jobs") == before


def test_a_job_that_fails_ends_in_failure_with_our_error_and_its_row(running: Running) -> None:
    missing = running.stack.incoming / "none.mp4"
    result = running.send(path="/fails", source=missing.as_uri())
    with pytest.raises(SourceNotFoundError, match=r"none\.mp4"):
        result.get(timeout=20)
    assert result.state == "FAILURE"
    row = job_row(running.database, result.id)
    assert (row.state, row.error_code) == ("failed", "source_not_found")
    running.wait_until_idle()
    assert running.said(result.id, "task-failed") == 1
    assert running.said(result.id, "task-succeeded") == 0


def test_a_message_whose_row_is_missing_is_dropped(running: Running) -> None:
    """Its transaction rolled back, or its job was pruned: whatever it says, nobody asks for it any more."""
    headers = {"headers": {ROW_HEADER: True, SEQ_HEADER: 0}}
    result = running.send(path="/dropped", source=running.file().as_uri(), options=headers)
    running.wait_until_idle()
    assert result.state in ("PENDING", "STARTED")  # neither SUCCESS nor FAILURE
    with pytest.raises(Exception, match="No row was found"):
        job_row(running.database, result.id)


def test_a_message_with_an_old_number_is_dropped(running: Running) -> None:
    file = running.file()
    job_id = submit(
        running.database, arguments={"path": "/old", "source": file.as_uri()}, job_id=uuid4().hex, size=None
    )
    change(running.database, job_id, publish_seq=5, published_at=ago(-3600))  # the caretaker leaves it alone
    headers = {"headers": {ROW_HEADER: True, SEQ_HEADER: 4}}
    running.send(job_id, path="/old", source=file.as_uri(), options=headers)
    running.wait_until_idle()
    assert (job_row(running.database, job_id).state, job_row(running.database, job_id).attempt) == ("queued", 0)
    headers = {"headers": {ROW_HEADER: True, SEQ_HEADER: 5}}
    running.send(job_id, path="/old", source=file.as_uri(), options=headers).get(timeout=20)
    assert job_row(running.database, job_id).state == "succeeded"


def test_the_same_id_for_another_operation_is_ignored(running: Running) -> None:
    file = running.file(100)
    result = running.send(path="/same-id", source=file.as_uri())
    result.get(timeout=20)
    before = job_row(running.database, result.id).as_row()
    running.app.send_task("blobferry.delete", kwargs={"path": "/same-id"}, queue="blobferry", task_id=result.id)
    running.wait_until_idle()
    assert job_row(running.database, result.id).as_row() == before


def test_the_same_id_with_other_arguments_is_ignored(running: Running) -> None:
    first, second = running.file(100), running.file(200)
    result = running.send(path="/same", source=first.as_uri())
    result.get(timeout=20)
    before = job_row(running.database, result.id).as_row()
    running.send(result.id, path="/other", source=second.as_uri())
    running.send(result.id, path="/same", source=first.as_uri())
    running.wait_until_idle()
    assert job_row(running.database, result.id).as_row() == before
    assert [attempt.outcome for attempt in attempts(running.database, result.id)] == ["succeeded"]
    assert running.said(result.id, "task-succeeded") == 1


def test_a_bare_replay_of_a_pruned_job_is_dropped(running: Running) -> None:
    task_id = uuid4().hex
    with running.database.begin() as session:
        session.add(TombstoneRow(id=task_id))
    running.send(task_id, path="/pruned", source=running.file().as_uri())
    running.wait_until_idle()
    with pytest.raises(Exception, match="No row was found"):
        job_row(running.database, task_id)


def test_an_idempotency_key_makes_one_job_of_two_tasks(running: Running) -> None:
    file, key = running.file(), uuid4().hex
    first = running.send(path="/key", source=file.as_uri(), idempotency_key=key)
    first.get(timeout=20)
    second = running.send(path="/key", source=file.as_uri(), idempotency_key=key)
    running.wait_until_idle()
    with pytest.raises(Exception, match="No row was found"):
        job_row(running.database, second.id)


@pytest.mark.parametrize("size", [1000, 100 * MIB], ids=["one run", "several slices"])
def test_a_link_is_called_once_at_the_very_end_with_the_result(size: int, running: Running) -> None:
    queue = f"app-{uuid4().hex}"
    link = running.app.signature("app.done", queue=queue)
    link_error = running.app.signature("app.broken", queue=queue + "-errors")
    result = running.send(
        path="/linked", source=running.file(size).as_uri(), options={"link": link, "link_error": link_error}
    )
    answer = result.get(timeout=60)
    running.wait_until_idle()
    assert running.links(queue) == [[answer]]
    assert running.links(queue + "-errors") == []
    assert running.said(result.id, "task-succeeded") == 1
    row = job_row(running.database, result.id)
    assert row.attempt == 1
    if size > MIB:
        assert row.token > 1  # it was claimed more than once, or this test shows nothing
        assert running.said(result.id, "task-retried") == row.token - 1
        assert row.bytes_sent == size


def test_a_link_error_is_called_once_when_the_job_fails(running: Running) -> None:
    queue = f"app-{uuid4().hex}"
    options = {
        "link": running.app.signature("app.done", queue=queue),
        "link_error": running.app.signature("app.broken", queue=queue + "-errors"),
    }
    result = running.send(path="/x", source=(running.stack.incoming / "none").as_uri(), options=options)
    with pytest.raises(SourceNotFoundError):
        result.get(timeout=20)
    running.wait_until_idle()
    assert running.links(queue) == []
    assert len(running.links(queue + "-errors")) == 1


def test_a_bare_url_for_is_answered_with_a_url_that_works(running: Running) -> None:
    running.send(path="/signed", source=running.file(1000).as_uri()).get(timeout=20)
    expiry = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    arguments = {"path": "/signed", "options": {"method": "GET", "expiry": expiry}}
    result = running.app.send_task("blobferry.url_for", kwargs=arguments, queue="blobferry.reads")
    response = urllib3.request("GET", result.get(timeout=20), retries=False)
    assert (response.status, response.data) == (200, bytes(1000))


@pytest.mark.parametrize("name", ["put_content", "move", "delete"])
def test_a_bare_task_of_another_operation_makes_its_row_and_succeeds_once(name: str, running: Running) -> None:
    running.send(path="/other/old", source=running.file(1000).as_uri()).get(timeout=20)
    arguments, answered = {
        "put_content": ({"path": "/other/new", "contents": b"\0\xff"}, ("/other/new", 2)),
        "move": ({"source_path": "/other/old", "dest_path": "/other/moved"}, ("/other/moved", 1000)),
        "delete": ({"path": "/other"}, ("/other", None)),
    }[name]
    result = running.app.send_task(f"blobferry.{name}", kwargs=arguments, queue="blobferry")
    answer = result.get(timeout=30)
    assert (answer["path"], answer.get("size")) == answered
    row = job_row(running.database, result.id)
    assert (row.operation, row.state, row.result) == (name, "succeeded", answer)
    running.wait_until_idle()
    assert running.said(result.id, "task-succeeded") == 1


def test_nothing_of_ours_lies_in_the_queue_of_an_app_that_shares_the_broker(running: Running) -> None:
    assert running.broker.llen("celery") == 0
