"""Networks that fail between real hosts: two workers, each on a host of its own, cut off for longer than a lease.

A cut host hears nothing, not even that it is cut off: its runs go on as far as they may, and what it had sent may
arrive once it is joined again, long after others have taken its jobs over. The store writes down who asked it for what.
"""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO, Any, Final

import psycopg
import pytest

from blobferry import Job
from dev.proxies.partition import SERVICES, Host, Network, may_make_networks, network
from dev.proxies.s3_recorder import RecordedRequest, recorder
from dev.services import Postgres, S3Service, Valkey, postgres, postgres_database, valkey
from dev.services.postgres_server import SERVER_VARIABLE
from dev.stack import BUCKET, CHECKOUT, Stack, Worker
from tests.system.conftest import FAST, PART_SIZE, PART_THREADS, prepared
from tests.system.crowded_moto import crowded_moto
from tests.system.observation import head
from tests.system.recorded_stack import Scene, looked_at, told_to_end

pytestmark = pytest.mark.timeout(400)

LEASE_SECONDS: Final = 5
OTHER: Final = "blobferry-other"
PARTS: Final = 15
BATCHES: Final = 3
KEYS: Final = 2_500  #: under a path that is deleted
CROWDS: Final = 12
#: Each job has a middle to be cut off in.
DELAYS: Final = {
    "upload_part": 0.6,
    "copy_part": 0.6,
    "get": 0.6,
    "delete_batch": 1.5,
    "complete_upload": 0.3,
    "delete": 0.3,
}
SETTINGS: Final = FAST | {
    "BLOBFERRY_LEASE__SECONDS": str(LEASE_SECONDS),
    "BLOBFERRY_CONCURRENCY": "5",
    "BLOBFERRY_STORAGES__DEFAULT__MULTIPARTCOPYTHRESHOLDSIZE": str(PART_SIZE),
    "BLOBFERRY_STORAGES__DEFAULT__MULTIPARTCOPYCHUNKSIZE": str(PART_SIZE),
    "BLOBFERRY_STORAGES__DEFAULT__MULTIPARTCOPYMAXCONCURRENCY": str(PART_THREADS),
}
#: What changes what readers see.
PUBLISHING: Final = ("put", "copy", "complete_upload", "delete", "delete_batch")
CONTENT: Final = random.Random(20261125).randbytes((PARTS - 1) * PART_SIZE + 12_345)
NEWER: Final = b"somebody else's, and newer"
WAITING_FOR_A_LOCK: Final = (
    "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
)

_numbers = count()


@dataclass(frozen=True)
class Site:
    """The scene, and the hosts: alpha is cut off, and beta takes over."""

    scene: Scene
    network: Network

    @property
    def alpha(self) -> Host:
        return self.network.hosts[0]

    @property
    def beta(self) -> Host:
        return self.network.hosts[1]

    @contextmanager
    def worker(self, host: Host) -> Iterator[Worker]:
        with self.scene.stack.worker(host.name, prefix=host.prefix) as worker:
            yield worker

    def asked_by(self, host: Host, since: float, *operations: str) -> list[RecordedRequest]:
        """What the store was asked by the host from the moment on."""
        address = self.network.address_of(host, "store")
        seen = [request for request in self.scene.requests.requests() if request.client == address]
        return [request for request in seen if request.operation in operations and request.started_at > since]

    def snapshot(self, jobs: list[Job]) -> Mapping[str, list[Any]]:
        """All that the rows say of jobs that have ended."""
        ids = {"ids": [job.id for job in jobs]}
        uploads = "select id from blobferry_uploads where job_id = any(:ids)"
        statements = {
            "jobs": "select * from blobferry_jobs where id = any(:ids) order by id",
            "attempts": "select * from blobferry_attempts where job_id = any(:ids) order by job_id, attempt",
            "parts": f"select * from blobferry_parts where upload in ({uploads}) order by upload, part_number",
        }
        return {table: self.scene.rows.select(statement, **ids) for table, statement in statements.items()}


