"""Stores for the contract suite."""

import threading
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from typing import Any

import pytest

from dev.services import S3Service, create_bucket, moto, swift
from tests.stores.scripted_server import ACCESS_FIELDS, ScriptedServer
from worker.stores.local import LocalStore
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.s3.s3_store import S3Access, S3Store
from worker.stores.store import Store

BUCKET = "contract-suite"
KINDS = ("memory", "local", "moto", "swift")
_numbers = count(1)


@pytest.fixture(scope="session")
def moto_service() -> Iterator[S3Service]:
    with moto() as service:
        create_bucket(service, BUCKET)
        yield service


@pytest.fixture(scope="session")
def swift_service() -> Iterator[S3Service]:
    with swift() as service:
        create_bucket(service, BUCKET)
        yield service


def s3_store(service: S3Service, bucket: str = BUCKET, **settings: Any) -> S3Store:
    access: dict[str, Any] = {
        "region": service.region,
        "endpoint": service.endpoint,
        "access_key": service.access_key,
        "secret_key": service.secret_key,
        "path_style": True,
    }
    access |= {name: settings.pop(name) for name in list(settings) if name in {*ACCESS_FIELDS, "secret_key"}}
    return S3Store(S3Access(**access), bucket, **settings)


@pytest.fixture
def make_s3_store() -> Any:
    """A constructor of S3 stores from a running service; keyword arguments of S3Access and S3Store alike."""
    return s3_store


@pytest.fixture(scope="session")
def stores(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Store]:
    """One store a kind for the whole session; its server is started when it is first asked for."""

    @cache
    def make(kind: str) -> Store:
        if kind == "memory":
            return MemoryStore()
        if kind == "local":
            return LocalStore(tmp_path_factory.mktemp("local") / "bucket")
        return s3_store(request.getfixturevalue(f"{kind}_service"))

    return make


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which store the test runs on."""
    return str(request.param)


@pytest.fixture
def store(kind: str, stores: Callable[[str], Store]) -> Store:
    return stores(kind)


@pytest.fixture
def prefix() -> str:
    """Keys under it belong to this test alone."""
    return f"t{next(_numbers)}/"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    scripted = ScriptedServer()
    thread = threading.Thread(target=scripted.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield scripted
    scripted.server.shutdown()
    scripted.server.server_close()
    thread.join()
