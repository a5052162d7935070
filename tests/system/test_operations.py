"""All nine operations, end to end: by Client, by the command and by bare Celery, on real workers and a real store."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from blobferry import Client
from blobferry.checks.arguments import MAX_CONTENT
from blobferry.contract import JOBS_QUEUE, OPERATIONS, READS, READS_QUEUE
from blobferry.errors import (
    BlobferryError,
    ConfigurationError,
    InvalidOffsetError,
    InvalidPathError,
    InvalidRequestError,
    PathNotFoundError,
    SourceNotFoundError,
    UnreachableError,
    UnsupportedMethodError,
)
from dev.services import S3Service, Valkey
from dev.stack import BUCKET, CHECKOUT, Stack, Worker
from tests.system.conftest import FAST
from tests.system.observation import Rows
from worker.driver import Driver

TIMEOUT = 30  #: seconds


@dataclass(frozen=True)
class Scene:
    """The stack, whoever asks it, and what looks at it."""

    stack: Stack
    client: Client
    app: Celery  #: of a web app that knows nothing of ours
    broker: "redis.Redis"
    rows: Rows
    s3: Any

    def file(self, name: str, content: bytes) -> Path:
        path = self.stack.incoming / name
        path.write_bytes(content)
        return path

    def count_rows(self) -> int:
        return int(self.rows.select("select count(*) as count from blobferry_jobs")[0]["count"])

    def command(self, *words: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """``python -m blobferry …``, in a process of its own."""
        return subprocess.run(
            [sys.executable, "-m", "blobferry", *map(str, words)],
            input=stdin,
            env=os.environ | self.stack.environment() | {"PYTHONPATH": str(CHECKOUT)},
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )

    def send(self, operation: str, **arguments: Any) -> Any:
        """The answer to a bare ``app.send_task``; raises what that ended in."""
        queue = JOBS_QUEUE if operation in OPERATIONS else READS_QUEUE
        return self.app.send_task(f"blobferry.{operation}", kwargs=arguments, queue=queue).get(timeout=TIMEOUT)


@pytest.fixture(scope="module")
def scene(broker: Valkey, s3: S3Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    directory = tmp_path_factory.mktemp("operations")
    stack = Stack(broker.url, f"sqlite:///{directory / 'blobferry.db'}", s3, directory, settings=FAST)
    stack.prepare()
    broker.flush()
    app = Celery("shop", broker=broker.url, backend=broker.url, set_as_current=False)
    rows, store = Rows(stack.database_url), s3.client()
    with stack.client() as client, redis.Redis.from_url(broker.url) as connection:
        yield Scene(stack, client, app, connection, rows, store)
    rows.close()
    store.close()
    app.close()
    broker.flush()


@pytest.fixture(scope="module")
def jobs_worker(scene: Scene) -> Iterator[Worker]:
    with scene.stack.worker("jobs", "--only", "jobs") as worker:
        yield worker


@pytest.fixture(scope="module")
def workers(scene: Scene, jobs_worker: Worker) -> Iterator[Worker]:
    """One for jobs, one for reads."""
    with scene.stack.worker("reads", "--only", "reads"):
        yield jobs_worker


# --- three ways to ask ---------------------------------------------------------------------------------------------


class Way(ABC):
    """The nine operations, as somebody asks for them. Jobs are waited for."""

    threads = 1  #: that may ask at once

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    @abstractmethod
    def put_content(self, path: str, contents: bytes) -> Mapping[str, Any]: ...
    @abstractmethod
    def write_stream(self, path: str, source: Path, offset: int) -> Mapping[str, Any]: ...
    @abstractmethod
    def read_stream(self, path: str, dest: Path, offset: int) -> Mapping[str, Any]: ...
    @abstractmethod
    def move(self, source_path: str, dest_path: str) -> Mapping[str, Any]: ...
    @abstractmethod
    def delete(self, path: str) -> Mapping[str, Any]: ...
    @abstractmethod
    def get_content(self, path: str) -> bytes: ...
    @abstractmethod
    def stat(self, path: str) -> Mapping[str, Any]: ...
    @abstractmethod
    def list(self, path: str) -> list[str]: ...
    @abstractmethod
    def url_for(self, path: str, method: str, expiry: datetime) -> str: ...


class ByClient(Way):
    """``Client``."""

    def put_content(self, path: str, contents: bytes) -> Mapping[str, Any]:
        return self._done(self.scene.client.put_content(path, contents))

    def write_stream(self, path: str, source: Path, offset: int) -> Mapping[str, Any]:
        return self._done(self.scene.client.write_stream(path, source, offset))

    def read_stream(self, path: str, dest: Path, offset: int) -> Mapping[str, Any]:
        return self._done(self.scene.client.read_stream(path, dest, offset))

    def move(self, source_path: str, dest_path: str) -> Mapping[str, Any]:
        return self._done(self.scene.client.move(source_path, dest_path))

    def delete(self, path: str) -> Mapping[str, Any]:
        return self._done(self.scene.client.delete(path))

    def get_content(self, path: str) -> bytes:
        return self.scene.client.get_content(path)

    def stat(self, path: str) -> Mapping[str, Any]:
        return self.scene.client.stat(path).as_json()

    def list(self, path: str) -> list[str]:
        return self.scene.client.list(path)

    def url_for(self, path: str, method: str, expiry: datetime) -> str:
        return self.scene.client.url_for(path, {"method": method, "expiry": expiry})

    def _done(self, job: Any) -> Mapping[str, Any]:
        job = self.scene.client.wait(job.id, timeout=TIMEOUT)
        assert job.state == "succeeded", job
        assert job.result is not None
        return dict(job.result)


class ByCommand(Way):
    """``blobferry``."""

    threads = 2  # processes, in fact, which take a second each

    def put_content(self, path: str, contents: bytes) -> Mapping[str, Any]:
        return self._job("write", "-", path, stdin=contents)

    def write_stream(self, path: str, source: Path, offset: int) -> Mapping[str, Any]:
        return self._job("write", source, path, "--offset", str(offset))

    def read_stream(self, path: str, dest: Path, offset: int) -> Mapping[str, Any]:
        return self._job("read", path, dest, "--offset", str(offset))

    def move(self, source_path: str, dest_path: str) -> Mapping[str, Any]:
        return self._job("move", source_path, dest_path)

    def delete(self, path: str) -> Mapping[str, Any]:
        return self._job("delete", path)

    def get_content(self, path: str) -> bytes:
        return self._said("read", path, "-")

    def stat(self, path: str) -> Mapping[str, Any]:
        return dict(json.loads(self._said("stat", path, "--json")))

    def list(self, path: str) -> list[str]:
        return self._said("list", path).decode().splitlines()

    def url_for(self, path: str, method: str, expiry: datetime) -> str:
        return self._said("url", path, "--method", method, "--expires", expiry.isoformat()).decode().strip()

    def _job(self, *words: str | Path, stdin: bytes = b"") -> Mapping[str, Any]:
        job = json.loads(self._said(*words, "--wait", "--json", stdin=stdin))
        assert job["state"] == "succeeded"
        return dict(job["result"])

    def _said(self, *words: str | Path, stdin: bytes = b"") -> bytes:
        done = self.scene.command(*words, stdin=stdin)
        assert (done.returncode, done.stderr) == (0, b""), done
        return done.stdout


class ByCelery(Way):
    """``app.send_task``, as bare as can be."""

    def put_content(self, path: str, contents: bytes) -> Mapping[str, Any]:
        return dict(self.scene.send("put_content", path=path, contents={"base64": b64encode(contents).decode()}))

    def write_stream(self, path: str, source: Path, offset: int) -> Mapping[str, Any]:
        return dict(self.scene.send("write_stream", path=path, source=source.as_uri(), offset=offset))

    def read_stream(self, path: str, dest: Path, offset: int) -> Mapping[str, Any]:
        return dict(self.scene.send("read_stream", path=path, dest=dest.as_uri(), offset=offset))

    def move(self, source_path: str, dest_path: str) -> Mapping[str, Any]:
        return dict(self.scene.send("move", source_path=source_path, dest_path=dest_path))

    def delete(self, path: str) -> Mapping[str, Any]:
        return dict(self.scene.send("delete", path=path))

    def get_content(self, path: str) -> bytes:
        return bytes(self.scene.send("get_content", path=path))

    def stat(self, path: str) -> Mapping[str, Any]:
        return dict(self.scene.send("stat", path=path))

    def list(self, path: str) -> list[str]:
        return list(self.scene.send("list", path=path))

    def url_for(self, path: str, method: str, expiry: datetime) -> str:
        return str(self.scene.send("url_for", path=path, options={"method": method, "expiry": expiry.isoformat()}))


# --- what they get -------------------------------------------------------------------------------------------------


def test_each_queue_is_served_by_its_own_workers(scene: Scene, jobs_worker: Worker) -> None:
    job = scene.client.put_content("/queues/a", b"a")
    assert scene.client.wait(job.id, timeout=TIMEOUT).state == "succeeded"
    with pytest.raises(UnreachableError, match=r"blobferry\.reads"):
        scene.client.stat("/queues/a", timeout=0.5)
    assert scene.broker.llen(READS_QUEUE) == 1
    assert scene.broker.llen("celery") == 0


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
    "kind", [ByClient, pytest.param(ByCommand, marks=pytest.mark.long), ByCelery], ids=["client", "command", "celery"]
)
def test_all_nine_operations_with_exact_bytes(kind: type[Way], scene: Scene, workers: Worker) -> None:
    way, name = kind(scene), kind.__name__
    old, data = bytes(range(256)), os.urandom(1000)
    new = old + bytes(44) + data

    result = way.put_content(f"/{name}/a/blob", old)
    assert (result["path"], result["size"]) == (f"/{name}/a/blob", 256)
    assert way.write_stream(f"/{name}/a/blob", scene.file(name, data), 300)["size"] == len(new)
    assert scene.s3.get_object(Bucket=BUCKET, Key=f"{name}/a/blob")["Body"].read() == new

    in_an_hour = datetime.now(UTC) + timedelta(hours=1)
    with ThreadPoolExecutor(way.threads) as pool:
        info = pool.submit(way.stat, f"/{name}/a/blob")
        children = pool.submit(way.list, f"/{name}")
        contents = pool.submit(way.get_content, f"/{name}/a/blob")
        url = pool.submit(way.url_for, f"/{name}/a/blob", "GET", in_an_hour)
    shown = info.result()
    assert (shown["path"], shown["size"], shown["is_dir"]) == (f"/{name}/a/blob", len(new), False)
    assert abs(datetime.now(UTC) - datetime.fromisoformat(shown["mod_time"])) < timedelta(minutes=2)
    assert children.result() == [f"/{name}/a"]
    assert contents.result() == new
    assert 3400 < int(url.result().partition("X-Amz-Expires=")[2].partition("&")[0]) <= 3600
    assert fetched(url.result()) == new

    dest = scene.stack.incoming / f"{name}.out"
    dest.write_bytes(b"is replaced")
    assert way.read_stream(f"/{name}/a/blob", dest, 250)["size"] == len(new) - 250
    assert dest.read_bytes() == new[250:]

    assert way.move(f"/{name}/a/blob", f"/{name}/b")["path"] == f"/{name}/b"
    assert keys(scene, name) == [f"{name}/b"]
    assert scene.s3.get_object(Bucket=BUCKET, Key=f"{name}/b")["Body"].read() == new
    scene.s3.put_object(Bucket=BUCKET, Key=f"{name}-sibling", Body=b"")
    assert way.delete(f"/{name}") == {"path": f"/{name}"}
    assert keys(scene, name) == [f"{name}-sibling"]


def keys(scene: Scene, prefix: str) -> list[str]:
    return [found["Key"] for found in scene.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]]


def fetched(url: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as response:
        return bytes(response.read())


#: name: (operation, arguments, the class, what it carries)
ERRORS: dict[str, tuple[str, dict[str, Any], type[BlobferryError], dict[str, Any]]] = {
    "missing": ("stat", {"path": "/missing"}, PathNotFoundError, {"path": "/missing", "driver": "s3"}),
    "missing directory": ("list", {"path": "/missing"}, PathNotFoundError, {"path": "/missing"}),
    "missing content": ("get_content", {"path": "/missing"}, PathNotFoundError, {"path": "/missing"}),
    "bad path": ("stat", {"path": "/a//b"}, InvalidPathError, {"path": "/a//b"}),
    "bad method": (
        "url_for",
        {"path": "/a", "options": {"method": "PUT"}},
        UnsupportedMethodError,
        {"method": "PUT"},
    ),
    "far expiry": (
        "url_for",
        {"path": "/a", "options": {"expiry": "2126-01-01T00:00:00+00:00"}},
        InvalidRequestError,
        {},
    ),
    "unknown storage": (
        "stat",
        {"path": "/a", "storage": "nowhere"},
        ConfigurationError,
        {"name": "storages.nowhere"},
    ),
    "moved": ("move", {"source_path": "/missing", "dest_path": "/a"}, PathNotFoundError, {"path": "/missing"}),
    "deleted": ("delete", {"path": "/missing"}, PathNotFoundError, {"path": "/missing"}),
    "read": ("read_stream", {"path": "/missing", "dest": "{incoming}/out"}, PathNotFoundError, {"path": "/missing"}),
    "written": ("write_stream", {"path": "/a", "source": "{incoming}/missing"}, SourceNotFoundError, {}),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_come_back_as_the_class_that_was_raised(name: str, scene: Scene, workers: Worker) -> None:
    operation, arguments, kind, carried = ERRORS[name]
    incoming = scene.stack.incoming.as_uri()
    arguments = {
        key: value.replace("{incoming}", incoming) if isinstance(value, str) else value
        for key, value in arguments.items()
    }
    bare = caught(lambda: scene.send(operation, **arguments))
    assert type(bare) is kind
    assert {key: getattr(bare, key) for key in carried} == carried
    if operation in READS:
        asked = caught(lambda: getattr(scene.client, operation)(**arguments))
        assert (type(asked), asked.args) == (type(bare), bare.args)
    elif kind is not InvalidRequestError:
        job = scene.client.wait(getattr(scene.client, operation)(**arguments).id, timeout=TIMEOUT)
        assert (job.state, job.error_code, job.error_message) == ("failed", kind.code, str(bare))


def test_client_raises_what_the_driver_raises(scene: Scene, workers: Worker) -> None:
    s3 = scene.stack.s3
    parameters = {"bucket": BUCKET, "regionendpoint": s3.endpoint, "region": s3.region, "forcepathstyle": True}
    driver = Driver.from_parameters({**parameters, "accesskey": s3.access_key, "secretkey": s3.secret_key})
    for operation in ("stat", "list", "get_content"):
        there = caught(lambda operation=operation: getattr(driver, operation)("/missing"))  # type: ignore[misc]
        here = caught(lambda operation=operation: getattr(scene.client, operation)("/missing"))  # type: ignore[misc]
        assert (type(here), here.args) == (type(there), there.args)


def caught(call: Callable[[], Any]) -> BlobferryError:
    with pytest.raises(BlobferryError) as error:
        call()
    return error.value


#: name: (operation, arguments, the class, what the message names, the command if it can be typed)
SHAPES: dict[str, tuple[str, dict[str, Any], type[BlobferryError], str, list[str] | None]] = {
    "unknown argument": ("delete", {"path": "/a", "recursive": True}, InvalidRequestError, "'recursive'", None),
    "missing argument": ("move", {"source_path": "/a"}, InvalidRequestError, "'dest_path'", None),
    "wrong type": (
        "write_stream",
        {"path": "/a", "source": "file:///a", "offset": "1"},
        InvalidRequestError,
        "offset",
        None,
    ),
    "negative offset": (
        "write_stream",
        {"path": "/a", "source": "file:///a", "offset": -1},
        InvalidOffsetError,
        "-1",
        ["write", "/a", "/a", "--offset", "-1"],
    ),
    "string for bytes": ("put_content", {"path": "/a", "contents": "text"}, InvalidRequestError, "encode", None),
    "too large": (
        "put_content",
        {"path": "/a", "contents": {"base64": b64encode(bytes(MAX_CONTENT + 1)).decode()}},
        InvalidRequestError,
        "write_stream",
        None,
    ),
    "bad path": ("delete", {"path": "/a/"}, InvalidPathError, "'/a/'", None),
    "bad url": ("read_stream", {"path": "/a", "dest": "https://host/a"}, InvalidRequestError, "dest", None),
}


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_wrong_by_its_shape_is_refused_the_same_everywhere_and_leaves_no_row(
    name: str, scene: Scene, workers: Worker
) -> None:
    operation, arguments, kind, named, words = SHAPES[name]
    rows = scene.count_rows()
    bare = caught(lambda: scene.send(operation, **arguments))
    assert type(bare) is kind
    assert named in str(bare)
    if set(arguments) >= set(OPERATIONS[operation].required) and "recursive" not in arguments:
        asked = caught(lambda: getattr(scene.client, operation)(**arguments))
        assert (type(asked), asked.args) == (type(bare), bare.args)
    if words is not None:
        done = scene.command(*words)
        assert (done.returncode, done.stderr.decode()) == (2, f"blobferry: {bare}\n")
    assert scene.count_rows() == rows


def test_a_blob_that_is_too_large_for_a_result_is_for_read_stream(scene: Scene, workers: Worker) -> None:
    fits, large = os.urandom(MAX_CONTENT), bytes(MAX_CONTENT + 1)
    scene.s3.put_object(Bucket=BUCKET, Key="fits", Body=fits)
    scene.s3.put_object(Bucket=BUCKET, Key="large", Body=large)
    assert scene.client.get_content("/fits") == fits
    assert scene.send("get_content", path="/fits") == fits
    for ask in (lambda: scene.client.get_content("/large"), lambda: scene.send("get_content", path="/large")):
        with pytest.raises(InvalidRequestError, match="use read_stream"):
            ask()
    done = scene.command("read", "/large", "-", "--json")
    assert done.returncode == 2
    assert "read_stream" in json.loads(done.stdout)["message"]
