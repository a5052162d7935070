"""Read tasks on a real worker, asked by bare Celery: the JSON that they answer, and the errors that they end in."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.app.trace import build_tracer
from celery.result import AsyncResult

from blobferry.checks.arguments import MAX_CHILDREN
from blobferry.contract import OPERATIONS, READS
from models import Database
from tests.directory_stack import LocalStack, local_stack
from tests.doubles import FaultyStore
from tests.jobs.job_world import World
from tests.models.rows import count_rows
from tests.refused_requests import REFUSED, Refused
from worker.celery.read_task import ANSWERS, ReadTask, answer
from worker.errors import (
    InvalidRequestError,
    UnexpectedError,
    UnsupportedMethodError,
)


@dataclass(frozen=True)
class Running:
    """A worker on a directory, and an app that knows nothing but Celery."""

    stack: LocalStack
    app: Celery
    database: Database

    def ask(self, operation: str, **arguments: Any) -> AsyncResult:
        queue = "blobferry" if operation in OPERATIONS else "blobferry.reads"
        return self.app.send_task(f"blobferry.{operation}", kwargs=arguments, queue=queue)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> Iterator[Running]:
    with local_stack(tmp_path_factory.mktemp("reads"), migrated_sqlite) as stack:
        app = Celery("app", broker=stack.broker_url, backend=stack.broker_url, set_as_current=False)
        database = Database(stack.database_url)
        yield Running(stack, app, database)
        database.close()
        app.close()


@pytest.mark.parametrize("refused", REFUSED, ids=str)
def test_a_bare_task_refuses_what_the_contract_refuses_and_leaves_no_row(refused: Refused, running: Running) -> None:
    before = count_rows(running.database, "blobferry_jobs")
    result = running.ask(refused.operation, **refused.arguments)
    with pytest.raises(InvalidRequestError) as caught:
        result.get(timeout=20)
    expected = refused.by_contract()
    assert (type(caught.value), caught.value.args, result.state) == (type(expected), expected.args, "FAILURE")
    assert count_rows(running.database, "blobferry_jobs") == before


def test_a_read_has_no_row_and_its_result_expires(running: Running) -> None:
    running.stack.driver.put_content("/a", b"text")
    before = count_rows(running.database, "blobferry_jobs")
    result = running.ask("stat", path="/a")
    result.get(timeout=20)
    assert count_rows(running.database, "blobferry_jobs") == before
    with redis.Redis.from_url(running.stack.broker_url) as connection:
        assert 0 < int(connection.ttl(f"celery-task-meta-{result.id}")) <= 24 * 3600
        assert connection.hlen("unacked") == 0
        raw = json.loads(connection.get(f"celery-task-meta-{result.id}") or "")
    assert raw["result"]["path"] == "/a"


def test_every_read_is_answered() -> None:
    assert set(ANSWERS) == set(READS)


def test_what_nobody_foresaw_is_one_of_our_errors_too(sqlite_database: Database, tmp_path: Path) -> None:
    world = World(sqlite_database, tmp_path)
    store = FaultyStore(world.memory, "head", error=lambda: ZeroDivisionError("a bug"))
    with world.worker(store) as runtime, pytest.raises(UnexpectedError, match="ZeroDivisionError: a bug"):
        answer(runtime, "stat", {"path": "/a"})


def test_a_url_is_asked_for_with_the_moment_that_was_meant(sqlite_database: Database, tmp_path: Path) -> None:
    """Memory has no URLs, and says so only after it has understood the options."""
    world = World(sqlite_database, tmp_path)
    late = (datetime.now(UTC) + timedelta(days=8)).isoformat()
    with world.worker() as runtime:
        with pytest.raises(UnsupportedMethodError):
            answer(runtime, "url_for", {"path": "/a", "options": {"method": "HEAD"}})
        with pytest.raises(InvalidRequestError, match="expiry"):
            answer(runtime, "url_for", {"path": "/a", "options": {"expiry": late}})


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


def test_a_large_directory_is_answered_in_turns(sqlite_database: Database, tmp_path: Path) -> None:
    world = World(sqlite_database, tmp_path)
    children = [f"/d/{number:05}" for number in range(MAX_CHILDREN + 2)]
    for child in children:
        world.memory.put(child[1:], b"")
    with world.worker() as runtime:
        with pytest.raises(InvalidRequestError, match=r"/d has 10002 children.*limit=10000 and after="):
            answer(runtime, "list", {"path": "/d"})
        found = answer(runtime, "list", {"path": "/d", "limit": MAX_CHILDREN})
        assert found == children[:MAX_CHILDREN]
        assert answer(runtime, "list", {"path": "/d", "after": found[-1]}) == children[MAX_CHILDREN:]
        assert answer(runtime, "list", {"path": "/d", "after": found[-1], "limit": 1}) == children[-2:-1]
        assert answer(runtime, "list", {"path": "/d", "after": children[-1]}) == []
        assert runtime.driver("default").list("/d") == children, "the driver's own answer is complete"
        for wrong in ({"limit": 0}, {"limit": MAX_CHILDREN + 1}, {"limit": True}, {"after": "d"}, {"after": 7}):
            with pytest.raises(InvalidRequestError, match=next(iter(wrong))):
                answer(runtime, "list", {"path": "/d", **wrong})
