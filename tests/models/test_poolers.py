"""PostgreSQL behind a pooler that gives each transaction another server connection."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url, text

from dev.proxies.transaction_pooler import transaction_pooler
from dev.services import Postgres, postgres_database
from dev.services.pgbouncer import pgbouncer, pgbouncer_program
from models import Database

ROOT = Path(__file__).resolve().parents[2]
SETTING = "idle_in_transaction_session_timeout"


@pytest.fixture(params=["rotating proxy", "pgbouncer"])
def pooled_url(request: pytest.FixtureRequest, postgres_server: Postgres) -> Iterator[str]:
    """An empty database, reached through a pooler."""
    if request.param == "pgbouncer" and pgbouncer_program() is None:
        pytest.skip("no PgBouncer: apt-get install pgbouncer, or name it in BLOBFERRY_TEST_PGBOUNCER")
    with postgres_database(postgres_server) as url:
        database = str(make_url(url).database)
        if request.param == "pgbouncer":
            with pgbouncer(postgres_server) as directory:
                yield f"postgresql://postgres@/{database}?host={directory}"
        else:
            with transaction_pooler(postgres_server.upstream) as pooler:
                yield f"postgresql://postgres@/{database}?host={pooler.directory}"


@pytest.fixture
def pooled(pooled_url: str) -> Iterator[Database]:
    database = Database(pooled_url)
    yield database
    database.close()


def test_a_statement_may_come_any_number_of_times(pooled: Database) -> None:
    """A statement that psycopg prepares, from the sixth time on, is unknown to the next server connection."""
    for number in range(40):
        with pooled.begin() as session:
            assert session.scalar(text("SELECT CAST(:number AS integer)"), {"number": number}) == number


def test_a_transaction_that_idles_is_ended_and_no_other_program_is(pooled: Database, pooled_url: str) -> None:
    for _ in range(8):
        with pooled.begin() as session:
            assert session.scalar(text(f"SHOW {SETTING}")) == "10s"
    others = [psycopg.connect(pooled_url, prepare_threshold=None) for _ in range(4)]
    found = {str(other.execute(f"SHOW {SETTING}").fetchone()) for other in others}  # in four open transactions
    for other in others:
        other.close()
    assert found == {"('0',)"}


def test_migrations_run_twice_at_once_and_leave_no_setting_behind(pooled_url: str) -> None:
    environment = {**os.environ, "BLOBFERRY_DATABASE_URL": pooled_url}
    command = [sys.executable, "-m", "worker", "migrate"]
    commands = [subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE) for _ in range(2)]
    outcomes = [(process.communicate(timeout=120)[1].decode()[-500:], process.returncode) for process in commands]
    assert [status for _, status in outcomes] == [0, 0], outcomes
    others = [psycopg.connect(pooled_url, prepare_threshold=None) for _ in range(4)]
    found = {str(other.execute("SHOW lock_timeout").fetchone()) for other in others}
    left = others[0].execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone()
    for other in others:
        other.close()
    assert (found, left) == ({"('0',)"}, (0,))
