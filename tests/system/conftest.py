"""Stacks of real processes for the system tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from dev.services import Postgres, S3Service, Valkey, moto, postgres, postgres_database, valkey
from dev.stack import BUCKET, Stack

MIB = 1024 * 1024
PART_SIZE = 5 * MIB
PART_THREADS = 3
LASTING_BROKER = 1  #: the number of the database in Redis

#: A dead worker is noticed in seconds, so that a test of twenty deaths ends today.
FAST = {
    "BLOBFERRY_TRANSFER__PART_SIZE": str(PART_SIZE),
    "BLOBFERRY_TRANSFER__PART_THREADS": str(PART_THREADS),
    "BLOBFERRY_LEASE__SECONDS": "3",
    "BLOBFERRY_LEASE__HEARTBEAT_SECONDS": "1",
    "BLOBFERRY_LEASE__MARGIN_SECONDS": "1",
    "BLOBFERRY_SWEEP__INTERVAL_SECONDS": "0.3",
    "BLOBFERRY_CONCURRENCY": "1",
    "BLOBFERRY_READS": "0",  # a second of CPU at each start, for the tests that start a worker at every step
    "BLOBFERRY_RETRY__BASE_SECONDS": "1",
}


@pytest.fixture(scope="package")
def broker() -> Iterator[Valkey]:
    with valkey() as service:
        yield service


@pytest.fixture(scope="package")
def s3() -> Iterator[S3Service]:
    with moto() as service:
        yield service


@pytest.fixture(scope="package")
def postgres_server() -> Iterator[Postgres]:
    with postgres() as service:
        yield service


@pytest.fixture(scope="package")
def migrated(postgres_server: Postgres, s3: S3Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a database with our tables, to be copied: a migration is two seconds of CPU."""
    with postgres_database(postgres_server) as url:
        Stack("", url, s3, tmp_path_factory.mktemp("migrated")).prepare()
        yield str(make_url(url).database)


@pytest.fixture
def stack(broker: Valkey, s3: S3Service, postgres_server: Postgres, migrated: str, tmp_path: Path) -> Iterator[Stack]:
    """A stack with a database of its own on PostgreSQL, an empty broker, and no unfinished upload in its store."""
    with postgres_database(postgres_server, template=migrated) as url:
        stack = Stack(broker.url, url, s3, tmp_path, settings=FAST)
        stack.prepare(has_tables=True)
        broker.flush()
        abort_uploads(s3)
        yield stack


@pytest.fixture(scope="module")
def lasting_stack(
    broker: Valkey, s3: S3Service, postgres_server: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A stack for a whole module: a worker that has survived one failure has to survive the next.

    It has a database of the broker's own, so that a test in between may start workers of another stack.
    """
    with postgres_database(postgres_server) as url:
        broker_url = f"redis://127.0.0.1:{broker.port}/{LASTING_BROKER}"
        yield prepared(broker, Stack(broker_url, url, s3, tmp_path_factory.mktemp("lasting"), settings=FAST))


@pytest.fixture(scope="module")
def sqlite_stack(broker: Valkey, s3: S3Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The same on SQLite, and on the broker's first database."""
    directory = tmp_path_factory.mktemp("sqlite")
    yield prepared(broker, Stack(broker.url, f"sqlite:///{directory}/blobferry.db", s3, directory, settings=FAST))
    broker.flush()


def prepared(broker: Valkey, stack: Stack) -> Stack:
    """The stack with its tables and buckets, and an empty broker."""
    stack.prepare()
    broker.flush()
    return stack


def abort_uploads(s3: S3Service) -> None:
    """Jobs of earlier tests that failed have left theirs, for a retry."""
    client = s3.client()
    for upload in client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []):
        client.abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])
    client.close()
