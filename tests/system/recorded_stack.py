"""A stack whose store writes down what it is asked, so that a job that ran twice at once cannot hide it."""

import hashlib
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from celery import Celery
from celery.result import AsyncResult

from blobferry import Client, Job
from dev.process import Service
from dev.proxies.s3_recorder import RecordedRequest, Recorder, recorder
from dev.stack import BUCKET, Stack, Worker
from dev.waiting import wait_until
from tests.system.conftest import PART_SIZE
from tests.system.observation import Rows, wait_for

#: Each part takes so long that a fault set off by hand finds the transfer under way, on a fast machine too.
SLOW_PARTS = {"upload_part": 0.5}
#: A lease as long as the default one: whatever is quicker was not waiting for it to run out.
LONG_LEASE = {
    "BLOBFERRY_LEASE__SECONDS": "30",
    "BLOBFERRY_LEASE__HEARTBEAT_SECONDS": "1",
    "BLOBFERRY_LEASE__MARGIN_SECONDS": "5",
}


@dataclass(frozen=True)
class Scene:
    """``stack`` is what workers get; whoever looks on from outside takes no detours."""

    stack: Stack
    direct: Stack  #: the same, with everything where it really is
    client: Client
    rows: Rows
    requests: Recorder
    s3: Any  #: a client of the store itself
    app: Celery  #: of somebody who knows nothing of ours: a web app, Flower

    def submit(self, path: str, parts: int, *, part_size: int = PART_SIZE, **options: Any) -> Job:
        """A job that writes so many parts of random bytes to the path."""
        file = self.file_of(path)
        with file.open("wb") as random_bytes:
            for _ in range(parts):
                random_bytes.write(os.urandom(part_size))
        return self.client.write_stream(path, file, **options)

    def file_of(self, path: str) -> Path:
        """The source of the job that writes the path."""
        return self.stack.incoming / path.strip("/").replace("/", "-")

    def until(self, job: Job, condition: Callable[[Job], Any], timeout: float = 60) -> Job:
        """The job once the condition holds."""
        return wait_for(self.client, job.id, condition, timeout)

    def begin(self, path: str, parts: int, **options: Any) -> Job:
        """Submit a job; the job once it is under way."""
        return self.under_way(self.submit(path, parts, **options))

    def under_way(self, job: Job) -> Job:
        """The job once some of its parts are saved, and others are not."""
        job = self.until(job, lambda job: job.bytes_done or job.is_final)
        assert not job.is_final, job
        return job

    def succeeded(self, job: Job, *, attempt: int | None = None, timeout: float = 60) -> Job:
        """The job once it is final: it has succeeded, its blob is the file, and its upload is gone."""
        job = self.until(job, lambda job: job.is_final, timeout)
        assert job.state == "succeeded", job
        assert attempt in (None, job.attempt), job
        blob = self.blob(str(job.path))
        assert hashlib.sha256(blob).digest() == hashlib.sha256(self.file_of(str(job.path)).read_bytes()).digest()
        assert self.unfinished_uploads(job) == []
        return job

    def succeeded_once(self, *jobs: Job, attempt: int = 1, timeout: float = 60) -> list[Job]:
        """The jobs once they have succeeded at this attempt; nothing of them went out twice."""
        ended = [self.succeeded(job, attempt=attempt, timeout=timeout) for job in jobs]
        self.assert_sent_once(*ended)
        return ended

    def blob(self, path: str, bucket: str = BUCKET) -> bytes:
        """What a reader gets."""
        return bytes(self.s3.get_object(Bucket=bucket, Key=path.removeprefix("/"))["Body"].read())

    def unfinished_uploads(self, job: Job) -> list[object]:
        """What the store shows at the job's path."""
        found = self.s3.list_multipart_uploads(Bucket=BUCKET, Prefix=str(job.path)[1:])
        return list(found.get("Uploads", []))

    def result(self, job: Job) -> AsyncResult:
        """What Celery hands out as the result of the job."""
        return AsyncResult(job.id, app=self.app)

    def logged(self) -> str:
        """What the worker has logged."""
        return (self.stack.directory / "worker.log").read_text()

    def attempts(self, job: Job) -> list[Mapping[str, Any]]:
        """The job's history."""
        return self.rows.select("select * from blobferry_attempts where job_id = :id order by attempt", id=job.id)

    def history(self, job: Job, *failed: str) -> list[Mapping[str, Any]]:
        """The same of a job that has succeeded at last: one attempt after the other, all before it ended so."""
        attempts = self.attempts(job)
        assert [row["attempt"] for row in attempts] == list(range(1, job.attempt + 1)), attempts
        assert [row["outcome"] for row in attempts[-1:]] == ["succeeded"], attempts
        assert all(row["outcome"] in failed for row in attempts[:-1]), attempts
        assert all(row["worker"] for row in attempts), attempts
        moments = [row[name] for row in attempts for name in ("started_at", "finished_at")]
        assert moments == sorted(moments), attempts
        return attempts

    def asked(self, job: Job, operation: str) -> list[RecordedRequest]:
        """What the store has been asked of this kind, for the job's path."""
        seen = [request for request in self.requests.requests() if request.path.endswith(f"/{BUCKET}{job.path}")]
        return [request for request in seen if request.operation == operation]

    def until_rows(self, statement: str, timeout: float = 30, **values: Any) -> None:
        """Wait until the statement finds something."""
        wait_until(lambda: self.rows.select(statement, **values), timeout, statement)

    def assert_sent_once(self, *jobs: Job) -> None:
        """Each part went out once, and the blob was published once: two runs at once would have done more."""
        for job in jobs:
            self.assert_no_part_was_sent_twice(job)
            opened, completed, put = (
                len(self.asked(job, name)) for name in ("create_upload", "complete_upload", "put")
            )
            assert (opened, completed + put) == (completed, 1), job.path

    def assert_no_part_was_sent_twice(self, job: Job) -> None:
        parts = Counter(part.part_number for part in self.asked(job, "upload_part") if part.status == 200)
        assert [number for number, count in parts.items() if count > 1] == [], f"{job.path}: parts sent again"


