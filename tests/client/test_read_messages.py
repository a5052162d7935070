"""Reads: a worker answers Client and command; and what happens when none does."""

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner

from blobferry import Client, FileInfo
from blobferry.checks.arguments import MAX_CONTENT
from blobferry.cli import main
from blobferry.errors import (
    ConfigurationError,
    InvalidRequestError,
    PathNotFoundError,
    UnexpectedError,
    UnreachableError,
    UnsupportedMethodError,
)
from blobferry.messages.job_messages import client_app
from blobferry.messages.read_messages import ReadRequester
from dev.services import free_port, valkey
from tests.client.conftest import Command, Site, run_python
from tests.directory_stack import LocalStack, local_stack

PATIENCE = 5.0  #: seconds after which a broker that is away must have been noticed
BLOBS = {
    "/a/text.txt": b"text",
    "/a/bytes.bin": bytes(range(256)) * 16,
    "/a/utf-8": "ä ☃ \0".encode(),
    "/a/empty": b"",
    "/a/most": os.urandom(MAX_CONTENT),
    "/a/more": bytes(MAX_CONTENT + 1),
    "/b": b"b",
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> Iterator[LocalStack]:
    with local_stack(tmp_path_factory.mktemp("reads"), migrated_sqlite) as stack:
        for path, contents in BLOBS.items():
            stack.driver.put_content(path, contents)
        yield stack


@pytest.fixture
def client(stack: LocalStack) -> Iterator[Client]:
    with stack.client() as client:
        yield client


@pytest.fixture
def command(stack: LocalStack) -> Command:
    return lambda *words: CliRunner().invoke(main, words, env=stack.environment())


# --- the client ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [path for path in BLOBS if path != "/a/more"])
def test_content_comes_back_to_the_byte(path: str, client: Client) -> None:
    assert client.get_content(path) == BLOBS[path]


def test_more_than_a_result_carries_names_read_stream(client: Client) -> None:
    with pytest.raises(InvalidRequestError, match=r"/a/more has more than 1048576 bytes, .* read_stream"):
        client.get_content("/a/more")


def test_stat_is_what_the_driver_says(client: Client, stack: LocalStack) -> None:
    info = client.stat("/a/text.txt")
    assert info == stack.driver.stat("/a/text.txt")
    assert (info.size, info.is_dir) == (4, False)
    assert info.mod_time is not None
    assert info.mod_time.utcoffset() == timedelta()
    assert client.stat("/a") == FileInfo("/a", 0, None, is_dir=True)
    assert client.stat("/").is_dir


def test_list_is_what_the_driver_says(client: Client) -> None:
    assert sorted(client.list("/a")) == sorted(path for path in BLOBS if path.startswith("/a/"))
    assert sorted(client.list("/")) == ["/a", "/b"]


def test_an_error_of_the_worker_is_raised_as_itself_with_its_attributes(client: Client) -> None:
    for read in (client.get_content, client.stat, client.list):
        with pytest.raises(PathNotFoundError) as caught:
            read("/none")
        assert (caught.value.path, caught.value.driver) == ("/none", "local")
    with pytest.raises(UnsupportedMethodError) as refused:
        client.url_for("/a", {"method": "GET", "expiry": datetime.now(UTC) + timedelta(hours=1)})
    assert refused.value.driver == "local"
    with pytest.raises(ConfigurationError, match="no such storage") as unknown:
        client.stat("/a", storage="elsewhere")
    assert unknown.value.name == "storages.elsewhere"


def test_nothing_is_left_behind_by_reads(client: Client, stack: LocalStack) -> None:
    with redis.Redis.from_url(stack.broker_url) as connection:
        before = set(connection.keys("celery-task-meta-*"))
        for _ in range(5):
            client.stat("/b")
        assert set(connection.keys("celery-task-meta-*")) == before
        assert connection.pubsub_channels("celery-task-meta-*") == []


def test_threads_may_share_a_client_and_each_gets_its_own_answer(client: Client) -> None:
    paths = [path for path in BLOBS if path not in ("/a/more", "/a/most")] * 6
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(client.get_content, paths)) == [BLOBS[path] for path in paths]


