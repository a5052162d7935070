"""The services that everything else is tested on: they start, answer, die when told to, and leave nothing behind."""

import socket
import tempfile
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeVar

import botocore.exceptions
import psutil
import psycopg
import pytest
import redis

from dev import services
from dev.services import S3Service, Service, ServiceError

MIB = 1024 * 1024
Running = TypeVar("Running", bound=Service)


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where services put what they do not keep. Not below pytest's own directory: only its owner may enter that."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        monkeypatch.setattr(tempfile, "tempdir", directory)
        monkeypatch.delenv("BLOBFERRY_TEST_POSTGRES_URL", raising=False)
        yield Path(directory)


def family(service: Service) -> list[int]:
    """The ids of all its processes, whoever started them."""
    children = [child.pid for pid in service.pids for child in psutil.Process(pid).children(recursive=True)]
    return [*service.pids, *children]


@contextmanager
def leaves_nothing_behind(start: Callable[[], AbstractContextManager[Running]], directory: Path) -> Iterator[Running]:
    """The service, which has ended all its processes and removed all its files after the block."""
    with start() as service:
        yield service
        pids = family(service)
        assert pids
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []  # a zombie would exist
    assert list(directory.iterdir()) == []


def call(url: str, method: str = "GET", basic_auth: str | None = None) -> tuple[int, str]:
    """Status and text of an answer, whichever it is."""
    request = urllib.request.Request(url, method=method, data=b"" if method == "POST" else None)
    if basic_auth:
        request.add_header("Authorization", "Basic " + b64encode(basic_auth.encode()).decode())
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=20) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_valkey_answers_and_leaves_nothing_behind(temporary: Path) -> None:
    with leaves_nothing_behind(services.valkey, temporary) as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("key", "value")
            assert client.get("key") == b"value"
        assert server.pid in family(server)


def test_valkey_forgets_at_a_restart_unless_it_has_a_directory(temporary: Path) -> None:
    for directory, expected in ((None, None), (temporary / "kept", b"value")):
        with services.valkey(directory=directory) as server, redis.Redis.from_url(server.url) as client:
            client.set("key", "value")
            client.close()
            server.restart()
            assert client.get("key") == expected


def test_postgres_answers_and_leaves_nothing_behind(temporary: Path) -> None:
    with leaves_nothing_behind(services.postgres, temporary) as server:
        with (
            services.postgres_database(server) as url,
            psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://")) as connection,
        ):
            connection.execute("CREATE TABLE fresh (id int)")
        with psycopg.connect(server.url) as connection:
            left = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'blobferry%'").fetchall()
        assert left == []
        assert len(family(server)) > 1


def test_postgres_drops_a_database_that_is_still_in_use() -> None:
    with services.postgres() as server:
        with services.postgres_database(server) as url:
            lingering = psycopg.connect(url.replace("+psycopg", ""))
        with pytest.raises(psycopg.OperationalError):
            lingering.execute("SELECT 1")
        lingering.close()


def test_postgres_keeps_what_was_committed_before_a_kill(temporary: Path) -> None:
    directory = temporary / "kept"
    with services.postgres(directory) as server:
        with psycopg.connect(server.url) as connection:
            connection.execute("CREATE TABLE kept (id int)")
        server.kill9()
        with pytest.raises(psycopg.OperationalError):
            server.answers()
        server.restart()
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)
    with services.postgres(directory) as server, psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_postgres_may_be_one_that_runs_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with services.postgres() as elsewhere:
        monkeypatch.setenv("BLOBFERRY_TEST_POSTGRES_URL", elsewhere.url.replace("postgresql:", "postgresql+psycopg:"))
        with services.postgres() as server:
            assert (server.pids, server.url) == ((), elsewhere.url)
        assert elsewhere.answers()


@pytest.mark.parametrize("start", [services.moto, services.swift], ids=["moto", "swift"])
def test_an_s3_service_answers_and_leaves_nothing_behind(
    start: Callable[[], AbstractContextManager[S3Service]], temporary: Path
) -> None:
    with leaves_nothing_behind(start, temporary) as service:
        bucket = services.create_bucket(service, "transfers")
        services.create_bucket(service, "transfers")  # safe to repeat
        client = service.client()
        client.put_object(Bucket=bucket, Key="a/b", Body=b"bytes")
        assert client.get_object(Bucket=bucket, Key="a/b")["Body"].read() == b"bytes"
        assert [found["Key"] for found in client.list_objects_v2(Bucket=bucket)["Contents"]] == ["a/b"]
        with pytest.raises(botocore.exceptions.ClientError, match="PreconditionFailed"):
            client.put_object(Bucket=bucket, Key="a/b", Body=b"other", IfNoneMatch="*")
        client.close()


@pytest.mark.long
def test_swift_keeps_an_unfinished_upload_over_a_kill_and_a_restart(temporary: Path) -> None:
    directory = temporary / "kept"
    with services.swift(directory=directory) as service:
        where = {"Bucket": services.create_bucket(service, "transfers"), "Key": "large"}
        client = service.client()
        where["UploadId"] = client.create_multipart_upload(**where)["UploadId"]
        first = client.upload_part(**where, PartNumber=1, Body=b"1" * 5 * MIB)
        pids = family(service)
        service.kill9()
        assert [pid for pid in pids if psutil.pid_exists(pid)] == []
        with pytest.raises(botocore.exceptions.EndpointConnectionError):
            client.list_parts(**where)
        service.restart()
        assert [part["ETag"] for part in client.list_parts(**where)["Parts"]] == [first["ETag"]]

    with services.swift(directory=directory) as again:
        assert again.endpoint == service.endpoint
        second = client.upload_part(**where, PartNumber=2, Body=b"2")
        parts = [{"PartNumber": number, "ETag": part["ETag"]} for number, part in enumerate((first, second), start=1)]
        client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
        del where["UploadId"]
        assert client.get_object(**where)["Body"].read() == b"1" * 5 * MIB + b"2"
        client.close()


