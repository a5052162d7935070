"""Workers that are killed, for real, in the middle of moves, reads into a file and deletes; another one goes on.

One worker runs all four jobs of a round at once, each begun at a random moment before the SIGKILL that hits them all.
The store is slowed down by the proxy in front of it, so that there is a middle to be hit.
"""

import itertools
import math
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from blobferry import Job
from dev.proxies.s3_recorder import RecordedRequest
from dev.services import Postgres, Valkey, postgres_database
from dev.stack import BUCKET, Stack
from tests.system.conftest import FAST, PART_SIZE, PART_THREADS, prepared
from tests.system.crowded_moto import crowded_moto
from tests.system.observation import head
from tests.system.recorded_stack import Scene, recorded

SEED = 20261215  #: one with which the first two rounds hit every job amid its parts
ROUNDS = 10
OTHER = "blobferry-other"
PARTS = 7
SIZE = 6 * PART_SIZE + 12_345
KEYS = 2_500  #: under a path that is deleted
BATCHES = 3
CONTENT = random.Random(SEED).randbytes(SIZE)

#: Seconds that each request takes more. A job takes at least the sum of what follows one after the other.
DELAYS = {"copy_part": 0.4, "upload_part": 0.3, "get": 0.4, "complete_upload": 0.3, "delete_batch": 0.5, "delete": 0.3}
WAVES = math.ceil(PARTS / PART_THREADS)
AFTERWARDS = 1.25  #: of that least time, so that kills come also when the job has nearly or quite ended
SETTINGS = FAST | {
    "BLOBFERRY_CONCURRENCY": "4",
    "BLOBFERRY_STORAGES__DEFAULT__MULTIPARTCOPYTHRESHOLDSIZE": str(PART_SIZE),
    "BLOBFERRY_STORAGES__DEFAULT__MULTIPARTCOPYCHUNKSIZE": str(PART_SIZE),
    "BLOBFERRY_STORAGES__DEFAULT__MULTIPARTCOPYMAXCONCURRENCY": str(PART_THREADS),
}


@dataclass(frozen=True)
class Kill:
    """The moment, and what the database knew of a job then."""

    at: float  #: seconds since the epoch
    saved: Sequence[Any]  #: rows of parts
    cutoff: datetime | None
    worker: str | None

    @property
    def numbers(self) -> set[int]:
        return {row["part_number"] for row in self.saved}


class Case(ABC):
    """One job of a round."""

    lasts: ClassVar[float]  #: seconds, at least

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.job_id = ""
        self.prepared_at = time.time()

    def submit(self) -> None:
        self.job_id = self._submit().id

    @abstractmethod
    def _submit(self) -> Job: ...

    @abstractmethod
    def look(self) -> None:
        """Assert what must hold at any moment, whoever dies."""

    @abstractmethod
    def check(self, job: Job, kill: Kill) -> None:
        """Assert what must hold in the end."""

    def since(self, moment: float, *operations: str, path: str) -> list[RecordedRequest]:
        """The requests that began after the moment."""
        seen = self.scene.requests.requests()
        return [r for r in seen if r.operation in operations and r.path == path and r.started_at > moment]

    def put(self, key: str) -> None:
        told = {"ContentType": "video/mp4", "Metadata": {"note": "of the owner"}}
        self.scene.s3.put_object(Bucket=BUCKET, Key=key, Body=CONTENT, **told)

    def known(self, at: float) -> Kill:
        """What the database knows of the job, whose worker was killed a moment ago."""
        of_job = "from blobferry_parts p join blobferry_uploads u on u.id = upload where job_id = :id"
        parts = self.scene.rows.select(f'select part_number, "offset", p.size {of_job}', id=self.job_id)
        (row,) = self.scene.rows.select("select cutoff, worker from blobferry_jobs where id = :id", id=self.job_id)
        return Kill(at, parts, row["cutoff"], row["worker"])


