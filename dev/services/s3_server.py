"""An S3 service as its clients see it, and the simplest one: moto, S3 in one process and in memory."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config

from dev.process import Service, ServiceProcess, free_port, running, work_directory

REGION = "us-east-1"
MIN_PART_SIZE = 5 * 1024 * 1024  #: bytes; what S3 itself asks of every part but the last


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Service(Service):
    """A running S3 server, to be addressed by path (``forcepathstyle``)."""

    endpoint: str
    access_key: str
    secret_key: str
    region: str = REGION

    def client(self) -> Any:
        """A plain boto3 client, for tests and set-up that must not go through the code under test."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=Config(
                proxies={},  # a proxy of the environment would be asked for 127.0.0.1 too
                s3={"addressing_style": "path"},
                connect_timeout=5,
                read_timeout=60,
                retries={"total_max_attempts": 1},
            ),
        )

    def answers(self) -> bool:
        """Whether it answers a signed request."""
        client = self.client()
        try:
            client.list_buckets()
        finally:
            client.close()
        return True


def create_bucket(service: S3Service, name: str) -> str:
    """Make the bucket and return its name. Safe to repeat."""
    client = service.client()
    try:
        client.create_bucket(Bucket=name)
    except client.exceptions.BucketAlreadyOwnedByYou:
        pass
    finally:
        client.close()
    return name


@contextmanager
def moto(port: int | None = None, *, min_part_size: int = MIN_PART_SIZE) -> Iterator[S3Service]:
    """A moto server: no signatures, no checks of checksums, and everything is lost when it ends or restarts."""
    with work_directory("moto") as work:
        port = port or free_port()
        service = S3Service(
            endpoint=f"http://127.0.0.1:{port}",
            access_key="moto",
            secret_key="moto-secret",
            processes=(
                ServiceProcess(
                    "moto",
                    [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
                    log=work / "moto.log",
                    answers=lambda: service.answers(),
                    port=port,
                    # Large blobs are spooled to files, which belong where they are removed with the rest.
                    environment={"S3_UPLOAD_PART_MIN_SIZE": str(min_part_size), "TMPDIR": str(work)},
                ),
            ),
        )
        with running(service):
            yield service
