"""Stacks of real processes for the system tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.services import Postgres, S3Service, Valkey, moto, postgres, postgres_database, valkey
from dev.stack import BUCKET, Stack

MIB = 1024 * 1024
PART_SIZE = 5 * MIB
PART_THREADS = 3

#: A dead worker is noticed in seconds, so that a test of twenty deaths ends today.
FAST = {
    "BLOBFERRY_TRANSFER__PART_SIZE": str(PART_SIZE),
    "BLOBFERRY_TRANSFER__PART_THREADS": str(PART_THREADS),
    "BLOBFERRY_LEASE__SECONDS": "3",
    "BLOBFERRY_LEASE__HEARTBEAT_SECONDS": "1",
    "BLOBFERRY_LEASE__MARGIN_SECONDS": "1",
    "BLOBFERRY_SWEEP__INTERVAL_SECONDS": "0.3",
    "BLOBFERRY_CONCURRENCY": "1",
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


@pytest.fixture
def stack(broker: Valkey, s3: S3Service, postgres_server: Postgres, tmp_path: Path) -> Iterator[Stack]:
    """A stack with a database of its own on PostgreSQL, an empty broker, and no unfinished upload in its store."""
    with postgres_database(postgres_server) as url:
        stack = Stack(broker.url, url, s3, tmp_path, settings=FAST)
        stack.prepare()
        broker.flush()
        abort_uploads(s3)
        yield stack


def abort_uploads(s3: S3Service) -> None:
    """Jobs of earlier tests that failed have left theirs, for a retry."""
    client = s3.client()
    for upload in client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []):
        client.abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])
    client.close()
