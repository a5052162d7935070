"""Drivers on every store, with tiny parts; a root directory for each test; and the one table of what a server lacks."""

import io
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from dev.services import S3Service, create_bucket, swift
from tests.doubles import BytesSource, HookedStore, RecordingStore
from tests.driver.blobs_and_readers import MakeDriver, Once, ReaderOf, Reading, file_source
from tests.driver.store_kinds import BUCKET, COPYING, KINDS, LIMITS, MIN, PART
from tests.driver.unsupported import UNSUPPORTED
from tests.faults import refusing
from tests.s3_stores import moto_of_the_zoo
from tests.zoo_stores import SplitStore, split_store
from worker.driver import Driver
from worker.stores.local import LocalStore
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.store import Store
from worker.transfer.upload.engine import Engine

FILES_IN_MEMORY = Path("/dev/shm")
_numbers = count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A case that a server cannot honour fails, as the table says; one that it has learnt makes the test fail."""
    for item in items:
        if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            reason = UNSUPPORTED.get((str(item.callspec.params.get("kind")), item.originalname))
            if reason is not None:
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


def running(start: Callable[..., AbstractContextManager[S3Service]]) -> Callable[[], Iterator[S3Service]]:
    """A fixture: the server, with the bucket of these tests."""

    @pytest.fixture(scope="session")
    def service() -> Iterator[S3Service]:
        with start(min_part_size=MIN) as service:
            create_bucket(service, BUCKET)
            yield service

    return service


moto_service, swift_service = running(moto_of_the_zoo), running(swift)


@pytest.fixture
def service(kind: str, request: pytest.FixtureRequest) -> S3Service:
    """The server behind the store; for those that have one."""
    found: S3Service = request.getfixturevalue(f"{kind}_service")
    return found


@pytest.fixture(scope="session")
def make_s3_store() -> Callable[..., Store]:
    """A constructor of S3 stores from a running service. For the same settings the same one: clients are slow."""
    made: dict[str, Store] = {}

    def make(service: S3Service, bucket: str = BUCKET, **settings: Any) -> Store:
        name = f"{service.endpoint} {bucket} {sorted(settings.items())}"
        if name not in made:
            made[name] = split_store(service, bucket, limits=LIMITS, **settings)
        return made[name]

    return make


@pytest.fixture(scope="session")
def local_directory() -> Iterator[Path]:
    """Files in memory, where there are such: thousands of writes that wait for a disk say nothing about the driver."""
    with tempfile.TemporaryDirectory(dir=FILES_IN_MEMORY if FILES_IN_MEMORY.is_dir() else None) as directory:
        yield Path(directory)


def get_acquainted(driver: Driver) -> None:
    """Let the driver meet the refusals of a store of the zoo, or the first cases of a run would go another way."""
    for size in (1, 5 * PART):
        driver.put_content("/a", bytes(size), overwrite=False)
        driver.move("/a", "/b", overwrite=False)
        driver.delete("/b")


@pytest.fixture(scope="session")
def stores(request: pytest.FixtureRequest, local_directory: Path) -> Callable[[str], Store]:
    """One store a kind for the whole session; its server is started when it is first asked for."""

    @cache
    def make(kind: str) -> Store:
        if kind == "memory":
            return MemoryStore(limits=LIMITS)
        if kind == "local":
            return LocalStore(local_directory / "bucket", limits=LIMITS)
        store = split_store(request.getfixturevalue(f"{kind}_service"), BUCKET, limits=LIMITS)
        if isinstance(store, SplitStore):
            get_acquainted(Driver(store, root="before", engine=request.getfixturevalue("engine"), copying=COPYING))
        return store

    return make


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which store the test runs on."""
    return str(request.param)


@pytest.fixture(scope="session")
def known_leaks() -> set[str]:
    """Uploads that an earlier test has answered for."""
    return set()


@pytest.fixture
def store(kind: str, stores: Callable[[str], Store], known_leaks: set[str]) -> Iterator[Store]:
    """A store in which the test must leave no unfinished upload."""
    store = stores(kind)
    yield store
    left = {entry.upload_id: entry.key for entry in store.list_uploads() if entry.upload_id not in known_leaks}
    known_leaks.update(left)
    assert list(left.values()) == [], "unfinished uploads are left"


@pytest.fixture
def recorded(store: Store) -> RecordingStore:
    """The store, which remembers what it is asked for."""
    return RecordingStore(store)


@pytest.fixture
def root() -> str:
    """A root directory of this test's own."""
    return f"t{next(_numbers)}"


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with closing(Engine(part_size=PART, part_threads=2)) as engine:
        yield engine


@pytest.fixture
def on(root: str, engine: Engine) -> MakeDriver:
    """A constructor of drivers with tiny parts on any store, at the test's root directory unless another is given."""

    def make(store: Store, root: str = root) -> Driver:
        return Driver(store, root=root, engine=engine, copying=COPYING)

    return make


@pytest.fixture
def driver(store: Store, on: MakeDriver) -> Driver:
    return on(store)


@pytest.fixture
def refused_at(store: Store, on: MakeDriver) -> MakeDriver:
    """A constructor of drivers whose store refuses some verbs; see ``refusing``."""
    return lambda *verbs, **settings: on(refusing(store, *verbs, **settings))


@pytest.fixture
def met_at(store: Store, on: MakeDriver) -> Iterator[MakeDriver]:
    """A constructor of drivers that meet somebody: who acts right before a verb, and must have done so in the end."""
    everybody: list[Once] = []

    def make(verbs: str | Collection[str], action: Callable[[], object], *, at: int = 1) -> Driver:
        everybody.append(Once(verbs, action, at=at))
        return on(HookedStore(store, before=everybody[-1]))

    yield make
    assert all(somebody.done for somebody in everybody), "nobody was met"


@pytest.fixture(params=["reader", "file"])
def reader_of(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ReaderOf]:
    """Makes readers: of unknown length, to be read once; or of known length, to be read at any offset."""
    with ExitStack() as files:
        makers: dict[str, ReaderOf] = {
            "reader": Reading,
            "file": lambda content: files.enter_context(closing(file_source(tmp_path, content))),
        }
        yield makers[request.param]


@pytest.fixture(params=[Reading, io.BytesIO, BytesSource], ids=["reader", "bytes file", "source"])
def any_reader_of(request: pytest.FixtureRequest) -> ReaderOf:
    """The same without files."""
    made: ReaderOf = request.param
    return made
