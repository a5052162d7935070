"""``python -m bench.sink --port PORT …``: serve until the process ends."""

import ssl
import threading
from pathlib import Path

import click

from bench.sink.sink_server import SinkServer


@click.command()
@click.option("--port", type=int, required=True, help="Where it speaks HTTP.")
@click.option("--tls-port", type=int, help="Where it speaks HTTPS, over the same blobs.")
@click.option("--certificate", type=click.Path(path_type=Path))
@click.option("--key", type=click.Path(path_type=Path))
def main(port: int, tls_port: int | None, certificate: Path | None, key: Path | None) -> None:
    """Serve until the process ends."""
    server = SinkServer()
    if tls_port is not None:
        if certificate is None or key is None:
            raise click.UsageError("--tls-port needs --certificate and --key")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        threading.Thread(target=server.listen, args=(tls_port, context), daemon=True).start()
    server.listen(port)


if __name__ == "__main__":
    main()