class Cargo:
    """One job of each kind, all long enough to be cut off amid them."""

    def __init__(self, site: Site) -> None:
        self.scene = site.scene
        self.s3 = site.scene.s3
        self.number = next(_numbers)
        self.crowd = f"crowd/{self.number}"
        self.file = site.scene.stack.incoming / f"cargo-{self.number}" / "blob.bin"
        self.file.parent.mkdir()
        for kind in ("moved", "sent", "read"):
            self.s3.put_object(Bucket=BUCKET, Key=self.key(kind), Body=CONTENT)
        source = site.scene.stack.incoming / "content.bin"
        if not source.exists():
            source.write_bytes(CONTENT)
        client = site.scene.client
        self.jobs = {
            "write": client.write_stream(f"/{self.key('written')}", source),
            "move": client.move(f"/{self.key('moved')}", f"/{self.key('moved-to')}"),
            "move across": client.move(f"/{self.key('sent')}", f"/{self.key('sent-to')}", dest_storage="other"),
            "read": client.read_stream(f"/{self.key('read')}", self.file),
            "delete": client.delete(f"/{self.crowd}"),
        }
        self.blobs = [(BUCKET, self.key("written")), (BUCKET, self.key("moved-to")), (OTHER, self.key("sent-to"))]
        self.sources = [(BUCKET, self.key("moved")), (BUCKET, self.key("sent"))]

    def key(self, kind: str) -> str:
        return f"cargo/{self.number}/{kind}"

    def under_way(self) -> None:
        """Wait until each job is in the middle of its work."""
        for kind, job in self.jobs.items():
            if kind == "delete":
                self.scene.until(job, lambda job: job.state == "running")
            else:
                self.scene.under_way(job)

    def succeeded(self, timeout: float = 90) -> list[Job]:
        """Wait for the end: everything has arrived, and nothing is left over."""
        jobs = [self.scene.client.wait(job.id, timeout=timeout) for job in self.jobs.values()]
        assert {job.state for job in jobs} == {"succeeded"}, jobs
        for bucket, key in self.blobs:
            assert self.scene.blob(key, bucket) == CONTENT, key
        assert self.file.read_bytes() == CONTENT
        for bucket, key in self.sources:
            assert head(self.s3, bucket, key) is None, key
        assert "Contents" not in self.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{self.crowd}/")
        self.assert_nothing_is_unfinished()
        for job in jobs:
            assert_no_two_runs_at_once(self.scene, job)
        return jobs

    def assert_nothing_is_unfinished(self) -> None:
        for bucket in (BUCKET, OTHER):
            unfinished = self.s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
            assert [found for found in unfinished if found["Key"].startswith(self.key(""))] == []

    def replace(self) -> None:
        """Somebody else writes to every path of the cargo, which none of its jobs may touch any more."""
        for bucket, key in self._everything():
            self.s3.put_object(Bucket=bucket, Key=key, Body=NEWER)
        self.file.write_bytes(NEWER)

    def assert_is_replaced(self) -> None:
        for bucket, key in self._everything():
            assert self.scene.blob(key, bucket) == NEWER, key
        assert self.file.read_bytes() == NEWER

    def _everything(self) -> list[tuple[str, str]]:
        return [*self.blobs, *self.sources, (BUCKET, f"{self.crowd}/late"), (BUCKET, f"{self.crowd}/00000")]


def assert_no_two_runs_at_once(scene: Scene, job: Job) -> None:
    """Each attempt began when the one before had ended."""
    scene.history(job, "died", "retrying")
    (row,) = scene.rows.select("select token from blobferry_jobs where id = :id", id=job.id)
    assert row["token"] >= job.attempt


@contextmanager
def replaced_amid(site: Site, *services: str) -> Iterator[Cargo]:
    """Alpha is cut off from the services in the middle of every job of a cargo, and beta is there as well.

    Once others have written to all paths of the cargo, alpha is joined again: it does them no harm, and works on.
    """
    with site.worker(site.alpha) as alpha:
        cargo = Cargo(site)
        cargo.under_way()
        site.alpha.cut("store")  # however long beta takes to start, alpha comes to no end
        with site.worker(site.beta):
            site.alpha.join("store")
            site.alpha.cut(*services)
            yield cargo
            jobs = [site.scene.client.get(job.id) for job in cargo.jobs.values()]
            rows = site.snapshot(jobs)
            cargo.replace()
            site.alpha.join()
        assert_alpha_works_on(site)
        told_to_end(alpha, within=90)
    cargo.assert_is_replaced()
    assert site.snapshot(jobs) == rows


