"""Counts what one run costs: transactions and statements of the database, requests of the store, threads."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import event

from models import Database
from tests.doubles import RecordingStore
from tests.jobs.job_world import World
from worker.jobs.outcome import Finished
from worker.jobs.runner import run_job

#: What opens a transaction is no statement of a job's: it is one per transaction.
OPENING = ("BEGIN", "SET LOCAL")


@dataclass(slots=True)
class Cost:
    """What one run did."""

    transactions: int = 0
    statements: list[str] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    threads: list[str] = field(default_factory=list)  #: names of those that were started

    def writes(self, table: str) -> int:
        """How many statements wrote to a table."""
        verbs = ("INSERT INTO", "UPDATE", "DELETE FROM")
        return sum(statement.startswith(tuple(f"{verb} {table}" for verb in verbs)) for statement in self.statements)


@contextmanager
def counted(database: Database, cost: Cost) -> Iterator[None]:
    """Count the transactions and statements of the block, of all threads."""

    def began(connection: Any) -> None:
        cost.transactions += 1

    def executed(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if not statement.startswith(OPENING):
            cost.statements.append(" ".join(statement.split()))

    event.listen(database.engine, "begin", began)
    event.listen(database.engine, "before_cursor_execute", executed)
    try:
        yield
    finally:
        event.remove(database.engine, "begin", began)
        event.remove(database.engine, "before_cursor_execute", executed)


@contextmanager
def started_threads(cost: Cost) -> Iterator[None]:
    """Note the names of the threads that are started within the block."""
    start = threading.Thread.start

    def noted(thread: threading.Thread) -> None:
        cost.threads.append(thread.name)
        start(thread)

    threading.Thread.start = noted  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]


def cost_of(world: World, job_id: str, *, runs_before: tuple[str, ...] = ()) -> Cost:
    """The cost of the run in which the job succeeds, in a worker child that has already run other jobs."""
    cost, recording, source = Cost(), RecordingStore(world.memory), world.job_row(job_id).source
    with world.worker(recording) as runtime:
        for other in runs_before:
            assert isinstance(run_job(runtime, other), Finished)
        recording.calls.clear()
        with counted(world.database, cost), started_threads(cost):
            outcome = run_job(runtime, job_id, source=source)
    assert isinstance(outcome, Finished), outcome
    assert outcome.error is None, outcome
    cost.requests = Counter(call.verb for call in recording.calls)
    return cost
