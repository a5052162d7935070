"""Web processes that are killed between spool, INSERT, COMMIT and publish: rows and files agree in the end."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from blobferry.sql.database import open_engine
from dev.stack import CHECKOUT
from dev.waiting import wait_until
from tests.directory_stack import LocalStack, local_stack
from worker.maintenance.spool_marker import MARKER

SCRIPT = CHECKOUT / "tests" / "system" / "web_process.py"
DAYS = 3 * 24 * 3600.0


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("tries", [40, pytest.param(10_000, marks=pytest.mark.long)])
def test_nothing_is_lost_and_nothing_is_left_however_web_processes_die(
    tmp_path: Path, migrated_sqlite: Path, tries: int
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    with local_stack(tmp_path, migrated_sqlite, BLOBFERRY_SPOOL_DIR=str(spool)) as stack:
        execute(stack, "CREATE TABLE app (name TEXT PRIMARY KEY, digest TEXT)")
        kills = web_process(stack, spool, tries)
        wait_until(lambda: not unfinished(stack), 1200, "the end of all jobs")
        rows = execute(stack, "SELECT name, digest FROM app")
        jobs = execute(stack, "SELECT path, state, removes_source FROM blobferry_jobs")
        assert {f"/app/{name}" for name, _ in rows} == {path for path, *_ in jobs}, "a job if, and only if, a row"
        assert len(jobs) == len(rows), "one for each"
        assert {(state, bool(removes)) for _, state, removes in jobs} == {("succeeded", False)}
        for name, digest in rows:
            assert hashlib.sha256(stack.driver.get_content(f"/app/{name}")).hexdigest() == digest
        left = set(os.listdir(spool)) - {MARKER}
        assert left.isdisjoint(name for name, _ in rows), "those of jobs that have succeeded are gone at once"
        assert left, "some were rolled back, others half written"
        for name in left:
            status = (spool / name).stat()
            os.utime(spool / name, (status.st_atime, status.st_mtime - DAYS))
        sweep(stack)
        assert set(os.listdir(spool)) == {MARKER}
        begun = spool.with_name("begun").stat().st_size  # the last child may have begun more than were asked for
        assert 0.3 * begun < len(rows) < begun
        assert kills > tries / 50


def web_process(stack: LocalStack, spool: Path, tries: int) -> int:
    arguments = [stack.database_url, stack.broker_url, str(spool), str(tries), "7"]
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, str(SCRIPT), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def execute(stack: LocalStack, statement: str) -> list[tuple[str, ...]]:
    engine = open_engine(stack.database_url)
    try:
        with engine.begin() as connection:
            result = connection.execute(text(statement))
            return [tuple(row) for row in result] if result.returns_rows else []
    finally:
        engine.dispose()


def unfinished(stack: LocalStack) -> list[tuple[str, ...]]:
    return execute(stack, "SELECT id FROM blobferry_jobs WHERE finished_at IS NULL OR removes_source LIMIT 1")


def sweep(stack: LocalStack) -> None:
    command = [sys.executable, "-m", "worker", "sweep"]
    environment = os.environ | stack.environment()
    subprocess.run(command, env=environment, cwd=CHECKOUT, check=True, capture_output=True, timeout=120)
