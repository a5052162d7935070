"""What others rely on beside the statements themselves: nobody waits for a row that somebody holds, nor in a circle."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Column, Integer, MetaData, Table, event, select
from sqlalchemy.orm import Session

from models import Database, JobRow, queries
from tests.models.rows import LEASE, ago, change, claim, expire_lease, job_row, submit, tombstones
from tests.models.test_locks import DRIVERS
from worker.jobs.path_holds import holds_of

DEPLOYMENT = Path(__file__).resolve().parents[2] / "docs" / "deployment.md"


# --- SKIP LOCKED -----------------------------------------------------------------------------------------------------


@contextmanager
def held(database: Database, job_id: str) -> Iterator[None]:
    """Somebody else, perhaps a host that was cut off, has a transaction open that changes the row."""
    with database.begin() as session:
        session.execute(select(JobRow).where(JobRow.id == job_id).with_for_update())
        yield


def requeue(session: Session) -> object:
    return queries.requeue_expired(session, limit=10)


def apply_requests(session: Session) -> object:
    return queries.apply_requests(session, limit=10)


def publish(session: Session) -> object:
    return queries.jobs_to_publish(session, limit=10)


def prune(session: Session) -> object:
    return queries.prune(session, keep_seconds=60, tombstone_seconds=3600, limit=10)


def dead(database: Database, job_id: str) -> None:
    claim(database, job_id)
    expire_lease(database, job_id)


def cancelled(database: Database, job_id: str) -> None:
    change(database, job_id, cancel_requested=True)


def old(database: Database, job_id: str) -> None:
    change(database, job_id, state="succeeded", finished_at=ago(600))


STEPS: dict[
    str, tuple[Callable[[Session], object], Callable[[Database, str], None], Callable[[Database, str], bool]]
] = {
    "leases": (requeue, dead, lambda database, job_id: job_row(database, job_id).state == "retrying"),
    "wishes": (apply_requests, cancelled, lambda database, job_id: job_row(database, job_id).state == "cancelled"),
    "messages": (
        publish,
        lambda *job: None,
        lambda database, job_id: job_row(database, job_id).published_at is not None,
    ),
    "pruning": (prune, old, lambda database, job_id: job_id in tombstones(database)),
}


@pytest.mark.parametrize("what", STEPS)
def test_a_row_that_somebody_holds_keeps_no_sweep_from_the_others(what: str, postgres_database: Database) -> None:
    step, prepare, is_done = STEPS[what]
    stuck, free = (submit(postgres_database, arguments={"path": path}) for path in ("/a", "/b"))
    for job_id in (stuck, free):
        prepare(postgres_database, job_id)

    def sweep() -> None:
        with postgres_database.begin() as session:
            step(session)

    with ThreadPoolExecutor(1) as caretaker:
        with held(postgres_database, stuck):
            caretaker.submit(sweep).result(timeout=20)
            assert is_done(postgres_database, free)
        assert not is_done(postgres_database, stuck)
        caretaker.submit(sweep).result(timeout=20)
        assert is_done(postgres_database, stuck)


# --- path locks ------------------------------------------------------------------------------------------------------


def test_moves_in_opposite_directions_take_their_buckets_in_the_same_order(postgres_database: Database) -> None:
    """Else two claims at once would wait for each other."""
    there = {"source_path": "/a", "dest_path": "/b", "dest_storage": "cold"}
    back = {"source_path": "/c", "dest_path": "/d", "storage": "cold", "dest_storage": "default"}
    asked: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        if "pg_advisory_xact_lock" in statement:
            asked.append(parameters["bucket"])

    event.listen(postgres_database.engine, "before_cursor_execute", note)
    try:
        for arguments in (there, back):
            job_id = submit(postgres_database, operation="move", arguments=arguments)
            with postgres_database.begin() as session:
                taken = queries.claim_job(
                    session, job_id, worker="w", lease_seconds=LEASE, holds=lambda job: holds_of(job, DRIVERS)
                )
            assert taken is not None
    finally:
        event.remove(postgres_database.engine, "before_cursor_execute", note)
    first, second = asked[:2], asked[2:]
    assert len(set(first)) == 2
    assert first == second


# --- beside the app's own tables --------------------------------------------------------------------------------------


def test_the_filter_of_the_readme_keeps_our_tables_out_of_the_apps_migrations(database: Database) -> None:
    (snippet,) = re.findall(r"```python\n(def include_name.*?)```", DEPLOYMENT.read_text(encoding="utf-8"), re.DOTALL)
    given: dict[str, Any] = {}
    exec(snippet, given)
    apps = MetaData()
    Table("videos", apps, Column("id", Integer, primary_key=True))

    def differences(**options: Any) -> set[str]:
        with database.engine.connect() as connection:
            context = MigrationContext.configure(connection, opts=options)
            found = compare_metadata(context, apps)
            return {f"{what[0]} {getattr(what[1], 'name', '')}" for what in found if isinstance(what, tuple)}

    assert "remove_table blobferry_jobs" in differences(), "else the filter is of no use"
    assert differences(include_name=given["include_name"]) == {"add_table videos"}
