"""Secrets stay where they belong: planted in a whole running stack, and looked for everywhere else.

Jobs that go well and jobs that fail, reads, the doctor, Flower, the command line; then every row, the database's files,
the broker's memory and all that it was told, logs, pages, errors, reprs and the command lines of processes.
"""

import json
import logging
import pickle
import secrets
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from celery import Celery
from click.testing import CliRunner
from cryptography.fernet import Fernet
from kombu.connection import Connection
from sqlalchemy import make_url

from blobferry import Client, Job, seal
from blobferry.cli import main
from blobferry.errors import BlobferryError
from dev.process import free_port
from dev.services import Postgres, S3Service, flower, postgres_database, valkey, wait_until
from dev.stack import Stack, Worker
from tests.maintenance.webhook_site import WebhookSite, receiving
from tests.maintenance.webhook_site import status as refuse_post
from tests.system.conftest import FAST
from tests.system.observation import wait_for
from tests.system.planted_secrets import (
    Canaries,
    Monitor,
    broker_memory,
    command_lines,
    database_files,
    refusing_s3,
    rows,
    saved,
)
from tests.transfer.sources.http.http_site import Handler, Site, give, redirect, serving, status

BLOB = b"what a blob holds" * 100
FLOWER_PAGES = ("", "workers", "tasks", "broker", "metrics", "api/tasks", "api/workers?refresh=1", "api/queues/length")

#: What the means of a worker look like to whoever prints them.
REPRS = """
from worker.app import app
from worker.runtime import Runtime
from worker.settings import load_settings
settings = load_settings()
runtime = Runtime(settings)
things = [settings, settings.model_dump(), settings.model_dump_json(), runtime, vars(runtime), runtime.sealer]
things += [vars(runtime.sealer), runtime.database, runtime.database.engine, app, app.connection_for_write()]
things += [app.conf.humanize(with_defaults=True), app.backend.as_uri()]
for name in settings.storages:
    driver = runtime.driver(name)
    things += [driver, vars(driver), driver.store, vars(driver.store)]
for thing in things:
    print(str(thing), repr(thing))
"""


@dataclass
class Scene:
    """A stack full of canaries, with a worker and Flower."""

    stack: Stack
    site: Site
    canaries: Canaries
    client: Client
    app: Celery
    broker: "redis.Redis"
    worker: Worker
    slow: threading.Event
    hooks: WebhookSite

    def hook(self, path: str) -> str:
        """The URL of a webhook, which holds canaries as well."""
        plant = self.canaries.secrets
        url = self.hooks.url.replace("://", f"://user:{plant['webhook password']}@")
        return f"{url}{path}?token={plant['webhook token']}"

    def signed(self, path: str = "/a", prefix: str = "") -> str:
        """A URL that holds the canaries of a source."""
        plant = self.canaries.secrets
        user = f"user:{plant[prefix + 'source password']}@"
        return f"{self.site.url.replace('://', f'://{user}')}{path}?signature={plant[prefix + 'source signature']}"

    def send(self, operation: str = "write_stream", *args: Any, **arguments: Any) -> str:
        """A task sent by bare Celery."""
        task_id = uuid4().hex
        self.app.send_task(f"blobferry.{operation}", args, arguments, queue="blobferry", task_id=task_id)
        return task_id

    def ends(self, job_id: str, state: str, code: str | None = None) -> Job:
        job = wait_for(self.client, wait_for_row(self, job_id), lambda job: job.is_final)
        assert (job.state, job.error_code) == (state, code), job
        return job

    def celery_says(self, task_id: str, state: str) -> None:
        wait_until(lambda: self.app.AsyncResult(task_id).state == state, 30, f"{state} of {task_id}")


def planted() -> dict[str, str]:
    names = [
        *("access key", "secret key", "session token", "database password", "broker password", "source password"),
        *("source signature", "redirected signature", "bare source password", "bare source signature"),
        *("webhook password", "webhook token"),
    ]
    keys = {name: Fernet.generate_key().decode() for name in ("encryption key", "old encryption key")}
    signing = {name: b64encode(secrets.token_bytes(32)).decode() for name in ("webhook secret", "old webhook secret")}
    return {name: f"C4N4RY{secrets.token_hex(8)}" for name in names} | keys | signing


