"""Workers and clients whose PostgreSQL is behind a pooler, in transaction mode."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import make_url

from dev.proxies.transaction_pooler import transaction_pooler
from dev.services import Postgres
from dev.services.pgbouncer import pgbouncer, pgbouncer_program
from dev.stack import Stack

COUNT = 12  #: jobs; each repeats each of its statements often enough to be prepared


@pytest.fixture(params=["rotating proxy", "pgbouncer"])
def pooler_directory(request: pytest.FixtureRequest, postgres_server: Postgres) -> Iterator[Path]:
    """Where the socket of a pooler is."""
    if request.param == "rotating proxy":
        with transaction_pooler(postgres_server.upstream) as pooler:
            yield pooler.directory
        return
    if pgbouncer_program() is None:
        pytest.skip("no PgBouncer: apt-get install pgbouncer, or name it in BLOBFERRY_TEST_PGBOUNCER")
    with pgbouncer(postgres_server) as directory:
        yield directory


def test_jobs_succeed_behind_a_pooler_that_knows_no_sessions(
    stack: Stack, postgres_server: Postgres, pooler_directory: Path
) -> None:
    database = make_url(stack.database_url).database
    url = f"postgresql+psycopg2://postgres@/{database}?host={pooler_directory}"
    stack = replace(stack, database_url=url)
    stack.prepare()
    (stack.incoming / "blob").write_bytes(bytes(100_000))
    with stack.worker("one") as one, stack.worker("two") as two, stack.client() as client:
        jobs = [client.write_stream(f"/pooled/{number}", stack.incoming / "blob") for number in range(COUNT)]
        assert {client.wait(job.id, timeout=90).state for job in jobs} == {"succeeded"}
    for worker in (one, two):
        assert "prepared statement" not in worker.log.read_text()
