"""What several folders of tests share: databases, migrated, on SQLite and on a real PostgreSQL."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from hypothesis import HealthCheck, settings
from sqlalchemy import event, text

from dev import services
from models import Database
from tests.doubles import do_not_wait_for_the_disk
from tests.jobs.job_world import World
from tests.zoo_limits import limit_of

ALEMBIC_INI = Path(__file__).parent.parent / "alembic.ini"

# On a busy machine an example takes as long as it takes.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# A script's shell lets what it starts in the background ignore these, and so would all processes of the tests.
for number in (signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

SLOWER_KINDS = ("local", "moto", "swift")  #: of stores; the memory store runs every case every time


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On a store slower than memory a case is ``long``, unless its test says ``every_run_on`` that kind of store.

    ``@pytest.mark.every_run_on("moto", only="in parts")`` chooses the cases whose id contains ``only``. On a store of
    the zoo, a case that this cannot do fails, as zoo_limits.py says. On PostgreSQL a case is ``no_cover``: the same one
    on SQLite reaches nearly the same lines.
    """
    for item in items:
        limit = limit_of(os.environ.get("ZOO_PROFILE", ""), item.name)
        if limit is not None and "moto" in item.name:  # the others are behind no proxy
            item.add_marker(pytest.mark.xfail(reason=limit, strict=True))
        case = getattr(item, "callspec", None)
        if case is not None and "postgres" in case.params.values():
            item.add_marker(pytest.mark.no_cover)
        if case is None or case.params.get("kind") not in SLOWER_KINDS:
            continue
        chosen = (
            mark.kwargs.get("only", "") in case.id
            for mark in item.iter_markers("every_run_on")
            if case.params["kind"] in mark.args
        )
        if not any(chosen):
            item.add_marker(pytest.mark.long)


def alembic_config(url: str) -> Config:
    """Alembic's configuration for the database; what it prints goes nowhere."""
    config = Config(str(ALEMBIC_INI))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with our tables and no rows, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "blobferry.db"
    command.upgrade(alembic_config(f"sqlite:///{path}"), "head")
    return path


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[services.Postgres]:
    with services.postgres() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: services.Postgres) -> Iterator[Database]:
    """One database for the session; each test empties it first."""
    with services.postgres_database(postgres_server) as url:
        command.upgrade(alembic_config(url), "head")
        database = Database(url)
        yield database
        database.close()


@pytest.fixture
def sqlite_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    """A migrated SQLite database of this test's own."""
    path = tmp_path / "blobferry.db"
    shutil.copyfile(migrated_sqlite, path)
    return f"sqlite:///{path}"


@pytest.fixture
def sqlite_database(sqlite_url: str) -> Iterator[Database]:
    database = Database(sqlite_url)
    event.listen(database.engine, "connect", do_not_wait_for_the_disk)
    yield database
    database.close()


@pytest.fixture
def postgres_database(migrated_postgres: Database) -> Database:
    with migrated_postgres.begin() as session:
        # The others go along. For a handful of rows faster than TRUNCATE.
        for table in ("jobs", "tombstones", "capabilities", "workers", "lacks", "listeners", "spools"):
            session.execute(text(f"DELETE FROM blobferry_{table}"))
    return migrated_postgres


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Database:
    """A migrated, empty database of each kind."""
    found = request.getfixturevalue(f"{request.param}_database")
    assert isinstance(found, Database)
    return found


@pytest.fixture
def world_database(request: pytest.FixtureRequest) -> Database:
    """SQLite, unless a test runs ``on_each_database``."""
    found = request.getfixturevalue(f"{getattr(request, 'param', 'sqlite')}_database")
    assert isinstance(found, Database)
    return found


@pytest.fixture
def size() -> int:
    """Of the world's file: ten parts, unless a test is parametrized with another one."""
    return 95


@pytest.fixture
def world(world_database: Database, tmp_path: Path, size: int) -> World:
    return World(world_database, tmp_path / "incoming", size)
