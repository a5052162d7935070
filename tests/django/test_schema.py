"""Django's migrations and Alembic's make the same tables, and each knows what the other has done."""

import io
import re
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import connections, transaction
from django.test import override_settings
from sqlalchemy import create_engine, inspect, text

from blobferry.django import ferry
from blobferry.django.models import FerryJob
from blobferry.django.schema import TablesError, recorded_revision
from blobferry.sql.revision import ALL_TABLES, FIRST, HEAD, UPGRADES, upgrades
from dev.services import Postgres, postgres_database
from dev.waiting import wait_until
from models import Database
from models.migrations import known_revisions
from tests.conftest import alembic_config
from tests.django.conftest import as_in_settings, connect
from tests.jobs.job_world import PATH, World
from tests.models.test_live_migrations import SUBMIT, connected, probe

Schema = dict[str, Any]


@pytest.fixture(params=["sqlite", "postgres"])
def two_urls(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Two empty databases of a kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/django.db", f"sqlite:///{tmp_path}/alembic.db"
        return
    server: Postgres = request.getfixturevalue("postgres_server")
    with postgres_database(server) as first, postgres_database(server) as second:
        yield first, second
        connections["default"].close()


@pytest.fixture(autouse=True)
def _no_database_left() -> Iterator[None]:
    yield
    connect("default", {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"})


def migrate(url: str, *arguments: str) -> str:
    """Run Django's migrations there; what they print."""
    connect("default", as_in_settings(url))
    printed = io.StringIO()
    call_command("migrate", "blobferry", *arguments, stdout=printed, skip_checks=True)
    return printed.getvalue()


def schema_of(url: str) -> Schema:
    """Everything that the database says of our tables; the order of columns and of SQLite's words aside."""
    engine = create_engine(url)
    with engine.connect() as connection:
        found = _postgresql(connection) if engine.dialect.name == "postgresql" else _sqlite(connection, inspect(engine))
    engine.dispose()
    return found


def _postgresql(connection: Any) -> Schema:
    columns = """SELECT table_name, column_name, data_type, character_maximum_length, is_nullable, column_default
                 FROM information_schema.columns WHERE table_name LIKE 'blobferry_%' ORDER BY 1, 2"""
    indexes = "SELECT indexname, indexdef FROM pg_indexes WHERE tablename LIKE 'blobferry_%' ORDER BY 1"
    constraints = """SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
                     WHERE conrelid::regclass::text LIKE 'blobferry_%' AND contype <> 'n' ORDER BY 1"""
    options = "SELECT relname, reloptions FROM pg_class WHERE relname LIKE 'blobferry_%' AND relkind = 'r' ORDER BY 1"
    answers = {"columns": columns, "indexes": indexes, "constraints": constraints}
    found: Schema = {name: [tuple(row) for row in connection.execute(text(sql))] for name, sql in answers.items()}
    found["options"] = {row[0]: _numbers(row[1]) for row in connection.execute(text(options))}
    return found


def _numbers(options: list[str] | None) -> dict[str, float]:
    return {name: float(value) for name, value in (option.split("=") for option in options or ())}


def _sqlite(connection: Any, inspector: Any) -> Schema:
    tables = sorted(name for name in inspector.get_table_names() if name.startswith("blobferry_"))
    found: Schema = {}
    for table in tables:
        columns = connection.exec_driver_sql(f"PRAGMA table_info({table})").all()
        found[table] = {
            "columns": sorted(
                (name, kind, required, _words(default), key) for _, name, kind, required, default, key in columns
            ),
            "unique": sorted(map(str, inspector.get_unique_constraints(table))),
            "references": sorted(map(str, inspector.get_foreign_keys(table))),
            "key": inspector.get_pk_constraint(table)["constrained_columns"],
        }
    indexes = (
        "SELECT name, sql FROM sqlite_master WHERE tbl_name LIKE 'blobferry_%' AND type = 'index' AND sql IS NOT NULL"
    )
    found["indexes"] = sorted((name, _words(sql)) for name, sql in connection.exec_driver_sql(indexes))
    counted = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE '%AUTOINCREMENT%' AND name LIKE 'blob%'"
    found["counted"] = sorted(connection.exec_driver_sql(counted).scalars())
    return found


def _words(sql: str | None) -> str:
    """The SQL without what means nothing: quotes, parentheses around a value, spaces."""
    return re.sub(r"\s+", " ", re.sub(r"[\"'`()]", " ", sql or "")).strip().lower()


def test_both_make_the_same_tables(two_urls: tuple[str, str]) -> None:
    by_django, by_alembic = two_urls
    migrate(by_django)
    command.upgrade(alembic_config(by_alembic), "head")
    found, wanted = schema_of(by_django), schema_of(by_alembic)
    assert found == wanted
    assert str(wanted).count("blobferry_") > 2 * len(ALL_TABLES), "the comparison has seen them"


def test_alembic_knows_what_django_has_made(two_urls: tuple[str, str]) -> None:
    url, _ = two_urls
    migrate(url)
    before = schema_of(url)
    command.upgrade(alembic_config(url), "head")
    assert schema_of(url) == before
    assert recorded_revision(connections["default"]) == HEAD == known_revisions()[0]


def test_django_knows_what_alembic_has_made(two_urls: tuple[str, str]) -> None:
    url, _ = two_urls
    command.upgrade(alembic_config(url), "head")
    before = schema_of(url)
    assert "Applying blobferry.0001_initial... OK" in migrate(url)
    assert "No migrations to apply" in migrate(url)
    assert schema_of(url) == before


def test_a_worker_runs_jobs_in_tables_that_django_has_made(two_urls: tuple[str, str], tmp_path: Path) -> None:
    url, _ = two_urls
    migrate(url)
    with override_settings(BLOBFERRY={}), closing(Database(url)) as database:
        world = World(database, tmp_path / "incoming")
        with transaction.atomic():
            job = ferry.write_stream(PATH, world.file)
        world.succeed(job.id)
        assert world.seen() == world.data
        done = ferry.wait(job.id, timeout=0)
        assert (done.state, done.bytes_done) == ("succeeded", len(world.data))
        assert [attempt.outcome for attempt in ferry.attempts(job.id)] == ["succeeded"]
        assert [(row.path, row.is_final) for row in FerryJob.objects.all()] == [(PATH, True)]


def test_tables_older_than_the_first_revision_are_left_to_the_worker(two_urls: tuple[str, str]) -> None:
    url, _ = two_urls
    command.upgrade(alembic_config(url), "0007")
    before = schema_of(url)
    with pytest.raises(TablesError, match=r"at revision 0007: run `python -m worker migrate`"):
        migrate(url)
    connections["default"].close()
    assert schema_of(url) == before
    command.upgrade(alembic_config(url), "head")
    assert "OK" in migrate(url)


def test_undoing_them_drops_the_tables_and_nothing_else(two_urls: tuple[str, str]) -> None:
    url, _ = two_urls
    migrate(url)
    migrate(url, "zero")
    assert recorded_revision(connections["default"]) is None
    assert connections["default"].introspection.table_names() == ["django_migrations"]
    assert "OK" in migrate(url)


def test_every_later_revision_is_in_both() -> None:
    """What one of the two lacks, a project that has migrated by it would lack."""
    later = [revision for revision in known_revisions() if revision > FIRST]
    assert sorted(UPGRADES) == sorted(later)
    source = "".join(path.read_text() for path in Path("blobferry/django/migrations").glob("0*.py"))
    assert all(f'BringTo("{revision}")' in source for revision in (FIRST, *later))


def test_an_upgrade_takes_every_step_and_records_where_it_leads() -> None:
    known = {name: {"sqlite": [f"{name} here"], "postgresql": [f"{name} there"]} for name in ("0009", "0010")}

    def words(recorded: str, wanted: str, dialect: str = "sqlite") -> list[str]:
        return [" ".join(statement.split()) for statement in upgrades(recorded, wanted, dialect, known)]

    recording = "UPDATE blobferry_alembic_version SET version_num='0010'"
    assert words("0008", "0010") == ["0009 here", "0010 here", recording]
    assert words("0009", "0010", "postgresql") == ["0010 there", recording]
    assert words("0010", "0009") == words("0010", "0010") == []


def test_an_upgrade_that_waits_for_the_table_keeps_nobody_else_waiting(postgres_server: Postgres) -> None:
    """An app submits in a long transaction of its own; ALTER TABLE waits for it, and all others behind ALTER TABLE."""
    outcomes = list[str]()
    with postgres_database(postgres_server) as url, connected(url) as app, connected(url) as observer:
        command.upgrade(alembic_config(url), FIRST)
        observer.execute("INSERT INTO blobferry_jobs (id, state) VALUES ('running', 'running'), ('queued', 'queued')")
        observer.execute("INSERT INTO blobferry_attempts (job_id, attempt) VALUES ('running', 1)")
        app.execute("BEGIN")
        app.execute(SUBMIT)

        def upgrade() -> None:
            outcomes.append(migrate(url))
            connections["default"].close()  # that of this thread

        migration = threading.Thread(target=upgrade)
        migration.start()
        try:
            waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '% TABLE %'"
            for _ in range(3):  # it tries again and again
                wait_until(lambda: observer.execute(waiting).fetchone(), 30, "a migration that waits", 0.01)
                probe(url)
        finally:
            app.execute("COMMIT")
            migration.join(60)
        assert "OK" in outcomes[0]
        recorded = observer.execute("SELECT version_num FROM blobferry_alembic_version").fetchone()
        assert recorded == (HEAD,)


def test_no_model_waits_for_a_migration() -> None:
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


def test_a_router_keeps_them_out_of_other_databases(tmp_path: Path) -> None:
    with override_settings(DATABASE_ROUTERS=[OnlyElsewhere()]):
        migrate(f"sqlite:///{tmp_path}/app.db")
    assert recorded_revision(connections["default"]) is None


class OnlyElsewhere:
    """A project's router."""

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return app_label != "blobferry"


def test_a_check_of_the_database_says_what_is_to_be_done(two_urls: tuple[str, str]) -> None:
    url, _ = two_urls
    connect("default", as_in_settings(url))

    def found() -> list[str]:
        with override_settings(BLOBFERRY={"BROKER_URL": "redis://127.0.0.1:1/0"}):
            return [message.msg for message in run_checks(tags=["database"], databases=["default"])]

    assert found() == ["the tables of Blobferry are not in DATABASES['default']"]
    migrate(url)
    assert found() == []
    for other, problem in ("0007", "older"), ("9999", "newer"):
        with connections["default"].cursor() as cursor:
            cursor.execute(f"UPDATE blobferry_alembic_version SET version_num = '{other}'")
        (message,) = found()
        assert f"are at revision {other}, which is {problem} than this version" in message


def test_a_flush_empties_them(two_urls: tuple[str, str]) -> None:
    url, _ = two_urls
    migrate(url)
    call_command("migrate", verbosity=0)  # Django says nothing of a flush of no tables
    with connections["default"].cursor() as cursor:
        cursor.execute("INSERT INTO blobferry_jobs (id) VALUES ('a')")
        cursor.execute("INSERT INTO blobferry_uploads (job_id) VALUES ('a')")
    call_command("flush", interactive=False, verbosity=0)
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM blobferry_jobs")
        assert cursor.fetchone() == (0,)


def test_a_project_that_runs_no_migrations_has_them_all_the_same(tmp_path: Path) -> None:
    connect("default", as_in_settings(f"sqlite:///{tmp_path}/app.db"))
    with override_settings(MIGRATION_MODULES={"blobferry": None}):
        call_command("migrate", run_syncdb=True, verbosity=0)
    assert recorded_revision(connections["default"]) == HEAD