class Move(Case):
    """Within the storage, by copied parts."""

    dest_storage: str | None = None
    dest_bucket = BUCKET
    sends = "copy_part"
    in_hand = 2 * PART_THREADS  #: those that were copied and have no row yet are copied again
    lasts = WAVES * DELAYS["copy_part"] + DELAYS["complete_upload"] + DELAYS["delete"]

    def __init__(self, scene: Scene, round_number: int) -> None:
        super().__init__(scene)
        self.source = f"{type(self).__name__}/{round_number}/source"
        self.dest = f"{type(self).__name__}/{round_number}/dest"
        self.put(self.source)

    def _submit(self) -> Job:
        return self.scene.client.move(f"/{self.source}", f"/{self.dest}", dest_storage=self.dest_storage)

    def look(self) -> None:
        source = self._size(BUCKET, self.source)  # first: what is gone by now must have arrived by now
        dest = self._size(self.dest_bucket, self.dest)
        assert {source, dest} in ({SIZE}, {SIZE, None}), "the source went before the destination was complete"

    def _size(self, bucket: str, key: str) -> int | None:
        # Size alone: for a moment moto shows a completed upload without its metadata.
        found = head(self.scene.s3, bucket, key)
        return None if found is None else int(found["ContentLength"])

    def check(self, job: Job, kill: Kill) -> None:
        s3 = self.scene.s3
        blob = s3.get_object(Bucket=self.dest_bucket, Key=self.dest)
        assert blob["Body"].read() == CONTENT
        assert (blob["ContentType"], blob["Metadata"]["note"]) == ("video/mp4", "of the owner")
        assert head(s3, BUCKET, self.source) is None
        assert job.result is not None
        assert job.result["size"] == SIZE
        to = f"/{self.dest_bucket}/{self.dest}"
        again = {request.part_number for request in self.since(kill.at, self.sends, path=to)}
        assert not again & kill.numbers, "a part with a row was brought again"
        assert len(self.since(0, self.sends, path=to)) <= PARTS + self.in_hand * (job.attempt - 1)


class MoveAcross(Move):
    """To another storage, through the worker."""

    dest_storage = "other"
    dest_bucket = OTHER
    sends = "upload_part"
    in_hand = PART_THREADS  #: those that were sent and have no row yet are found in the store
    lasts = WAVES * (DELAYS["get"] + DELAYS["upload_part"]) + DELAYS["complete_upload"] + DELAYS["delete"]

    def check(self, job: Job, kill: Kill) -> None:
        super().check(job, kill)
        assert_not_fetched_again(self.since(kill.at, "get", path=f"/{BUCKET}/{self.source}"), kill)


class ReadStream(Case):
    """A blob to a file."""

    lasts = WAVES * DELAYS["get"]

    def __init__(self, scene: Scene, round_number: int) -> None:
        super().__init__(scene)
        self.source = f"read/{round_number}"
        self.put(self.source)
        self.file = scene.stack.incoming / f"read-{round_number}" / "blob.bin"
        self.file.parent.mkdir()
        self.file.write_bytes(b"what was there before")

    def _submit(self) -> Job:
        return self.scene.client.read_stream(f"/{self.source}", self.file)

    def look(self) -> None:
        with self.file.open("rb") as file:
            beginning = file.read(21)
            size = file.seek(0, 2)
        assert (size, beginning) in ((21, b"what was there before"), (SIZE, CONTENT[:21]))

    def check(self, job: Job, kill: Kill) -> None:
        assert self.file.read_bytes() == CONTENT
        assert list(self.file.parent.iterdir()) == [self.file], "no partial file is left"
        fetched = self.since(0, "get", path=f"/{BUCKET}/{self.source}")
        assert_not_fetched_again([request for request in fetched if request.started_at > kill.at], kill)
        assert len(fetched) <= PARTS + 2 * PART_THREADS * (job.attempt - 1)


class Delete(Case):
    """A blob and thousands of keys under it."""

    lasts = BATCHES * DELAYS["delete_batch"]

    def __init__(self, scene: Scene, round_number: int) -> None:
        super().__init__(scene)
        self.path = crowd(round_number)
        self.siblings = [f"{self.path}x", f"{self.path}-1/key"]
        self.late: list[str] = []
        for key in (self.path, *self.siblings):
            scene.s3.put_object(Bucket=BUCKET, Key=key, Body=b"x")

    def _submit(self) -> Job:
        return self.scene.client.delete(f"/{self.path}")

    def look(self) -> None:
        for key in (*self.siblings, *self.late):
            assert head(self.scene.s3, BUCKET, key) is not None, key

    def put_late(self, kill: Kill) -> None:
        """Put a key there that is not the job's to delete, if it has been claimed: the key is newer than that."""
        if kill.cutoff is not None:
            newer = kill.cutoff + timedelta(seconds=1)  # stores date keys by whole seconds
            time.sleep(max((newer - datetime.now(UTC)).total_seconds(), 0))
            key = f"{self.path}/late"
            self.scene.s3.put_object(Bucket=BUCKET, Key=key, Body=b"x")
            self.late = [key]

    def check(self, job: Job, kill: Kill) -> None:
        assert head(self.scene.s3, BUCKET, self.path) is None
        left = self.scene.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{self.path}/").get("Contents", [])
        assert [entry["Key"] for entry in left] == self.late
        batches = self.since(self.prepared_at, "delete_batch", path=f"/{BUCKET}")
        assert BATCHES <= len(batches) < BATCHES + job.attempt, "only the batch in hand is sent again"


