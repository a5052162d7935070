"""The sink as a service: a process of its own, whose CPU is nobody's."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dev.process import ServiceProcess, free_port, running, work_directory
from dev.proxies.tls_wire import certify
from dev.services import S3Service

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Sink(S3Service):
    """A running sink."""

    secure_endpoint: str
    authority: Path  #: the file with the certificate of the authority that ``secure_endpoint`` shows


@contextmanager
def sink() -> Iterator[Sink]:
    """A sink that speaks HTTP and, over the same blobs, HTTPS."""
    with work_directory("sink") as work:
        certify(work)
        port, tls_port = free_port(), free_port()
        options = ["--port", port, "--tls-port", tls_port, "--certificate", "server.pem", "--key", "server.key"]
        service = Sink(
            endpoint=f"http://127.0.0.1:{port}",
            secure_endpoint=f"https://127.0.0.1:{tls_port}",
            authority=work / "ca.pem",
            access_key="bench",
            secret_key="bench-secret",
            processes=(
                ServiceProcess(
                    "sink",
                    [sys.executable, "-m", "bench.sink", *map(str, options)],
                    log=work / "sink.log",
                    answers=lambda: service.answers(),
                    port=port,
                    environment={"PYTHONPATH": str(ROOT)},
                ),
            ),
        )
        with running(service):
            yield service
