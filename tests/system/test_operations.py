"""All nine operations, end to end: by Client, by the command and by bare Celery, on real workers and a real store."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from blobferry.contract import JOBS_QUEUE, OPERATIONS, READS, READS_QUEUE
from blobferry.errors import (
    BlobferryError,
    ConfigurationError,
    InvalidRequestError,
    PathNotFoundError,
    SourceNotFoundError,
    UnreachableError,
)
from dev.stack import BUCKET, CHECKOUT, Stack, Worker
from tests.system.recorded_stack import Scene, recorded
from worker.driver import Driver

TIMEOUT = 30  #: seconds


@pytest.fixture(scope="module")
def scene(sqlite_stack: Stack) -> Iterator[Scene]:
    with recorded(sqlite_stack, delays={}) as scene:
        yield scene


@pytest.fixture(scope="module")
def jobs_worker(scene: Scene) -> Iterator[Worker]:
    with scene.direct.worker("jobs", "--only", "jobs") as worker:
        yield worker


@pytest.fixture(scope="module")
def workers(scene: Scene, jobs_worker: Worker) -> Iterator[Worker]:
    """One for jobs, one for reads."""
    with scene.direct.worker("reads", "--only", "reads"):
        yield jobs_worker


# --- three ways to ask ---------------------------------------------------------------------------------------------

Way = Callable[..., Any]  #: asks for an operation by name: the result of a job, which is waited for, or a read's answer


def by_client(scene: Scene, operation: str, **arguments: Any) -> Any:
    """``Client``."""
    answer = getattr(scene.client, operation)(**arguments)
    if operation in READS:
        return answer.as_json() if operation == "stat" else answer
    job = scene.client.wait(answer.id, timeout=TIMEOUT)
    assert job.state == "succeeded", job
    return job.result


def by_celery(scene: Scene, operation: str, **arguments: Any) -> Any:
    """``app.send_task``, as bare as can be. Raises what the task ended in."""
    queue = JOBS_QUEUE if operation in OPERATIONS else READS_QUEUE
    return scene.app.send_task(f"blobferry.{operation}", kwargs=plain(arguments), queue=queue).get(timeout=TIMEOUT)


def plain(value: Any) -> Any:
    """The value as JSON has it."""
    match value:
        case bytes():
            return {"base64": b64encode(value).decode()}
        case Path():
            return value.as_uri()
        case datetime():
            return value.isoformat()
        case dict():
            return {name: plain(one) for name, one in value.items()}
    return value


JOB = ("--wait", "--json")


def ended_well(said: bytes) -> Any:
    """The result of a job, in JSON."""
    job = json.loads(said)
    assert job["state"] == "succeeded"
    return job["result"]


#: The words that a shell is given, and how the answer is read.
COMMANDS: dict[str, tuple[Callable[..., list[Any]], Callable[[bytes], Any]]] = {
    "get_content": (lambda path: ["read", path, "-"], bytes),
    "stat": (lambda path: ["stat", path, "--json"], json.loads),
    "list": (lambda path: ["list", path], lambda said: said.decode().splitlines()),
    "url_for": (
        lambda path, options: ["url", path, "--method", options["method"], "--expires", options["expiry"].isoformat()],
        lambda said: said.decode().strip(),
    ),
    "put_content": (lambda path, contents: ["write", "-", path, *JOB], ended_well),
    "write_stream": (lambda path, source, offset: ["write", source, path, "--offset", offset, *JOB], ended_well),
    "read_stream": (lambda path, dest, offset: ["read", path, dest, "--offset", offset, *JOB], ended_well),
    "move": (lambda source_path, dest_path: ["move", source_path, dest_path, *JOB], ended_well),
    "delete": (lambda path: ["delete", path, *JOB], ended_well),
}


def by_command(scene: Scene, operation: str, **arguments: Any) -> Any:
    """``blobferry``, in a process of its own."""
    typed, read = COMMANDS[operation]
    done = subprocess.run(
        [sys.executable, "-m", "blobferry", *map(str, typed(**arguments))],
        input=arguments.get("contents", b""),
        env=os.environ | scene.direct.environment() | {"PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b""), done
    return read(done.stdout)


# --- what they get -------------------------------------------------------------------------------------------------


def test_each_queue_is_served_by_its_own_workers(scene: Scene, jobs_worker: Worker) -> None:
    job = scene.client.put_content("/queues/a", b"a")
    assert scene.client.wait(job.id, timeout=TIMEOUT).state == "succeeded"
    with pytest.raises(UnreachableError, match=r"blobferry\.reads"):
        scene.client.stat("/queues/a", timeout=0.5)
    with redis.Redis.from_url(scene.direct.broker_url) as broker:
        assert (broker.llen(READS_QUEUE), broker.llen("celery")) == (1, 0)


def test_reads_are_answered_while_jobs_wait(scene: Scene, workers: Worker) -> None:
    os.kill(workers.pids[0], signal.SIGSTOP)  # not its caretaker, which might stop amid a transaction
    try:
        job = scene.client.put_content("/queues/b", b"b")
        with pytest.raises(PathNotFoundError):
            scene.client.stat("/queues/b")
        assert scene.client.list("/queues") == ["/queues/a"]
        assert scene.client.get(job.id).state == "queued"
    finally:
        os.kill(workers.pids[0], signal.SIGCONT)
    assert scene.client.wait(job.id, timeout=TIMEOUT).state == "succeeded"


@pytest.mark.parametrize(
    "way", [by_client, pytest.param(by_command, marks=pytest.mark.long), by_celery], ids=lambda way: way.__name__
)
def test_all_nine_operations_with_exact_bytes(way: Way, scene: Scene, workers: Worker) -> None:
    ask, name = partial(way, scene), way.__name__
    old, data = bytes(range(256)), os.urandom(1000)
    new = old + bytes(44) + data

    result = ask("put_content", path=f"/{name}/a/blob", contents=old)
    assert (result["path"], result["size"]) == (f"/{name}/a/blob", 256)
    source = scene.file_of(f"/{name}")
    source.write_bytes(data)
    assert ask("write_stream", path=f"/{name}/a/blob", source=source, offset=300)["size"] == len(new)
    assert scene.blob(f"/{name}/a/blob") == new

    shown = ask("stat", path=f"/{name}/a/blob")
    assert (shown["path"], shown["size"], shown["is_dir"]) == (f"/{name}/a/blob", len(new), False)
    assert abs(datetime.now(UTC) - datetime.fromisoformat(shown["mod_time"])) < timedelta(minutes=2)
    assert ask("list", path=f"/{name}") == [f"/{name}/a"]
    assert ask("get_content", path=f"/{name}/a/blob") == new
    in_an_hour = datetime.now(UTC) + timedelta(hours=1)
    url = ask("url_for", path=f"/{name}/a/blob", options={"method": "GET", "expiry": in_an_hour})
    assert 3400 < int(url.partition("X-Amz-Expires=")[2].partition("&")[0]) <= 3600
    assert fetched(url) == new

    dest = scene.file_of(f"/{name}.out")
    dest.write_bytes(b"is replaced")
    assert ask("read_stream", path=f"/{name}/a/blob", dest=dest, offset=250)["size"] == len(new) - 250
    assert dest.read_bytes() == new[250:]

    assert ask("move", source_path=f"/{name}/a/blob", dest_path=f"/{name}/b")["path"] == f"/{name}/b"
    assert keys(scene, name) == [f"{name}/b"]
    assert scene.blob(f"/{name}/b") == new
    scene.s3.put_object(Bucket=BUCKET, Key=f"{name}-sibling", Body=b"")
    assert ask("delete", path=f"/{name}") == {"path": f"/{name}"}
    assert keys(scene, name) == [f"{name}-sibling"]


def keys(scene: Scene, prefix: str) -> list[str]:
    return [found["Key"] for found in scene.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]]


def fetched(url: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as response:
        return bytes(response.read())


MISSING = {"path": "/missing"}
FAR = {"expiry": "2126-01-01T00:00:00+00:00"}


@pytest.mark.parametrize(
    ("operation", "arguments", "kind", "carried"),
    [
        ("stat", MISSING, PathNotFoundError, MISSING | {"driver": "s3"}),
        ("list", MISSING, PathNotFoundError, MISSING),
        ("get_content", MISSING, PathNotFoundError, MISSING),
        ("url_for", {"path": "/a", "options": FAR}, InvalidRequestError, {}),
        ("stat", {"path": "/a", "storage": "nowhere"}, ConfigurationError, {"name": "storages.nowhere"}),
        ("move", {"source_path": "/missing", "dest_path": "/a"}, PathNotFoundError, MISSING),
        ("delete", MISSING, PathNotFoundError, MISSING),
        ("read_stream", MISSING | {"dest": Path("out")}, PathNotFoundError, MISSING),
        ("write_stream", {"path": "/a", "source": Path("missing")}, SourceNotFoundError, {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_errors_come_back_as_the_class_that_was_raised(
    operation: str,
    arguments: dict[str, Any],
    kind: type[BlobferryError],
    carried: dict[str, Any],
    scene: Scene,
    workers: Worker,
) -> None:
    incoming = scene.direct.incoming
    arguments = {name: incoming / one if isinstance(one, Path) else one for name, one in arguments.items()}
    bare = caught(by_celery, scene, operation, **arguments)
    assert type(bare) is kind
    assert {name: getattr(bare, name) for name in carried} == carried
    ask = getattr(scene.client, operation)
    if operation in READS:
        asked = caught(ask, **arguments)
        assert (type(asked), asked.args) == (type(bare), bare.args)
    else:
        job = scene.client.wait(ask(**arguments).id, timeout=TIMEOUT)
        assert (job.state, job.error_code, job.error_message) == ("failed", kind.code, str(bare))


def test_client_raises_what_the_driver_raises(scene: Scene, workers: Worker) -> None:
    s3 = scene.stack.s3
    parameters = {"bucket": BUCKET, "regionendpoint": s3.endpoint, "region": s3.region, "forcepathstyle": True}
    driver = Driver.from_parameters({**parameters, "accesskey": s3.access_key, "secretkey": s3.secret_key})
    for operation in ("stat", "list", "get_content"):
        here, there = (caught(getattr(asked, operation), "/missing") for asked in (scene.client, driver))
        assert (type(here), here.args) == (type(there), there.args)


def caught(call: Callable[..., Any], *args: Any, **arguments: Any) -> BlobferryError:
    with pytest.raises(BlobferryError) as error:
        call(*args, **arguments)
    return error.value
