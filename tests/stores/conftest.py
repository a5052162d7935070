"""Stores for the contract suite."""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import count

import pytest

from dev.services import S3Service, create_bucket, swift
from dev.serving import served
from tests.s3_stores import moto_of_the_zoo, s3_store
from tests.stores.contract import DEVIATIONS, Deviates
from tests.stores.scripted_server import ScriptedServer
from tests.zoo_stores import bare_store
from worker.stores.local import LocalStore
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.store import Store

BUCKET = "contract-suite"
#: The stores that keep the contract. A new kind of store is one more line.
STORES: dict[str, Callable[[pytest.FixtureRequest], Store]] = {
    "memory": lambda request: MemoryStore(),
    "local": lambda request: LocalStore(request.getfixturevalue("tmp_path_factory").mktemp("local") / "bucket"),
    "moto": lambda request: bare_store(request.getfixturevalue("moto_service"), BUCKET),
    "swift": lambda request: s3_store(request.getfixturevalue("swift_service"), BUCKET),
}
_numbers = count(1)


@pytest.fixture(scope="session")
def moto_service() -> Iterator[S3Service]:
    with moto_of_the_zoo() as service:
        create_bucket(service, BUCKET)
        yield service


@pytest.fixture(scope="session")
def swift_service() -> Iterator[S3Service]:
    with swift() as service:
        create_bucket(service, BUCKET)
        yield service


@pytest.fixture(scope="session")
def stores(request: pytest.FixtureRequest) -> Callable[[str], Store]:
    """One store a kind for the whole session; its server is started when it is first asked for."""
    return cache(lambda kind: STORES[kind](request))


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    """Which store the test runs on."""
    return str(request.param)


@pytest.fixture
def store(kind: str, stores: Callable[[str], Store]) -> Store:
    return stores(kind)


@pytest.fixture
def deviates(kind: str) -> Deviates:
    return lambda behaviour: behaviour in DEVIATIONS.get(kind, {})


@pytest.fixture
def prefix() -> str:
    """Keys under it belong to this test alone."""
    return f"t{next(_numbers)}/"


@pytest.fixture
def key(prefix: str) -> str:
    return prefix + "a"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    scripted = ScriptedServer()
    with served(scripted.server):
        yield scripted
