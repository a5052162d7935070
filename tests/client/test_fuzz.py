"""Ten thousand requests of every shape: each is a job that says what was asked, or a typed error that left no trace."""

import inspect
import json
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis
from celery import Celery
from celery.exceptions import Ignore, Reject, Retry
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from kombu.utils.json import dumps, loads
from sqlalchemy import select

from blobferry import Client
from blobferry.cli import main
from blobferry.contract import JOBS_QUEUE, OPERATIONS, READS, READS_QUEUE, check_request
from blobferry.errors import BlobferryError, InvalidRequestError
from blobferry.messages.job_messages import Message, publish
from blobferry.sql.tables import jobs
from models import Database
from tests.client.conftest import Site
from tests.client.odd_requests import ALL, Call, Envelope, commands, envelopes, requests
from tests.jobs.job_world import World as Working
from worker.celery.job_task import JobTask
from worker.celery.read_task import ReadTask
from worker.runtime import start_runtime

pytestmark = pytest.mark.no_cover

Drawn = TypeVar("Drawn")

JOBS = tuple(OPERATIONS)
MAX_MESSAGE = 2500  #: characters: an error names a path whole, and paths have up to 1,024


def each_of(strategy: st.SearchStrategy[Drawn], examples: int, check: Callable[[Drawn], None]) -> None:
    """Check so many examples, the same in every run."""

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],  # they are small as they are
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def checked(drawn: Drawn) -> None:
        check(drawn)

    checked()


def sizes(usual: int, long: int = 10_000) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "examples", [usual, pytest.param(long, marks=[pytest.mark.long, pytest.mark.timeout(900)])]
    )


def is_typed(error: BlobferryError) -> None:
    """It has a code, and a message of one line that can be printed and is not the request all over again."""
    assert error.code not in ("", "error", "unexpected"), repr(error)
    assert len(str(error)) <= MAX_MESSAGE
    assert len(str(error).splitlines()) == 1
    str(error).encode("utf-8")


def is_kept(row: Mapping[str, Any], call: Call) -> None:
    """The row says all that was asked for, and nothing else."""
    given = {name: value for name, value in call.arguments.items() if value is not None}
    spec = OPERATIONS[call.operation]
    assert (row["operation"], row["path"]) == (call.operation, given[spec.path])
    assert (row["storage"], row["priority"]) == (given.get("storage", "default"), given.get("priority", 0))
    assert (row["labels"], row["idempotency_key"]) == (given.get("labels"), given.get("idempotency_key"))
    for name in ("not_before", "deadline"):
        assert row[name] == moment(given.get(name))
    own = {name: value for name, value in given.items() if name not in spec.options and name != "delete_source"}
    assert row["removes_source"] == given.get("delete_source", False)
    assert (row["on_end"] or {}).get("webhook", {}).get("secret") == (
        given.get("webhook_secret", "default") if "webhook" in given else None
    )
    kept = dict(row["request"])
    if "contents" in own:
        asked = contents(own.pop("contents"))
        assert row["contents"] == asked
        assert kept.pop("contents") == {"size": len(asked), "sha256": sha256(asked).hexdigest()}
    assert kept == {**spec.defaults, **own}


def moment(value: Any) -> datetime | None:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def contents(value: Any) -> bytes:
    return b64decode(value["base64"]) if isinstance(value, Mapping) else memoryview(value).tobytes()


# --- the contract --------------------------------------------------------------------------------------------------


@sizes(1000)
def test_the_contract_makes_a_request_of_it_or_says_what_is_wrong(examples: int) -> None:
    def check(call: Call) -> None:
        try:
            request = check_request(call.operation, call.arguments)
        except BlobferryError as error:
            is_typed(error)
            return
        for name in ("not_before", "deadline"):
            assert getattr(request, name) == moment(call.arguments.get(name))
        named = call.arguments[ALL[call.operation].path]
        assert request.path == (named if isinstance(named, str) else named[0])
        sent = json.loads(json.dumps(dict(request.arguments)))
        assert check_request(call.operation, sent).arguments == sent

    each_of(requests(tuple(ALL)), examples, check)


# --- Client --------------------------------------------------------------------------------------------------------


def traces_of(site: Site) -> tuple[int, int]:
    """How many rows and messages there are, to be compared."""
    with redis.Redis.from_url(site.broker_url) as broker:
        return len(site.rows()), sum(broker.llen(queue) for queue in (JOBS_QUEUE, READS_QUEUE))


def is_callable_with(call: Callable[..., Any], arguments: Mapping[str, Any]) -> bool:
    """Whether Python itself would take the call."""
    try:
        inspect.signature(call).bind(**arguments)
    except TypeError:
        return False
    return True


@sizes(150, 2500)
def test_a_client_submits_a_job_that_says_it_all_or_leaves_no_trace(examples: int, ferry: Client, site: Site) -> None:
    def check(call: Call) -> None:
        submit = getattr(ferry, call.operation)
        if not is_callable_with(submit, call.arguments):
            return
        rows, messages = traces_of(site)
        try:
            job = submit(**call.arguments)
        except BlobferryError as error:
            is_typed(error)
            assert traces_of(site) == (rows, messages)
        else:
            is_kept(site.row(job.id), call)
            assert ferry.get(job.id) == job
            rows_now, messages_now = traces_of(site)
            assert 0 <= rows_now - rows <= 1
            assert 0 <= messages_now - messages <= 1

    each_of(requests(JOBS), examples, check)


