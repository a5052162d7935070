"""Small jobs, the worker that takes them together, and what all of that asked of the database and of the store."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from models import Database
from models.queries import BatchedJob
from tests.doubles import RecordingStore, blob
from tests.jobs.job_world import World
from worker.jobs.outcome import Finished, Outcome
from worker.jobs.runner import run_job
from worker.runtime import Runtime
from worker.stores.store import Store

#: A test of both kinds of small jobs.
on_each_kind = pytest.mark.parametrize("kind", ["contents", "files"], indirect=True)


class BatchWorld(World):
    """A world whose jobs write a few bytes each: job 3 writes ``b"job 3"`` to ``/small/3``."""

    def __init__(self, database: Database, directory: Path, *, of_files: bool = False) -> None:
        super().__init__(database, directory)
        self._of_files = of_files
        self._sources: dict[int | str, Path] = {}
        self._urls: dict[str, str] = {}  # of jobs, by id
        self._numbers = count()

    def small(self, number: int | str, contents: bytes | None = None, **arguments: Any) -> str:
        """A small job; its id."""
        contents = f"job {number}".encode() if contents is None else contents
        arguments = {"path": f"/small/{number}", **arguments}
        if not self._of_files:
            return self.ask("put_content", contents=contents, **arguments)
        file = self._sources[number] = self.file.with_name(f"small-{next(self._numbers)}")
        file.write_bytes(contents)
        job_id = self.ask("write_stream", source=file.as_uri(), **arguments)
        self._urls[job_id] = file.as_uri()
        return job_id

    def source(self, number: int | str) -> Path:
        """The file that the last small job of this number writes."""
        return self._sources[number]

    def some(self, count: int, **arguments: Any) -> list[str]:
        """Small jobs; their ids, in the order of submission."""
        return [self.small(number, **arguments) for number in range(count)]

    def run_batch(self, job_id: str, store: Store | None = None, **sections: Any) -> "Told":
        """One run for the message of that job, in a worker of its own."""
        told = Told()
        with self.worker(store, **sections) as runtime:
            told.first = self.deliver(runtime, job_id, told)
        return told

    def deliver(self, runtime: Runtime, job_id: str, told: "Told | None" = None, number: int | None = None) -> Outcome:
        """One run for a message of that job, which names its file."""
        return run_job(runtime, job_id, number, source=self._urls.get(job_id), reporter=told)

    def succeed_alone(self, job_id: str) -> None:
        """A later run of one job, at whose end it has succeeded."""
        outcome = self.run(job_id)
        assert isinstance(outcome, Finished), outcome
        assert outcome.error is None, outcome

    def seen_at(self, number: int | str) -> bytes | None:
        """What readers see at the path of the small job."""
        return blob(self.memory, f"small/{number}")

    def states(self, job_ids: Sequence[str]) -> list[str]:
        return [self.job_row(job_id).state for job_id in job_ids]

    def assert_done(self, job_ids: Sequence[str]) -> None:
        """Whether rows, history, ledger and store say of each that it was done once, at the first attempt."""
        for number, job_id in enumerate(job_ids):
            assert self.seen_at(number) == f"job {number}".encode()
            row = self.job_row(job_id)
            assert (row.state, row.phase, row.worker, row.lease_expires_at) == ("succeeded", None, None, None)
            assert (row.attempt, row.failures, row.crashes) == (1, 0, 0)
            size = len(f"job {number}")
            assert (row.size, row.bytes_done, row.bytes_sent) == (size, size, size)
            head = self.memory.head(f"small/{number}")
            assert (row.etag, row.result["etag"], row.result["path"]) == (head.etag, head.etag, f"/small/{number}")
            (attempt,) = self.attempts(job_id)
            assert (attempt.outcome, attempt.bytes_sent) == ("succeeded", size)
            assert attempt.finished_at is not None
            (upload,) = self.uploads(job_id)
            assert (upload.state, upload.key, upload.upload_id, upload.base_etag) == (
                "completed",
                f"small/{number}",
                None,
                "",
            )
        assert self.count_rows("blobferry_path_locks") == 0


class Told:
    """The outcome of a run, and those that it reported of other jobs."""

    def __init__(self) -> None:
        self.first: Outcome | None = None
        self.jobs: list[str] = []  #: the other jobs that were claimed
        self.others: dict[str, Outcome] = {}

    def claimed(self, jobs: Sequence[BatchedJob]) -> None:
        self.jobs = [job.id for job in jobs]

    def ended(self, outcomes: Sequence[tuple[BatchedJob, Outcome]]) -> None:
        for job, outcome in outcomes:
            assert job.id not in self.others, "told twice"
            self.others[job.id] = outcome

    @property
    def succeeded(self) -> set[str]:
        """The other jobs that have succeeded."""
        return {id for id, outcome in self.others.items() if isinstance(outcome, Finished) and outcome.error is None}


class Statements:
    """What one database was asked."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.commits = 0

    def count(self, word: str) -> int:
        return sum(text.lstrip().startswith(word) for text in self.texts)


@contextmanager
def statements(database: Database) -> Iterator[Statements]:
    """Counts statements and transactions until the end of the block."""
    found = Statements()

    def note(connection: Any, cursor: Any, statement: str, *args: Any) -> None:
        found.texts.append(statement)

    def end(connection: Any) -> None:
        found.commits += 1

    event.listen(database.engine, "before_cursor_execute", note)
    event.listen(database.engine, "commit", end)
    try:
        yield found
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
        event.remove(database.engine, "commit", end)


def verbs(store: RecordingStore) -> list[str]:
    return sorted(call.verb for call in store.calls)
