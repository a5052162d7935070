"""A run whose lease is over sends nothing more, although its call was under way when it lost the lease.

A worker is cut off from the database, or suspended, while the store hangs with its call. Its lease runs out, another
worker finishes the job, a later job of the same path runs. Then the hung connection breaks.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.orm import Session

from blobferry.contract import JobState
from dev.proxies.s3_faults import Fault, FaultProxy, fault_proxy
from dev.services import S3Service, create_bucket, moto
from dev.waiting import wait_until
from models import AttemptRow, Database
from tests.jobs.job_world import World
from tests.models.rows import job_row, submit
from worker.driver import Driver
from worker.errors import UnreachableError
from worker.jobs.outcome import Finished, NotClaimed, Outcome
from worker.jobs.runner import run_job
from worker.runtime import Runtime
from worker.settings import LeaseSettings, Settings

STALL = 50.0  #: seconds for which the store hangs at most; the client gives up after 60
LEASE = LeaseSettings(seconds=2, heartbeat_seconds=0.2, margin_seconds=0.5)


class CutOffDatabase(Database):
    """A database that its worker reaches no more once it is told so."""

    away = False

    @contextmanager
    def begin(self) -> Iterator[Session]:
        if self.away:
            raise UnreachableError("partitioned")
        with super().begin() as session:
            yield session


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Service]:
    with moto() as service:
        create_bucket(service, "bucket")
        yield service


@pytest.fixture
def proxy(s3: S3Service) -> Iterator[FaultProxy]:
    client = s3.client()
    for entry in client.list_objects_v2(Bucket="bucket").get("Contents", []):
        client.delete_object(Bucket="bucket", Key=entry["Key"])
    with fault_proxy(s3.endpoint, stall_seconds=STALL) as proxy:
        yield proxy


def runtime(database: Database, s3: S3Service, proxy: FaultProxy) -> Runtime:
    settings = Settings.model_construct(database_url=SecretStr(str(database.engine.url)), lease=LEASE)
    driver = Driver.from_parameters(
        {
            "bucket": "bucket",
            "regionendpoint": proxy.endpoint,
            "region": s3.region,
            "forcepathstyle": True,
            "accesskey": s3.access_key,
            "secretkey": s3.secret_key,
        }
    )
    return Runtime(settings, database=database, drivers={"default": driver})


def keys(s3: S3Service) -> list[str]:
    return [entry["Key"] for entry in s3.client().list_objects_v2(Bucket="bucket").get("Contents", [])]


Asked = tuple[str, dict[str, Any]]
Scene = tuple[dict[str, bytes], Asked, str, Asked, list[str]]
# What lies there; the job whose call hangs; that call; the job that runs next; what must lie there in the end.
SCENES: dict[str, Scene] = {
    "delete": (
        {"d/x": b"old"},
        ("delete", {"path": "/d"}),
        "delete_batch",
        ("put_content", {"path": "/d/x", "contents": b"NEW"}),
        ["d/x"],
    ),
    "move": (
        {"a": b"the only copy"},
        ("move", {"source_path": "/a", "dest_path": "/b"}),
        "delete",
        ("move", {"source_path": "/b", "dest_path": "/a"}),
        ["a"],
    ),
    "put": (
        {},
        ("put_content", {"path": "/a", "contents": b"old"}),
        "put",
        ("delete", {"path": "/a"}),
        [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("scene", SCENES)
def test_a_call_that_hung_is_not_sent_again_once_the_lease_is_over(
    s3: S3Service, proxy: FaultProxy, sqlite_url: str, scene: str
) -> None:
    there, (operation, arguments), verb, (next_operation, next_arguments), wanted = SCENES[scene]
    for key, body in there.items():
        s3.client().put_object(Bucket="bucket", Key=key, Body=body)
    healthy, cut = Database(sqlite_url), CutOffDatabase(sqlite_url)
    first = submit(healthy, operation=operation, arguments=arguments, size=None)
    old, new = runtime(cut, s3, proxy), runtime(healthy, s3, proxy)
    proxy.inject(Fault(verb, "stall"))
    outcomes: list[Outcome] = []
    run = threading.Thread(target=lambda: outcomes.append(run_job(old, first)))
    run.start()
    try:
        wait_until(lambda: any(seen.fault for seen in proxy.exchanges()), 10, "the call hangs")
        cut.away = True  # a heartbeat may be on its way
        wait_until(lambda: isinstance(run_job(new, first), Finished), 20, "the lease is over")
        then = submit(healthy, operation=next_operation, arguments=next_arguments, size=None)
        assert isinstance(run_job(new, then), Finished)
        assert (keys(s3), outcomes) == (wanted, [])  # the call still hangs
    finally:
        proxy.ending.set()  # the connection breaks
        run.join()
    assert (keys(s3), outcomes) == (wanted, [NotClaimed()])
    assert (job_row(healthy, first).state, job_row(healthy, then).state) == ("succeeded", "succeeded")
    old.close()
    new.close()


def sent(database: Database, job_id: str) -> list[dict[str, int] | None]:
    """What each attempt of the job has sent, by verb."""
    with database.begin() as session:
        rows = select(AttemptRow.sent).where(AttemptRow.job_id == job_id).order_by(AttemptRow.attempt)
        return list(session.scalars(rows))


def test_the_history_counts_the_attempts_on_the_wire(s3: S3Service, proxy: FaultProxy, sqlite_url: str) -> None:
    database = Database(sqlite_url)
    worker = runtime(database, s3, proxy)
    job = submit(database, operation="put_content", arguments={"path": "/a", "contents": b"x"}, size=None)
    proxy.inject(Fault("put", "internal_error"), Fault("head", "internal_error"))
    assert isinstance(run_job(worker, job), Finished)
    on_the_wire = [seen.call.operation for seen in proxy.exchanges()]
    (counted,) = sent(database, job)
    assert counted is not None
    assert sum(counted.values()) == len(on_the_wire)
    assert (counted["put"], on_the_wire.count("put")) == (2, 2)
    assert counted["head"] == on_the_wire.count("head")
    worker.close()


def test_slices_of_one_attempt_share_its_count(world: World) -> None:
    job_id = world.submit()
    for counts in ({"put": 1}, {"put": 2, "head": 1}, {}):
        job = world.claim(job_id)
        job.sent.update(counts)
        world.release_job(job, JobState.QUEUED)
    assert sent(world.database, job_id) == [{"put": 3, "head": 1}]