def test_swift_refuses_a_wrong_secret() -> None:
    with services.swift() as service:
        wrong = S3Service(endpoint=service.endpoint, access_key=service.access_key, secret_key="wrong").client()
        with pytest.raises(botocore.exceptions.ClientError, match="SignatureDoesNotMatch"):
            wrong.list_buckets()
        wrong.close()


def test_flower_answers_and_leaves_nothing_behind(temporary: Path) -> None:
    with leaves_nothing_behind(services.valkey, temporary) as broker:
        with services.flower(broker.url) as flower:
            status, page = call(flower.url)
            assert (status, "Flower" in page) == (200, True)
            pids = family(flower)
        with services.flower(broker.url, basic_auth="user:secret") as flower:
            assert call(flower.url)[0] == 401
            status, page = call(flower.url, basic_auth="user:secret")
            assert (status, "Flower" in page) == (200, True)
            assert "secret" not in " ".join(psutil.Process(flower.pids[0]).cmdline())
            pids += family(flower)
        assert [pid for pid in pids if psutil.pid_exists(pid)] == []


#: What Flower can be told to do, and what it shows.
CHANGES = (
    *("worker/shutdown/w", "worker/pool/restart/w", "worker/pool/grow/w", "worker/pool/shrink/w"),
    *("worker/pool/autoscale/w", "worker/queue/add-consumer/w?queue=q", "worker/queue/cancel-consumer/w?queue=q"),
    *("task/revoke/some-id", "task/revoke/some-id?terminate=true", "task/abort/some-id"),
    *("task/timeout/blobferry.delete?soft=1", "task/rate-limit/blobferry.delete?ratelimit=1"),
    *("task/apply/blobferry.delete", "task/async-apply/blobferry.delete", "task/send-task/blobferry.delete"),
)
PAGES = ("", "workers", "tasks", "broker", "task/some-id", "worker/w", "api/workers", "api/tasks", "api/task/types")


def test_flower_as_compose_starts_it_asks_everybody_who_they_are_and_changes_nothing() -> None:
    """The variables are those of docker-compose.yml."""
    compose = (Path(__file__).resolve().parents[2] / "docker-compose.yml").read_text(encoding="utf-8")
    assert {"FLOWER_BASIC_AUTH", "FLOWER_READ_ONLY", "CELERY_BROKER_URL"} <= set(compose.replace(":", " ").split())
    assert 'FLOWER_READ_ONLY: "true"' in compose
    with (
        services.valkey() as broker,
        services.flower(broker.url, basic_auth="user:secret", read_only=True) as flower,
        redis.Redis.from_url(broker.url) as client,
    ):
        for path in CHANGES:
            for who, status in ((None, 401), ("user:wrong", 401), ("user:secret", 403)):
                assert call(f"{flower.url}/api/{path}", "POST", who)[0] == status, (path, who)
        for path in PAGES:
            for who in (None, "user:wrong"):
                assert call(f"{flower.url}/{path}", basic_auth=who)[0] == 401, (path, who)
        assert call(flower.url, basic_auth="user:secret")[0] == 200
        assert client.keys("blobferry*") == []


@pytest.mark.parametrize(
    "name", ["valkey", *(pytest.param(name, marks=pytest.mark.long) for name in ("moto", "swift", "flower"))]
)
def test_a_service_whose_port_is_taken_says_so_with_its_log(name: str, temporary: Path) -> None:
    """Even where the other one would have answered in its stead."""
    with services.moto() as other:
        port = int(other.endpoint.rpartition(":")[2])
        arguments = ("redis://127.0.0.1:1/0",) if name == "flower" else ()
        with (
            pytest.raises(ServiceError, match=rf"(?is)^{name}.* ended with status .*log.*(in use|could not bind)"),
            getattr(services, name)(*arguments, port=port),
        ):
            pytest.fail("it started")
        assert [path.name.split("-")[1] for path in temporary.iterdir()] == ["moto"]


def test_a_postgres_that_cannot_start_says_so_with_its_log(temporary: Path) -> None:
    data = temporary / "broken" / "data"
    with services.postgres(data.parent):
        pass
    (data / "global" / "pg_control").unlink()
    with (
        pytest.raises(ServiceError, match=r"(?s)^postgres ended with status .*pg_control"),
        services.postgres(data.parent),
    ):
        pytest.fail("it started")


def test_a_postgres_elsewhere_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOBFERRY_TEST_POSTGRES_URL", "postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(ServiceError, match="BLOBFERRY_TEST_POSTGRES_URL does not answer"), services.postgres():
        pytest.fail("it started")


def test_wait_until_returns_the_first_true_answer_and_names_the_last_error() -> None:
    answers = iter([ValueError("not yet"), 0, 7])

    def probe() -> object:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert services.wait_until(probe, 5, "the seventh") == 7
    with pytest.raises(TimeoutError, match=r"^the eighth: not within 0 seconds: StopIteration"):
        services.wait_until(probe, 0, "the eighth")


def test_free_ports_can_be_listened_on() -> None:
    port = services.free_port()
    with socket.create_server(("127.0.0.1", port)):
        assert services.free_port() != port