FORK = """
    import os
    from blobferry import Client

    with Client.from_env() as client:
        assert client.stat("/b").size == 1
        child = os.fork()
        answers = [client.get_content(path) for path in ["/b", "/a/text.txt", "/a/empty"] * 5]
        assert answers == [b"b", b"text", b""] * 5
        if not child:
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def test_a_forked_child_and_its_parent_both_read(stack: LocalStack) -> None:
    run_python(FORK, stack.environment())


def test_a_closed_client_may_read_again(client: Client) -> None:
    assert client.stat("/b").size == 1
    client.close()
    assert client.stat("/b").size == 1


# --- nobody answers ------------------------------------------------------------------------------------------------


def test_no_worker_is_an_error_that_says_what_to_look_at(site: Site) -> None:
    says = r"no worker answered within 0\.2 s: .*'blobferry\.reads'"
    with site.client() as client, pytest.raises(UnreachableError, match=says):
        client.stat("/a", timeout=0.2)
    with redis.Redis.from_url(site.broker_url) as connection:
        (message,) = [json.loads(entry) for entry in connection.lrange("blobferry.reads", 0, -1)]
    assert message["headers"]["expires"] is not None  # nobody will wait for it tomorrow


@pytest.mark.parametrize(
    ("means", "named", "is_silent"),
    [("broker_url", "broker", False), ("broker_url", "broker", True), ("result_backend", "result backend", False)],
    ids=["a broker that refuses", "a broker that never answers", "a result backend that refuses"],
)
def test_what_is_away_is_noticed_soon(sqlite_site: Site, means: str, named: str, is_silent: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if is_silent else free_port()
        with sqlite_site.client(**{means: f"redis://:s3cret@127.0.0.1:{port}/0"}) as client:
            started = time.monotonic()
            with pytest.raises(UnreachableError, match=f"^{named}: ") as caught:
                client.stat("/a", timeout=60)
            assert time.monotonic() - started < PATIENCE
    assert "s3cret" not in str(caught.value)


def test_a_broker_that_was_restarted_is_asked_again(sqlite_site: Site) -> None:
    no_answer = partial(pytest.raises, UnreachableError, match="no worker answered")
    with valkey() as own, sqlite_site.client(broker_url=own.url) as client:
        with no_answer():
            client.stat("/a", timeout=0)
        own.kill9()
        own.restart()
        with no_answer():
            client.stat("/a", timeout=0)


def test_without_a_broker_a_read_says_what_is_missing(sqlite_site: Site) -> None:
    with sqlite_site.client(broker_url=None) as client:
        with pytest.raises(ConfigurationError, match="broker_url: is not set; stat needs a worker"):
            client.stat("/a")
        with pytest.raises(InvalidRequestError):
            client.stat("a")


def test_a_broker_that_cannot_hold_results_is_no_obstacle_to_submitting(sqlite_site: Site) -> None:
    with sqlite_site.client(broker_url="memory://user:s3cret@host") as client:
        client.delete("/a")
        with pytest.raises(ConfigurationError, match="result_backend: needs the URL") as caught:
            client.stat("/a")
    assert "s3cret" not in f"{caught.value!r} {caught.value.__cause__!r}"


@pytest.mark.parametrize(
    ("state", "result", "error", "says"),
    [
        ("REVOKED", {"exc_type": "TaskRevokedError", "exc_message": ["x"]}, UnreachableError, "revoked, or expired"),
        (
            "FAILURE",
            {"exc_type": "WorkerLostError", "exc_message": ["signal 9"], "exc_module": "billiard.exceptions"},
            UnexpectedError,
            "WorkerLostError: signal 9",
        ),
    ],
)
def test_an_end_that_is_not_ours_is_one_of_our_errors(
    sqlite_site: Site, state: str, result: Any, error: type[Exception], says: str
) -> None:
    """Somebody else's hand writes the result, as Celery does when a child dies or a message expires."""

    def finish() -> None:
        with redis.Redis.from_url(sqlite_site.broker_url) as connection:
            _, raw = connection.brpop(["blobferry.reads"], timeout=20)
            task_id = json.loads(raw)["headers"]["id"]
            meta = {"status": state, "result": result, "task_id": task_id, "traceback": None, "children": []}
            connection.set(f"celery-task-meta-{task_id}", json.dumps(meta))

    with sqlite_site.client() as client, ThreadPoolExecutor(1) as other:
        finished = other.submit(finish)
        with pytest.raises(error, match=says):
            client.stat("/a", timeout=20)
        finished.result()


def test_asking_opens_no_connection_before_it_is_asked() -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    app = client_app(url)
    ReadRequester(app, url).close()
    app.close()


# --- the command ---------------------------------------------------------------------------------------------------


def test_read_to_standard_output_is_exactly_the_bytes(command: Command) -> None:
    for path, contents in BLOBS.items():
        if path != "/a/more":
            done = command("read", path, "-")
            assert (done.exit_code, done.stdout_bytes, done.stderr) == (0, contents, "")
    done = command("read", "/a/bytes.bin", "-", "--json")
    assert json.loads(done.stdout)["path"] == "/a/bytes.bin"


def test_stat_in_words_and_in_json(command: Command, client: Client) -> None:
    done = command("stat", "/a/bytes.bin")
    assert done.exit_code == 0
    assert re.search(r"^path +/a/bytes.bin\nkind +blob\nsize +4.0 KiB \(4,096 bytes\)\nmodified +20", done.stdout)
    assert command("stat", "/a").stdout == "path        /a\nkind        directory\n"
    said = json.loads(command("stat", "/a/bytes.bin", "--json").stdout)
    assert said == client.stat("/a/bytes.bin").as_json()


def test_list_in_lines_and_in_json(command: Command) -> None:
    assert sorted(command("list", "/").stdout.splitlines()) == ["/a", "/b"]
    assert sorted(json.loads(command("list", "/", "--json").stdout)) == ["/a", "/b"]


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (["stat", "/none"], 1, "path_not_found"),
        (["list", "/none"], 1, "path_not_found"),
        (["read", "/none", "-"], 1, "path_not_found"),
        (["read", "/a/more", "-"], 2, "invalid_request"),
        (["url", "/b"], 2, "unsupported_method"),
        (["url", "/b", "--method", "HEAD", "--expires", "2031-01-01T00:00:00Z"], 2, "invalid_request"),
        (["stat", "/b", "--storage", "elsewhere"], 2, "configuration"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_the_worker_says_is_one_line_and_an_exit_status(
    words: list[str], status: int, code: str, command: Command
) -> None:
    done = command(*words)
    assert (done.exit_code, done.stdout) == (status, "")
    assert re.fullmatch(r"blobferry: .+\n", done.stderr)
    done = command(*words, "--json")
    assert (done.exit_code, json.loads(done.stdout)["error"], done.stderr) == (status, code, "")


def test_a_read_that_nobody_answers_exits_3(sqlite_site: Site) -> None:
    run = partial(CliRunner().invoke, main, ["stat", "/a", "--timeout", "0"])
    done = run(env=sqlite_site.environment())
    assert (done.exit_code, done.stdout, "no worker answered" in done.stderr) == (3, "", True)
    assert run(env=sqlite_site.environment() | {"BLOBFERRY_BROKER_URL": None}).exit_code == 2
