"""Who may do what on a machine that others use too: `make up`, the compose file, and the rights of SECURITY.md."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
import yaml  # type: ignore[import-untyped]

from blobferry.messages.job_messages import client_app
from dev.services import S3Service, free_port, valkey
from dev.stack import Stack
from dev.waiting import wait_until
from tests.system.conftest import FAST

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


# --- make up ---------------------------------------------------------------------------------------------------------


@contextmanager
def up(directory: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`make up`, once it has said how to use it, and what it has said."""
    log = directory / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "dev.up"], cwd=ROOT, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_until(lambda: "Ctrl-C ends" in log.read_text() or process.poll() is not None, 120, "make up is ready")
        yield process, log.read_text()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def test_make_up_is_of_no_use_to_other_accounts(tmp_path: Path) -> None:
    with up(tmp_path) as (process, said):
        (url,) = re.findall(r"BLOBFERRY_BROKER_URL='?(redis://[^\s']+)", said)
        password = redis.Redis.from_url(url).connection_pool.connection_kwargs["password"]
        assert len(password) >= 24
        with redis.Redis.from_url(url) as client:
            assert client.ping()
        without = url.replace(f":{password}@", "")
        with redis.Redis.from_url(without) as client, pytest.raises(redis.exceptions.AuthenticationError):
            client.ping()
        family = psutil.Process(process.pid).children(recursive=True)
        assert [name for name in family if password in " ".join(name.cmdline())] == []
        (worker, *_) = [name for name in family if "worker" in name.cmdline() and "run" in name.cmdline()]
        roots = worker.environ()["BLOBFERRY_SOURCES__FILE_ROOTS"]
        for shared in (Path.home(), ROOT):
            assert f'"{shared}"' not in roots
        assert all(Path(root).is_relative_to("/tmp") for root in yaml.safe_load(roots))
        assert os.stat(Path(yaml.safe_load(roots)[0]).parent).st_mode & 0o077 == 0


# --- compose and requirements ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_of_compose_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert "privileged" not in service
    assert "cap_add" not in service
    assert re.search(r":[\w.-]+(@sha256:[0-9a-f]{64})?$", service["image"])
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


@pytest.mark.parametrize("name", SERVICES)
def test_no_secret_of_compose_is_an_argument(name: str) -> None:
    """Compose replaces ${NAME} before the container starts, and the shell $$NAME within it."""
    service = SERVICES[name]
    arguments = repr([service.get(part) for part in ("command", "entrypoint", "healthcheck")])
    assert re.findall(r"(?<!\$)\$\{?\w*(?:PASSWORD|SECRET|KEY|AUTH|URL)", arguments) == []


def test_the_broker_of_compose_takes_its_password_from_standard_input(tmp_path: Path) -> None:
    (script,) = (word for word in SERVICES["redis"]["command"] if "redis-server" in word)
    server = tmp_path / "redis-server"
    with valkey() as known:
        server.symlink_to(psutil.Process(known.pid).exe())
    port = free_port()
    script = script.replace("$$", "$").replace("redis-server -", f"redis-server - --port {port} --dir {tmp_path}")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "REDISCLI_AUTH": "drawn"}
    process = subprocess.Popen([str(shutil.which("sh")), "-c", script], env=environment, stdout=subprocess.DEVNULL)
    try:

        def answers() -> bool:
            with redis.Redis(port=port, password="drawn") as client:
                return bool(client.ping())

        wait_until(answers, 30, "the broker answers")
        with redis.Redis(port=port) as client, pytest.raises(redis.exceptions.AuthenticationError):
            client.ping()
        assert "drawn" not in " ".join(psutil.Process(process.pid).cmdline())
        assert "redis-server" in psutil.Process(process.pid).cmdline()[0], "SIGTERM would not reach the server"
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_has_its_hashes(name: str) -> None:
    lines = re.sub(r"\\\n", " ", (ROOT / name).read_text(encoding="utf-8")).splitlines()
    pinned = [line for line in lines if line and not line.lstrip().startswith("#")]
    assert pinned
    assert [line for line in pinned if "==" not in line or "--hash=sha256:" not in line] == []


# --- the broker's users ----------------------------------------------------------------------------------------------


def test_an_apps_user_of_the_broker_may_send_and_read_and_give_no_orders(s3: S3Service, tmp_path: Path) -> None:
    """With the very rules of SECURITY.md."""
    rules = dict(re.findall(r"^ACL SETUSER (worker|app) on >… (.*)$", (ROOT / "SECURITY.md").read_text(), re.MULTILINE))
    with valkey(password="boss") as broker:
        with redis.Redis.from_url(broker.url) as boss:
            for name, rights in rules.items():
                boss.execute_command("ACL", "SETUSER", name, "on", f">{name}", *rights.split())
        urls = {name: broker.url.replace(":boss@", f"{name}:{name}@") for name in rules}
        stack = Stack(urls["worker"], f"sqlite:///{tmp_path}/blobferry.db", s3, tmp_path, settings=FAST)
        stack.prepare()
        (stack.incoming / "file").write_bytes(b"bytes")
        with stack.worker(), replace(stack, broker_url=urls["app"]).client() as client:
            job = client.write_stream("/access", (stack.incoming / "file").as_uri())
            assert client.wait(job.id, timeout=60).state == "succeeded"
            assert client.stat("/access").size == 5
            app = client_app(urls["app"])
            for order, arguments in (("shutdown", {}), ("revoke", {"task_id": job.id})):
                with pytest.raises(Exception, match="No permissions to access a channel"):
                    app.control.broadcast(order, arguments=arguments)
            assert client_app(urls["worker"]).control.ping(timeout=10)
