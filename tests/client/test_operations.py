"""Each operation as a job: the row that Client and command leave, and what people may see of it in a message."""

import inspect
import json
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from blobferry import Client
from blobferry.checks.arguments import MAX_CONTENT
from blobferry.contract import OPERATIONS
from blobferry.errors import ConflictError, InvalidRequestError
from tests.client.conftest import Command, Site
from tests.refused_requests import REFUSED, Refused

Submit = Callable[[Client], Any]

URL = "https://user:s3cret@host/a?X-Amz-Signature=s3cret"
SHOWN = "https://***@host/a?X-Amz-Signature=***"

KEPT_APART = {"size": 2, "sha256": sha256(b"\0\xff").hexdigest()}

#: name: (the call, the command, what the row's request holds, columns, what the message says of it)
ASKED: dict[str, tuple[Submit, list[str], dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "put_content": (
        lambda client: client.put_content("/a", b"\0\xff", content_type="text/x"),
        ["write", "-", "/a", "--content-type", "text/x"],
        {
            "path": "/a",
            "contents": {"size": 2, "sha256": sha256(b"\0\xff").hexdigest()},
            "overwrite": True,
            "content_type": "text/x",
        },
        {"path": "/a", "source": None, "dest": None},
        {"path": "/a", "contents": "<2 bytes>", "overwrite": True, "content_type": "text/x"},
    ),
    "write_stream": (
        lambda client: client.write_stream("/a", URL, 7, metadata={"b": "c"}),
        ["write", URL, "/a", "--offset", "7", "--metadata", "b=c"],
        {"path": "/a", "source": URL, "offset": 7, "overwrite": True, "metadata": {"b": "c"}},
        {"path": "/a", "source": SHOWN, "dest": None},
        {"path": "/a", "source": SHOWN, "offset": 7, "overwrite": True, "metadata": {"b": "c"}},
    ),
    "read_stream": (
        lambda client: client.read_stream("/a", Path("/srv/out b"), 7, overwrite=False),
        ["read", "/a", "/srv/out b", "--offset", "7", "--no-overwrite"],
        {"path": "/a", "dest": "file:///srv/out%20b", "offset": 7, "overwrite": False},
        {"path": "/a", "source": None, "dest": "file:///srv/out%20b"},
        {"path": "/a", "dest": "file:///srv/out%20b", "offset": 7, "overwrite": False},
    ),
    "move": (
        lambda client: client.move("/a", "/b", dest_storage="archive", overwrite=False),
        ["move", "/a", "/b", "--dest-storage", "archive", "--no-overwrite"],
        {"source_path": "/a", "dest_path": "/b", "dest_storage": "archive", "overwrite": False},
        {"path": "/b", "source": "/a", "dest": None},
        {"source_path": "/a", "dest_path": "/b", "dest_storage": "archive", "overwrite": False},
    ),
    "delete": (
        lambda client: client.delete("/a", storage="default"),
        ["delete", "/a"],
        {"path": "/a"},
        {"path": "/a", "source": None, "dest": None},
        {"path": "/a"},
    ),
}
every_job = pytest.mark.parametrize("name", ASKED)


def test_every_job_is_here() -> None:
    assert list(ASKED) == list(OPERATIONS)


@every_job
def test_client_and_command_leave_the_same_row_and_message(
    name: str, client: Client, command: Command, sqlite_site: Site
) -> None:
    call, words, request, columns, said = ASKED[name]
    job = call(client)
    done = command(*words, "--json", stdin=b"\0\xff")
    assert done.exit_code == 0, done.output
    for row in sqlite_site.rows():
        assert (row["operation"], row["request"], row["storage"]) == (name, request, "default")
        assert {column: row[column] for column in columns} == columns
    assert len(sqlite_site.rows()) == 2
    assert (job.operation, job.path, job.source, job.dest) == (name, *columns.values())
    shown = json.loads(done.stdout)
    assert shown["dest_storage"] == job.dest_storage == request.get("dest_storage")
    assert {message["task"] for message in sqlite_site.messages()} == {f"blobferry.{name}"}
    for message in sqlite_site.messages():
        assert message["body"][1] == said | {"storage": "default"}
        assert "s3cret" not in json.dumps(message)
    assert "s3cret" not in done.output + str(job)


@every_job
def test_every_job_takes_the_options_of_a_job(name: str, client: Client, sqlite_site: Site) -> None:
    later = datetime(2031, 1, 1, tzinfo=UTC)
    options = {
        "storage": "archive",
        "priority": 7,
        "not_before": later,
        "deadline": later,
        "labels": {"a": "b"},
        "idempotency_key": "k",
    }
    required: dict[str, Any] = {argument: "/a" for argument in OPERATIONS[name].required}
    needed = {"contents": b"x", "source": "file:///a", "dest": "file:///b"}
    required |= {argument: needed[argument] for argument in required if argument in needed}
    submit = getattr(client, name)
    job = submit(**required, **options)
    assert submit(**required, **options).id == job.id
    (row,) = sqlite_site.rows()
    assert {option: row[option] for option in options} == options
    with pytest.raises(ConflictError):
        submit(**required, **options | {"priority": 1})
    with sqlite_site.database.engine.connect() as connection:
        submit(**required, session=connection)
        connection.rollback()
    assert len(sqlite_site.rows()) == 1


def test_another_secret_is_another_request(client: Client) -> None:
    client.write_stream("/a", URL, idempotency_key="k")
    with pytest.raises(ConflictError):
        client.write_stream("/a", URL + "x", idempotency_key="k")


@pytest.mark.parametrize("refused", REFUSED, ids=str)
def test_client_refuses_what_the_contract_refuses(refused: Refused, client: Client, sqlite_site: Site) -> None:
    call = getattr(client, refused.operation)
    try:
        inspect.signature(call).bind(**refused.arguments)
    except TypeError:
        return  # Python itself says so
    with pytest.raises(InvalidRequestError) as caught:
        call(**refused.arguments)
    expected = refused.by_contract()
    assert (type(caught.value), caught.value.args) == (type(expected), expected.args)
    assert (sqlite_site.rows(), sqlite_site.messages()) == ([], [])


@pytest.mark.parametrize("refused", [refused for refused in REFUSED if refused.command], ids=str)
def test_the_command_refuses_what_the_contract_refuses(refused: Refused, command: Command, sqlite_site: Site) -> None:
    words, expected = refused.command or [], refused.by_contract()
    done = command(*words)
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", f"blobferry: {expected}\n")
    assert json.loads(command(*words, "--json").stdout)["error"] == expected.code
    assert sqlite_site.rows() == []


@pytest.mark.parametrize("size", [0, 1, MAX_CONTENT])
def test_standard_input_becomes_the_blob(size: int, command: Command, sqlite_site: Site) -> None:
    contents = (bytes(range(256)) * (size // 256 + 1))[:size]
    assert command("write", "-", "/a", stdin=contents).exit_code == 0
    (row,) = sqlite_site.rows()
    assert row["contents"] == contents


def test_more_on_standard_input_is_an_error_that_says_what_to_do(command: Command, sqlite_site: Site) -> None:
    done = command("write", "-", "/a", stdin=bytes(MAX_CONTENT + 1))
    assert (done.exit_code, done.stdout) == (2, "")
    assert "more than 1048576 bytes; put them into a file and use: blobferry write FILE /a" in done.stderr
    assert len(sqlite_site.rows()) == 0


def test_a_directory_that_is_not_here_is_a_remark(command: Command, sqlite_site: Site) -> None:
    done = command("read", "/a", "/nowhere/b")
    assert (done.exit_code, len(sqlite_site.rows())) == (0, 1)
    assert "directory /nowhere does not exist here" in done.stderr


@pytest.mark.parametrize(
    ("name", "running", "succeeded", "ending"),
    [
        ("put_content", "2 of 5 B", "Stat shows 5 B at /a", "/a, 5 B"),
        ("move", "2 of 5 B", "moved from /a; Stat shows 5 B at /b", "/a is now /b on storage archive, 5 B"),
        ("read_stream", "2 of 5 B", "5 B of /a are in file:///srv/out%20b", "/a is in file:///srv/out%20b, 5 B"),
        ("delete", "deleting /a", "nothing is left of /a and what was under it", "/a deleted"),
    ],
    ids=lambda value: value if value in ASKED else "",
)
def test_status_says_what_the_operation_is_about(
    name: str, running: str, succeeded: str, ending: str, client: Client, command: Command, sqlite_site: Site
) -> None:
    job = ASKED[name][0](client)
    size = {} if name == "delete" else {"size": 5, "bytes_done": 2}
    for state, words in (("running", running), ("succeeded", succeeded)):
        sqlite_site.change(job, state=state, worker="host:7", **size)
        said = command("status", job.id).stdout
        assert (words in said, "progress" in said) == (True, name != "delete")
    if name == "move":
        assert "/a on storage default" in said
        assert "/b on storage archive" in said
    done = command("watch", job.id)
    assert (done.exit_code, done.stdout.splitlines()[-1].rpartition(" in ")[0]) == (0, f"succeeded: {ending}")


@pytest.mark.parametrize(
    ("name", "phase", "words"),
    [
        ("move", "deleting_source", "Stat shows the copy; deleting /a"),
        ("read_stream", "completing", "completing the file"),
        ("put_content", "completing", "completing the upload"),
    ],
)
def test_status_says_what_the_phase_means(
    name: str, phase: str, words: str, client: Client, command: Command, sqlite_site: Site
) -> None:
    job = ASKED[name][0](client)
    sqlite_site.change(job, state="running", phase=phase)
    assert words in command("status", job.id).stdout