@sizes(100, 1000)
def test_a_read_that_is_not_to_be_had_is_a_typed_error_and_no_message(examples: int, sqlite_site: Site) -> None:
    def check(call: Call) -> None:
        read = getattr(client, call.operation)
        if not is_callable_with(read, call.arguments):
            return
        with pytest.raises(BlobferryError) as caught:  # at best there is no broker to ask
            read(**call.arguments)
        is_typed(caught.value)

    with sqlite_site.client(broker_url=None) as client:
        each_of(requests(tuple(READS)), examples, check)


# --- the command ---------------------------------------------------------------------------------------------------


@sizes(150, 2000)
def test_a_command_does_what_was_typed_or_says_in_a_line_what_is_wrong(examples: int, sqlite_site: Site) -> None:
    runner = CliRunner(env=sqlite_site.environment())  # nothing that is typed waits for an answer

    def check(words: list[str]) -> None:
        before = traces_of(sqlite_site)
        ran = runner.invoke(main, words, input=b"\0\xff")
        assert ran.exception is None or isinstance(ran.exception, SystemExit), repr(ran.exception)
        assert ran.exit_code in (0, 1, 2, 3), (ran.exit_code, ran.output)
        assert "Traceback" not in ran.output
        if ran.exit_code == 2:
            assert traces_of(sqlite_site) == before
            assert says_what_is_wrong(ran.stdout, ran.stderr), ran.output
        elif ran.exit_code == 0 and words[0] in ("write", "read", "move", "delete") and "--help" not in words:
            assert sqlite_site.row(job_id_in(ran.stdout))["state"] == "queued"

    each_of(commands(), examples, check)


def says_what_is_wrong(stdout: str, stderr: str) -> bool:
    """One line for each job, or click's three with the usage before it, or JSON objects."""
    if stdout:
        return all(
            {"error", "message"} <= set(json.loads(line)) or "id" in json.loads(line) for line in stdout.splitlines()
        )
    lines = stderr.splitlines()
    return lines[0].startswith("Usage: ") or all(line.startswith(("blobferry: ", "Error: ")) for line in lines)


def job_id_in(stdout: str) -> str:
    return str(json.loads(stdout)["id"]) if stdout.startswith("{") else stdout.strip()


# --- bare messages -------------------------------------------------------------------------------------------------


class Delivered:
    """A worker's child in this process: what Celery hands to a task ends in one of the ways that it knows."""

    def __init__(self, database: Database, app: Celery) -> None:
        self.database = database
        self.app = app

    def rows(self) -> dict[str, Mapping[str, Any]]:
        with self.database.begin() as session:
            return {row["id"]: dict(row) for row in session.execute(select(jobs)).mappings()}

    def deliver(self, call: Call, envelope: Envelope) -> BaseException | None:
        """Run the task as Celery's child does, without its own handling of callbacks; return how it ended."""
        task = self.app.tasks[f"blobferry.{call.operation}"]
        assert isinstance(task, JobTask | ReadTask)
        arguments = call.arguments
        task.push_request(id=envelope.task_id, **envelope.options, **envelope.headers)
        try:
            if isinstance(task, JobTask):
                task.before_start(envelope.task_id, [], arguments)
            task.run(**arguments)
        except (BlobferryError, Ignore, Reject, Retry) as ended:
            return ended
        finally:
            task.pop_request()
        return None


@pytest.fixture
def delivered(database: Database, tmp_path: Path) -> Iterator[Delivered]:
    app = Celery("fuzz", broker="memory://", backend="cache+memory://", include=["tasks.transfers", "tasks.reads"])
    app.loader.import_default_modules()
    with Working(database, tmp_path).worker() as runtime:
        start_runtime(runtime)
        yield Delivered(database, app)
    app.close()


@sizes(150, 2000)
def test_a_bare_message_makes_a_row_that_says_it_all_or_ends_in_a_typed_error(
    examples: int, delivered: Delivered
) -> None:
    def check(message: tuple[Call, Envelope]) -> None:
        call, envelope = message
        try:
            call = Call(call.operation, loads(dumps(call.arguments)))  # type: ignore[no-untyped-call]
        except (TypeError, ValueError):
            return  # nobody can send it
        before = delivered.rows()
        ended = delivered.deliver(call, envelope)
        after = delivered.rows()
        made = [row for job_id, row in after.items() if job_id not in before]
        if isinstance(ended, BlobferryError):
            assert ended.code not in ("", "error"), repr(ended)
        for row in made:
            assert row["id"] == envelope.task_id
            is_kept(row, call)
            assert publish(delivered.app, Message.from_row(row))  # one that cannot be sent would hold up all others
        if not made:
            assert {job_id: row for job_id, row in after.items() if row != before[job_id]} == {}

    each_of(st.tuples(requests(tuple(ALL), of_json=True), envelopes()), examples, check)


@pytest.mark.parametrize("operation", ALL)
def test_an_argument_may_have_any_name(operation: str, delivered: Delivered) -> None:
    for name in ("self", "task_id", "operation", "arguments", "args"):
        ended = delivered.deliver(Call(operation, {name: 1}), Envelope("any", {}, {}))
        assert isinstance(ended, InvalidRequestError)