@pytest.fixture(scope="module")
def hosts() -> Iterator[Network]:
    if not may_make_networks():
        pytest.skip("only root may make hosts of their own (network namespaces), and not in every container")
    with network("alpha", "beta") as made:
        yield made


@pytest.fixture(scope="module")
def far_broker(hosts: Network) -> Iterator[Valkey]:
    with valkey(address=hosts.address("broker")) as service:
        yield service


@pytest.fixture(scope="module")
def far_database(hosts: Network) -> Iterator[Postgres]:
    if SERVER_VARIABLE in os.environ:
        pytest.skip("hosts cannot be cut off from this PostgreSQL")
    with postgres(address=hosts.address("database")) as service:
        yield service


@pytest.fixture(scope="module")
def store() -> Iterator[S3Service]:
    with crowded_moto(BUCKET, [f"crowd/{number}/" for number in range(CROWDS)], KEYS) as service:
        yield service


@pytest.fixture
def site(
    hosts: Network, far_broker: Valkey, far_database: Postgres, store: S3Service, tmp_path: Path
) -> Iterator[Site]:
    buckets = {"default": BUCKET, "other": OTHER}
    with (
        recorder(store.endpoint, tmp_path, delays=DELAYS, address=hosts.address("store")) as requests,
        postgres_database(far_database) as url,
    ):
        stack = Stack(far_broker.url, url, store, tmp_path, requests.endpoint, SETTINGS, buckets)
        with looked_at(prepared(far_broker, stack), stack, requests) as scene:
            yield Site(scene, hosts)
            for host in hosts.hosts:
                host.join()


#: Prints when it hears nothing from a Redis for two seconds, and when it hears something again.
LISTENER: Final = """
import socket, sys, time
heard = None
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
    connection.settimeout(2)
    while True:
        time.sleep(0.05)
        connection.sendall(b"PING\\r\\n")
        before, heard = heard, True
        try:
            heard = bool(connection.recv(1000))
        except TimeoutError:
            heard = False
        if heard != before:
            print("heard" if heard else "silence", flush=True)
"""


@contextmanager
def started(*command: str) -> Iterator[tuple["subprocess.Popen[bytes]", IO[bytes]]]:
    """A process, which is killed in the end, and what it prints."""
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout
        finally:
            process.kill()


def test_a_host_that_is_cut_off_hears_nothing_while_the_others_do(hosts: Network, far_broker: Valkey) -> None:
    listen = (sys.executable, "-c", LISTENER, hosts.address("broker"), str(far_broker.port))
    first, second = hosts.hosts
    with started(*first.prefix, *listen) as (_, alpha), started(*second.prefix, *listen) as (other, beta):
        assert (alpha.readline(), beta.readline()) == (b"heard\n", b"heard\n")
        first.cut("broker")
        assert alpha.readline() == b"silence\n"
        first.join("broker")
        assert alpha.readline() == b"heard\n"
        other.kill()
        assert beta.read() == b"", "the other one has not been disturbed"


NEXT_RUN: Final = """
import sys, time
from dev.proxies.partition import network
with network("gamma") as made:
    print(made.hosts[0].namespace, flush=True)
    time.sleep(float(sys.argv[1]))
"""


def test_what_a_killed_run_has_left_behind_is_removed_by_the_next(hosts: Network) -> None:
    def names() -> str:
        shown = [subprocess.check_output(["ip", *what.split()], text=True) for what in ("netns list", "-brief link")]
        return "".join(shown)

    with started(sys.executable, "-c", NEXT_RUN, "60") as (_, printed):
        name = printed.readline().decode().strip()
        assert name.removesuffix("gamma") in names()
    assert name in names()
    subprocess.run([sys.executable, "-c", NEXT_RUN, "0"], cwd=CHECKOUT, check=True, stdout=subprocess.DEVNULL)
    assert name.removesuffix("gamma") not in names()
    assert hosts.hosts[0].namespace in names(), "a run that lives keeps its own"


