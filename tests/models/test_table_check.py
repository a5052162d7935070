"""A worker refuses a database without our tables, and waits for one that is away."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from blobferry.errors import UnreachableError
from blobferry.sql.database import open_engine
from models import Database
from models.table_check import refuse_unmigrated

ROOT = Path(__file__).resolve().parents[2]


def url_of(database: Database) -> str:
    return database.engine.url.render_as_string(hide_password=False)


def test_a_migrated_database_is_fine(database: Database) -> None:
    refuse_unmigrated(url_of(database))


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "statement",
    ["DROP TABLE blobferry_lacks", "ALTER TABLE blobferry_jobs DROP COLUMN contents"],
    ids=["a table", "a column"],
)
def test_one_that_lacks_something_is_refused_with_advice(database: Database, statement: str) -> None:
    with database.begin() as session:
        session.execute(text(statement))
    with pytest.raises(UnreachableError, match=r"blobferry_.*worker migrate"):
        refuse_unmigrated(url_of(database))


def test_an_empty_one_is_refused_on_postgresql(migrated_postgres: Database) -> None:
    url = migrated_postgres.engine.url.set(database="postgres").render_as_string(hide_password=False)
    with pytest.raises(UnreachableError, match=r"blobferry_.*worker migrate"):
        refuse_unmigrated(url)


def test_one_that_is_away_is_waited_for_later(tmp_path: Path) -> None:
    refuse_unmigrated("postgresql://nobody@127.0.0.1:1/nowhere")
    refuse_unmigrated(f"sqlite:///{tmp_path}/no/such/folder.db")


def test_run_says_so_in_one_line_and_exits_3(tmp_path: Path) -> None:
    open_engine(f"sqlite:///{tmp_path}/empty.db").dispose()
    variables = {
        "BLOBFERRY_DATABASE_URL": f"sqlite:///{tmp_path}/empty.db",
        "BLOBFERRY_BROKER_URL": "redis://127.0.0.1:1/0",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "worker", "run"]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    (line,) = (done.stdout + done.stderr).splitlines()
    assert line.startswith("database: no such table: blobferry_")
    assert "blobferry-worker migrate" in line
