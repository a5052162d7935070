"""A wire whose clients speak TLS, in front of a server that does not: it has a certificate of a private authority."""

import asyncio
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dev.process import LOOPBACK, work_directory
from dev.proxies.tcp import BACKLOG, Upstream, Wire, laid


class TlsWire(Wire):
    """A running wire; ``context`` holds its certificate."""

    context: ssl.SSLContext

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(
                self._serve, LOOPBACK, self.port, backlog=BACKLOG, ssl=self.context
            )


@contextmanager
def tls_wire(upstream: Upstream) -> Iterator[tuple[TlsWire, Path]]:
    """A wire to ``upstream`` and the file with the certificate of its authority."""
    with work_directory("tls") as work:
        certify(work)
        wire = TlsWire(upstream)
        wire.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        wire.context.load_cert_chain(work / "server.pem", work / "server.key")
        with laid(wire) as running:
            yield running, work / "ca.pem"


def certify(work: Path) -> None:
    """Make ca.pem, and server.pem with server.key, for 127.0.0.1."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=work, check=True, capture_output=True)

    new = ("-newkey", "rsa:2048", "-nodes")
    openssl("req", "-x509", *new, "-days", "2", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority")
    openssl("req", *new, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    (work / "names").write_text(f"subjectAltName=DNS:localhost,IP:{LOOPBACK}\n")
    signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
    openssl("x509", "-req", "-in", "server.csr", *signing, "-days", "2", "-out", "server.pem")