def settings_of(plant: Mapping[str, str], refusing: str) -> dict[str, str]:
    refused = {"BUCKET": "b", "REGION": "us-east-1", "REGIONENDPOINT": refusing, "FORCEPATHSTYLE": "true"}
    keys = {"ACCESSKEY": "access key", "SECRETKEY": "secret key", "SESSIONTOKEN": "session token"}
    refused |= {name: plant[secret] for name, secret in keys.items()}
    return {
        **FAST,
        "BLOBFERRY_CONCURRENCY": "2",
        "BLOBFERRY_RETRY__MAX_ATTEMPTS": "2",
        "BLOBFERRY_SOURCES__HTTP_ALLOW_PRIVATE": "true",
        "BLOBFERRY_STORAGES__DEFAULT__SESSIONTOKEN": plant["session token"],
        "BLOBFERRY_ENCRYPTION_KEYS": f"{plant['encryption key']},{plant['old encryption key']}",
        "BLOBFERRY_WEBHOOKS__SECRETS__DEFAULT": f"whsec_{plant['webhook secret']},whsec_{plant['old webhook secret']}",
        "BLOBFERRY_WEBHOOKS__ALLOW_HTTP": "true",
        "BLOBFERRY_WEBHOOKS__ALLOW_PRIVATE": "true",
        **{f"BLOBFERRY_STORAGES__REFUSED__{name}": value for name, value in refused.items()},
    }


@pytest.fixture(params=[pytest.param("sqlite", marks=pytest.mark.long), "postgres"])
def scene(request: pytest.FixtureRequest, s3: S3Service, postgres_server: Postgres, tmp_path: Path) -> Iterator[Scene]:
    plant = planted()
    slow = threading.Event()

    def answer_late(handler: Handler) -> None:
        slow.wait(60)
        give(handler)

    with ExitStack() as stack_of_things:
        enter = stack_of_things.enter_context
        broker = enter(valkey())
        with redis.Redis.from_url(broker.url) as client:
            client.config_set("requirepass", plant["broker password"])
        broker_url = broker.url.replace("redis://", f"redis://:{plant['broker password']}@")
        client = enter(redis.Redis.from_url(broker_url))
        database_url = f"sqlite:///{tmp_path}/blobferry.db"
        if request.param == "postgres":
            url = make_url(enter(postgres_database(postgres_server))).set(password=plant["database password"])
            database_url = url.render_as_string(hide_password=False)
        s3 = replace(s3, access_key=plant["access key"], secret_key=plant["secret key"])
        site = enter(serving(BLOB))
        site.routes = {
            f"/{name}?signature={plant[prefix + 'source signature']}": answer
            for prefix in ("", "bare ")
            for name, answer in {
                "forbidden": status(403),
                "late": answer_late,
                "elsewhere": redirect(f"{site.url}/gone?token={plant['redirected signature']}"),
            }.items()
        }
        site.routes[f"/gone?token={plant['redirected signature']}"] = status(410)
        stack = Stack(broker_url, database_url, s3, tmp_path, settings=settings_of(plant, enter(refusing_s3())))
        stack.prepare()
        worker = enter(stack.worker("worker", "--loglevel", "DEBUG"))
        app = Celery("theirs", broker=broker_url, backend=broker_url, set_as_current=False)
        stack_of_things.callback(app.close)
        stack_of_things.callback(slow.set)
        yield Scene(stack, site, Canaries(plant), enter(stack.client()), app, client, worker, slow, enter(receiving()))


