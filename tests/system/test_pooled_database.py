"""Workers and clients whose PostgreSQL is behind a pooler, in transaction mode."""

from dataclasses import replace
from pathlib import Path

from sqlalchemy import make_url

from dev.proxies.transaction_pooler import transaction_pooler
from dev.services import Postgres
from dev.stack import Stack

COUNT = 12  #: jobs; each repeats each of its statements often enough to be prepared


def test_jobs_succeed_behind_a_pooler_that_knows_no_sessions(
    stack: Stack, postgres_server: Postgres, tmp_path: Path
) -> None:
    with transaction_pooler(postgres_server.upstream) as pooler:
        database = make_url(stack.database_url).database
        stack = replace(stack, database_url=f"postgresql+psycopg2://postgres@127.0.0.1:{pooler.port}/{database}")
        stack.prepare()
        (stack.incoming / "blob").write_bytes(bytes(100_000))
        with stack.worker("one") as one, stack.worker("two") as two, stack.client() as client:
            jobs = [client.write_stream(f"/pooled/{number}", stack.incoming / "blob") for number in range(COUNT)]
            assert {client.wait(job.id, timeout=90).state for job in jobs} == {"succeeded"}
        for worker in (one, two):
            assert "prepared statement" not in worker.log.read_text()