def crowd(round_number: int) -> str:
    return f"crowd/{round_number}"


def assert_not_fetched_again(requests: list[RecordedRequest], kill: Kill) -> None:
    for request in requests:
        begin, end = (int(number) for number in request.range.removeprefix("bytes=").split("-"))
        for row in kill.saved:
            assert end < row["offset"] or begin >= row["offset"] + row["size"], "a part with a row was fetched again"


@contextmanager
def watched(cases: Sequence[Case]) -> Iterator[None]:
    """Looks at all cases, again and again, until the end of the block; raises what a look has found."""
    ended = threading.Event()
    found: list[BaseException] = []
    looks = itertools.count()

    def look() -> None:
        try:
            while not ended.wait(0.05):
                for case in cases:
                    case.look()
                next(looks)
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if found:
            raise found[0]
    assert next(looks) > 10


@pytest.fixture
def scene(broker: Valkey, postgres_server: Postgres, tmp_path: Path) -> Iterator[Scene]:
    crowds, buckets = [f"{crowd(number)}/" for number in range(ROUNDS)], {"default": BUCKET, "other": OTHER}
    with crowded_moto(BUCKET, crowds, KEYS) as store, postgres_database(postgres_server) as url:
        stack = Stack(broker.url, url, store, tmp_path, settings=SETTINGS, buckets=buckets)
        with recorded(prepared(broker, stack), delays=DELAYS) as scene:
            yield scene


def assert_history_is_right(scene: Scene, job: Job, kill: Kill) -> None:
    assert job.state == "succeeded", job
    attempts = scene.history(job, "died")
    assert kill.worker is None or attempts[-1]["worker"] != kill.worker
    newest_first = "select state, upload_id from blobferry_uploads where job_id = :id order by id desc"
    uploads = scene.rows.select(newest_first, id=job.id)
    assert [row["state"] for row in uploads[:1]] == ["completed"] * (job.operation != "delete")
    for lost in uploads[1:]:  # the worker died before the store could tell it an id
        assert (lost["state"], lost["upload_id"]) == ("gone", None)


def assert_nothing_is_unfinished(scene: Scene) -> None:
    for bucket in (BUCKET, OTHER):
        assert scene.s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []


@pytest.mark.timeout(600)
@pytest.mark.long  # in every run, chaos does it
def test_kills_in_the_middle_of_moves_reads_and_deletes_lose_nothing(scene: Scene) -> None:
    moments = random.Random(SEED)
    kills = hits = 0
    with ExitStack() as workers:
        worker = workers.enter_context(scene.stack.worker("worker-0"))
        for number in range(ROUNDS):
            deletion = Delete(scene, number)
            cases = [Move(scene, number), MoveAcross(scene, number), ReadStream(scene, number), deletion]
            ages = {case: moments.uniform(0, AFTERWARDS * case.lasts) for case in cases}
            with watched(cases):
                begun = time.monotonic()
                for case in sorted(cases, key=ages.__getitem__, reverse=True):
                    sleep_until(begun + max(ages.values()) - ages[case])
                    case.submit()
                sleep_until(begun + max(ages.values()))
                if number % 2:  # however slow this machine is: some parts have rows by now
                    for case in cases[:-1]:
                        scene.until(scene.client.get(case.job_id), lambda job: job.bytes_done or job.is_final)
                worker.kill9()
                killed_at = time.time()
                known = {case: case.known(killed_at) for case in cases}
                deletion.put_late(known[deletion])
                worker = workers.enter_context(scene.stack.worker(f"worker-{number + 1}"))
                jobs = {case: scene.client.wait(case.job_id, timeout=60) for case in cases}
            for case, job in jobs.items():
                case.check(job, known[case])
                assert_history_is_right(scene, job, known[case])
                kills += 1
                hits += job.attempt > 1
            assert_nothing_is_unfinished(scene)
    assert 2 * hits >= kills, f"{hits} of {kills} kills hit a running job"


def sleep_until(moment: float) -> None:
    time.sleep(max(moment - time.monotonic(), 0))