def test_no_secret_is_seen_anywhere(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    plant = scene.canaries.secrets
    look = scene.canaries.look
    with flower(scene.stack.broker_url, basic_auth="user:secret", read_only=True) as watching:
        _bare_tasks(scene)
        scene.client.url_for("/bare/late")  # signed here
        # By the worker: the answer is a signed URL, and no longer there once it has been read.
        with Client(database_url=scene.stack.database_url, broker_url=scene.stack.broker_url) as knows_no_storage:
            knows_no_storage.url_for("/bare/late")
        with Monitor(scene.stack.broker_url) as monitor:
            ended = _jobs(scene)
            _reads(scene)
        heard = [command for command in monitor.heard if not command.startswith(("AUTH", "HELLO"))]
        look("what the broker was told", "\n".join(heard))
        _look_at_flower(scene, watching.url, ended)
        look("command lines", "\n".join(command_lines(*scene.worker.pids, *watching.pids)))
        scene.canaries.look_into("logs", scene.stack.directory, "*.log")
    look("logs of this process", caplog.text)
    _look_at_commands(scene, ended)
    for table, found in rows(scene.stack.database_url).items():
        look(f"table {table}", found)
    for path in database_files(scene.stack.database_url):
        with suppress(FileNotFoundError):  # PostgreSQL replaces pg_internal.init at times
            look("database files", path.read_bytes())
    for memory in broker_memory(scene.broker):
        look("broker's memory", memory)
    look("broker's file", saved(scene.broker))

    assert scene.canaries.seen == set()
    for place in (
        "what the broker was told",
        "logs",
        "table blobferry_jobs",
        "table blobferry_deliveries",
        "database files",
        "broker's memory",
    ):
        assert scene.canaries.looked_at[place] > 1000, place
    held = {header for header in scene.site.asked("Authorization") if header}
    assert held == {
        "Basic " + b64encode(f"user:{plant[prefix + 'source password']}".encode()).decode() for prefix in ("", "bare ")
    }  # they were needed, and there


def _bare_tasks(scene: Scene) -> None:
    """The messages hold what they were sent with. Once a worker has them nothing else may."""
    good = scene.send(path="/bare/good", source=scene.signed("/a", "bare "))
    scene.ends(good, "succeeded")
    scene.celery_says(good, "SUCCESS")
    late = scene.send(path="/bare/late", source=scene.signed("/late", "bare "))
    wait_for(scene.client, wait_for_row(scene, late), lambda job: job.state == "running")
    inspect = scene.app.control.inspect(timeout=10, limit=1)
    active = inspect.active()
    assert late in repr(active)
    told = (active, inspect.query_task(late), inspect.reserved(), inspect.stats(), inspect.conf(), inspect.report())
    scene.canaries.look("inspect", told)
    scene.slow.set()
    scene.ends(late, "succeeded")
    for path, code in (("/forbidden", "source_not_allowed"), ("/elsewhere", "source_not_found")):
        scene.ends(scene.send(path="/bare/bad", source=scene.signed(path, "bare ")), "failed", code)
    for refused in (
        scene.send(path="/bare/odd", source=scene.signed("/a", "bare "), colour="blue"),
        scene.send("write_stream", "/bare/odd", scene.signed("/a", "bare ")),
        scene.send(path="/bare/odd", source=scene.signed("/a b", "bare ")),
    ):
        scene.celery_says(refused, "FAILURE")


def wait_for_row(scene: Scene, job_id: str) -> str:
    wait_until(lambda: scene.client.get(job_id), 30, "a row")  # an error counts as no answer
    return job_id


def _jobs(scene: Scene) -> list[str]:
    client, key = scene.client, scene.canaries.secrets["encryption key"]
    good = [
        client.write_stream("/good", scene.signed(), idempotency_key="good"),
        client.write_stream("/again", scene.signed(), labels={"a": "b"}),
        client.put_content("/small", b"small", webhook=scene.hook("/taken")),
        client.put_content("/smaller", b"", webhook=scene.hook("/refused")),
    ]
    scene.hooks.scripts[f"/refused?token={scene.canaries.secrets['webhook token']}"].append(refuse_post(500))
    for job in good:
        scene.ends(job.id, "succeeded")
    wait_until(lambda: all(each.tries and each.status for each in client.deliveries()), 30, "tries of both webhooks")
    scene.canaries.look("deliveries", client.deliveries())
    for posted in scene.hooks.posted:
        assert posted.verified("whsec_" + scene.canaries.secrets["old webhook secret"])
    assert client.write_stream("/good", scene.signed(), idempotency_key="good").id == good[0].id
    sealed = scene.send(path="/sealed", source=seal(scene.signed(), key))
    old = scene.send(path="/old", source=seal(scene.signed(), scene.canaries.secrets["old encryption key"]))
    others = [
        client.move("/again", "/moved").id,
        client.read_stream("/good", scene.stack.incoming / "out.bin").id,
        client.delete("/small").id,
        *(wait_for_row(scene, task) for task in (sealed, old)),
    ]
    for job_id in others:
        scene.ends(job_id, "succeeded")
    nowhere = scene.signed().replace(scene.site.url.partition("://")[2], "no-such-host.invalid")
    bad = {
        client.write_stream("/bad/1", scene.signed("/forbidden")).id: "source_not_allowed",
        client.write_stream("/bad/2", scene.signed("/elsewhere")).id: "source_not_found",
        client.write_stream("/bad/3", nowhere).id: "source_unavailable",
        client.write_stream("/bad/4", scene.signed(), storage="refused").id: "permission_denied",
        client.write_stream("/bad/5", seal(scene.signed(), Fernet.generate_key().decode())).id: "configuration",
    }
    for job_id, code in bad.items():
        scene.canaries.look("errors", scene.ends(job_id, "failed", code))
    return [*(job.id for job in good), *others, *bad]


def _reads(scene: Scene) -> None:
    assert scene.client.stat("/good").size == len(BLOB)
    assert scene.client.get_content("/good") == BLOB
    assert "/good" in scene.client.list("/")
    with pytest.raises(BlobferryError) as refused:
        scene.client.stat("/good", storage="refused")
    scene.canaries.look("errors", f"{refused.value} {refused.value!r} {refused.value.__cause__!r}")


def _look_at_flower(scene: Scene, url: str, ended: list[str]) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    opener.addheaders = [("Authorization", "Basic " + b64encode(b"user:secret").decode())]
    with opener.open(f"{url}/api/tasks", timeout=20) as answer:
        tasks = set(json.loads(answer.read()))
    assert tasks.issuperset(ended)
    pages = [f"{page}/{task}" for task in tasks for page in ("task", "api/task/info", "api/task/result")]
    with opener.open(f"{url}/api/workers", timeout=20) as answer:
        pages += [f"worker/{name}" for name in json.loads(answer.read())]
    for page in (*FLOWER_PAGES, *pages):
        try:
            with opener.open(f"{url}/{page}", timeout=20) as answer:
                scene.canaries.look("Flower", answer.read())
        except urllib.error.HTTPError as error:
            with error:
                scene.canaries.look("Flower", error.read())


def _look_at_commands(scene: Scene, ended: list[str]) -> None:
    """The command lines of app and worker, in good times and when what they need is away or refuses them."""
    plant, environment = scene.canaries.secrets, scene.stack.environment()
    nobody = f"127.0.0.1:{free_port()}"
    away = {
        "BLOBFERRY_DATABASE_URL": f"postgresql://user:{plant['database password']}@{nobody}/db",
        "BLOBFERRY_BROKER_URL": f"redis://:{plant['broker password']}@{nobody}/0",
    }
    wrong = {"BLOBFERRY_BROKER_URL": environment["BLOBFERRY_BROKER_URL"].replace("@", "x@")}
    odd = {name: value.replace("://", ":/") for name, value in away.items()}
    keys = {"BLOBFERRY_ENCRYPTION_KEYS": plant["encryption key"] + ";" + plant["old encryption key"]}
    write = ["write", scene.site.url + "/a", "/from-the-shell", "--json"]
    for job_id in ended:
        for options in ([], ["--json"]):
            assert _look_at_client(scene, ["status", job_id, *options]) == 0
    assert _look_at_client(scene, ["deliveries"]) == 0
    for variables in ({}, away, wrong, odd, keys):
        for command in (["jobs", "--json"], ["stat", "/good"], write):
            _look_at_client(scene, command, variables)
    for variables in ({}, away, odd, keys):
        _look_at_worker(scene, ["-m", "worker", "doctor"], variables)
    _look_at_worker(scene, ["-m", "worker", "sweep"], wrong)
    assert _look_at_worker(scene, ["-c", REPRS]).count("\n") > 20


def _look_at_client(scene: Scene, command: list[str], variables: Mapping[str, str] | None = None) -> int:
    done = CliRunner().invoke(main, command, env=scene.stack.environment() | dict(variables or {}))
    scene.canaries.look(f"blobferry {command[0]}", done.output)
    return done.exit_code


def _look_at_worker(scene: Scene, command: list[str], variables: Mapping[str, str] | None = None) -> str:
    environment = scene.stack.environment() | {"PYTHONPATH": str(Path(__file__).parents[2])} | dict(variables or {})
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    scene.canaries.look("command " + " ".join(command[1:3])[:20], done.stdout + done.stderr)
    return done.stdout


def test_what_is_no_json_and_what_asks_for_the_unknown_is_refused_and_the_worker_goes_on(stack: Stack) -> None:
    """A pickle is never opened: it would run whatever its sender likes."""
    opened = stack.directory / "opened"
    types = ("application/x-python-serialize", "application/x-yaml", "application/x-unknown")
    file = stack.incoming / "good.bin"
    file.write_bytes(BLOB)
    with (
        Celery("theirs", broker=stack.broker_url, backend=stack.broker_url, set_as_current=False) as app,
        redis.Redis.from_url(stack.broker_url) as broker,
        stack.client() as client,
        stack.worker() as worker,
    ):
        with Connection(stack.broker_url) as connection:  # type: ignore[no-untyped-call]
            for queue, content_type in product(("blobferry", "blobferry.reads"), types):
                connection.Producer().publish(
                    pickle.dumps(_Opened(str(opened))),
                    content_type=content_type,
                    content_encoding="binary",
                    routing_key=queue,
                    headers={"id": uuid4().hex, "task": "blobferry.delete", "lang": "py"},
                )
        for operation, queue in (("delete", "blobferry"), ("stat", "blobferry.reads")):
            odd = {"path": "/a", "colour": "blue"}
            with pytest.raises(BlobferryError, match="unknown argument 'colour'"):
                app.send_task(f"blobferry.{operation}", kwargs=odd, queue=queue).get(timeout=30)
        app.send_task("blobferry.no_such_task", queue="blobferry")
        assert rows(stack.database_url)["blobferry_jobs"] == []
        assert client.wait(client.write_stream("/good", file).id, timeout=30).state == "succeeded"
        assert client.stat("/good").size == len(BLOB)
        wait_until(lambda: not broker.llen("blobferry"), 20, "an empty queue")
        assert worker.processes[0].pid == worker.pids[0]
    assert not opened.exists()


@dataclass
class _Opened:
    """Leaves a file behind when it is unpickled."""

    path: str

    def __reduce__(self) -> Any:
        return open, (self.path, "w")
