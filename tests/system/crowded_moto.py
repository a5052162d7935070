"""A moto server that is born with many keys: sending each of them would take longer than the tests that delete them.

Run as ``python crowded.py PORT BUCKET PREFIXES COUNT``: COUNT keys of one byte under each of the PREFIXES. It also says
when uploads were opened. To moto that is always 2010, so that nobody could tell one whose id got lost as his own.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.core.responses import ActionResult, BaseResponse
from moto.s3.models import s3_backends
from moto.s3.responses import S3Response
from moto.server import main

from dev.process import ServiceProcess, running, work_directory
from dev.services import free_port
from dev.services.s3_server import REGION, S3Service


@contextmanager
def crowded_moto(bucket: str, prefixes: list[str], count: int) -> Iterator[S3Service]:
    """A moto whose bucket holds ``count`` keys under each of the prefixes."""
    with work_directory("moto") as work:
        port = free_port()
        service = S3Service(
            endpoint=f"http://127.0.0.1:{port}",
            access_key="moto",
            secret_key="moto-secret",
            processes=(
                ServiceProcess(
                    "moto",
                    [sys.executable, str(Path(__file__).resolve()), str(port), bucket, ",".join(prefixes), str(count)],
                    log=work / "moto.log",
                    answers=lambda: service.answers(),
                    port=port,
                    environment={"TMPDIR": str(work), "PYTHONPATH": str(Path(__file__).parents[2])},
                ),
            ),
        )
        with running(service):
            yield service


def names(prefix: str, count: int) -> list[str]:
    """The keys under a prefix."""
    return [f"{prefix}{number:05}" for number in range(count)]


def dated(response: BaseResponse, answer: ActionResult) -> Any:
    """The answer, with the time of now, about, where moto has one of its own."""
    if isinstance(answer.result, dict):
        for upload in answer.result.get("Uploads", []):
            upload["Initiated"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return BaseResponse.serialized(response, answer)


if __name__ == "__main__":
    port, bucket, prefixes, count = sys.argv[1:]
    S3Response.serialized = dated  # type: ignore[assignment, method-assign]
    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    backend.create_bucket(bucket, REGION)
    for prefix in prefixes.split(","):
        for name in names(prefix, int(count)):
            backend.put_object(bucket, name, b"x")
    main(["--host", "127.0.0.1", "--port", port])