@contextmanager
def recorded(
    stack: Stack, *, delays: Mapping[str, float] = SLOW_PARTS, settings: Mapping[str, str] | None = None, **changes: Any
) -> Iterator[Scene]:
    """The scene of a stack. ``settings`` and ``changes``, of the Stack's values, are for its workers alone."""
    with recorder(stack.s3.endpoint, stack.directory, delays=delays) as requests:
        settings = {**stack.settings, **(settings or {})}
        behind = replace(stack, endpoint=requests.endpoint, settings=settings, **changes)
        with looked_at(behind, stack, requests) as scene:
            yield scene


@contextmanager
def looked_at(stack: Stack, direct: Stack, requests: Recorder) -> Iterator[Scene]:
    """The scene, with all that looks on from outside."""
    with (
        direct.client() as client,
        closing(Rows(direct.database_url)) as rows,
        closing(direct.s3.client()) as s3,
        Celery(broker=direct.broker_url, backend=direct.broker_url, set_as_current=False) as app,
    ):
        yield Scene(stack, direct, client, rows, requests, s3, app)


def child_of(job: Job) -> int:
    """The process id of the worker's child that runs the job."""
    return int(str(job.worker).rpartition(":")[2])


def caretaker_of(worker: Worker) -> psutil.Process:
    """The worker's caretaker. Raises StopIteration while it has none."""
    return next(child for child in psutil.Process(worker.pids[0]).children() if "sweep" in child.cmdline())


def told_to_end(worker: Service, signal_number: signal.Signals = signal.SIGTERM, *, within: float) -> int | None:
    """The exit status of a worker that gets the signal. When this returns, every run of it has ended."""
    os.kill(worker.pids[0], signal_number)
    return psutil.Process(worker.pids[0]).wait(timeout=within)
