"""``make up``: the whole of Blobferry in the foreground, until Ctrl-C. Nothing stays behind.

Every local account can reach the ports. Whoever may write to the broker may have the worker read and write below its
roots. So the password is drawn, and the roots are directories of its own.
"""

import json
import secrets
import shlex
import signal
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from dev.process import work_directory
from dev.services import flower, moto, valkey
from dev.stack import BUCKET, Stack

CLIENT_VARIABLES = ("BLOBFERRY_DATABASE_URL", "BLOBFERRY_BROKER_URL", "BLOBFERRY_SPOOL_DIR")


def main() -> None:
    """Start everything, print the addresses, wait."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    console = Console(highlight=False, soft_wrap=True)
    with ExitStack() as services, work_directory("up") as directory:
        console.print("starting Valkey, an S3 server (moto), Flower and a worker …")
        password = secrets.token_urlsafe(24)
        broker = services.enter_context(valkey(password=password))
        s3 = services.enter_context(moto())
        user = f"blobferry:{password}"
        monitoring = services.enter_context(flower(broker.url, basic_auth=user, read_only=True))
        stack = Stack(broker.url, f"sqlite:///{directory}/blobferry.db", s3, directory)
        stack.prepare()
        outgoing = directory / "outgoing"
        outgoing.mkdir()
        spool = directory / "spool"
        spool.mkdir()
        roots = json.dumps([str(stack.incoming), str(outgoing)])
        stack = replace(stack, settings={"BLOBFERRY_SOURCES__FILE_ROOTS": roots, "BLOBFERRY_SPOOL_DIR": str(spool)})
        worker = services.enter_context(stack.worker())
        console.print(_how_to(stack, monitoring.url.replace("://", f"://{user}@"), outgoing, worker.log))
        ended.wait()
        console.print("stopping …")


def _how_to(stack: Stack, flower_url: str, outgoing: Path, log: Path) -> str:
    exports = "\n".join(f"  export {name}={shlex.quote(stack.environment()[name])}" for name in CLIENT_VARIABLES)
    return f"""
Flower      {flower_url}
S3          {stack.s3.endpoint}  bucket {BUCKET}, key {stack.s3.access_key}, secret {stack.s3.secret_key}
worker log  {log}

In another terminal, here in the checkout:

{exports}
  cp README.md {stack.incoming}
  .venv/bin/blobferry write {stack.incoming}/README.md /docs/readme.md --wait
  .venv/bin/blobferry read /docs/readme.md {outgoing}/readme.md --wait

The worker sees no other files than those in these two directories, and uploads of `ferry.spool`.
Ctrl-C ends everything, and removes them with all blobs and jobs."""


if __name__ == "__main__":
    main()