@pytest.mark.long
@pytest.mark.parametrize("services", [("database",), SERVICES], ids=["database", "everything"])
def test_a_host_cut_off_for_longer_than_its_leases_is_replaced_and_does_no_harm_when_it_is_back(
    site: Site, services: tuple[str, ...]
) -> None:
    with replaced_amid(site, *services) as cargo:
        assert_taken_over(site, cargo.succeeded())
        taken_over_at = time.time()
    cargo.assert_nothing_is_unfinished()
    late = site.asked_by(site.alpha, taken_over_at, *PUBLISHING)
    assert [request for request in late if "/later/" not in request.path] == []
    assert list(cargo.file.parent.iterdir()) == [cargo.file], "no partial file is left"


@pytest.mark.long
def test_a_host_cut_off_from_the_broker_ends_its_runs_and_takes_jobs_again_when_it_is_back(site: Site) -> None:
    with replaced_amid(site, "broker") as cargo:
        jobs = cargo.succeeded()
        assert ["alpha"] in [hosts_of(site, job) for job in jobs], "a run does not need the broker"
        threading.Event().wait(LEASE_SECONDS)


@pytest.mark.long
def test_a_host_cut_off_from_the_store_gives_its_jobs_up_to_another(site: Site) -> None:
    with replaced_amid(site, "store") as cargo:
        assert_taken_over(site, cargo.succeeded(timeout=300))


@pytest.mark.long
@pytest.mark.parametrize("services", [*((service,) for service in SERVICES), SERVICES], ids=[*SERVICES, "everything"])
def test_all_hosts_are_cut_off_for_longer_than_the_lease_and_joined_again(
    site: Site, services: tuple[str, ...]
) -> None:
    with site.worker(site.alpha), site.worker(site.beta):
        cargo = Cargo(site)
        cargo.under_way()
        for host in site.network.hosts:
            host.cut(*services)
        threading.Event().wait(2 * LEASE_SECONDS)
        for host in site.network.hosts:
            host.join()
        jobs = cargo.succeeded(timeout=120)
        if "database" in services:
            assert min(job.attempt for job in jobs) > 1, "all leases had run out"
        for job in [site.scene.submit(f"/later/{number}", 2) for number in range(10)]:
            site.scene.succeeded(job, timeout=90)


@pytest.mark.long
def test_a_transaction_that_a_cut_off_host_has_left_open_does_not_hold_its_job(site: Site) -> None:
    scene = site.scene
    with site.worker(site.alpha), site.worker(site.beta):
        job = scene.begin("/left-open/blob", PARTS)
        owner, other = site.network.hosts if host_of(job.worker) == "alpha" else reversed(site.network.hosts)
        waits = f"{WAITING_FOR_A_LOCK} AND client_addr = '{site.network.address_of(owner, 'database')}'"
        with psycopg.connect(site.scene.stack.database_url.replace("+psycopg", "")) as somebody:
            somebody.execute("SELECT * FROM blobferry_jobs WHERE id = %s FOR UPDATE", [job.id])
            scene.until_rows(waits)
            owner.cut()
        # Now the cut-off run gets the lock, and hears nothing of it.
        job = scene.succeeded(job, timeout=60)
        assert hosts_of(site, job)[-1] == other.name
        assert_no_two_runs_at_once(scene, job)
        owner.join()  # nobody need wait for a worker that cannot say good-bye


def host_of(worker: str | None) -> str:
    """The host in a worker's name, ``id@host:pid``."""
    return str(worker).partition("@")[2].partition(":")[0]


def hosts_of(site: Site, job: Job) -> list[str]:
    """The host of each attempt."""
    return [host_of(row["worker"]) for row in site.scene.attempts(job)]


def assert_taken_over(site: Site, jobs: list[Job]) -> None:
    """Alpha had each job first, and beta brought it to its end."""
    for job in jobs:
        hosts = hosts_of(site, job)
        assert (hosts[0], hosts[-1]) == ("alpha", "beta"), (job, hosts)


def assert_alpha_works_on(site: Site) -> None:
    """It takes more jobs than it has slots, and ends them."""
    for job in [site.scene.submit(f"/later/{number}", 1) for number in range(6)]:
        job = site.scene.succeeded(job, timeout=90)
        assert hosts_of(site, job)[-1] == "alpha"
