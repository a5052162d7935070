"""``make up``: the whole of Blobferry in the foreground, until Ctrl-C. Nothing stays behind."""

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

CLIENT_VARIABLES = ("BLOBFERRY_DATABASE_URL", "BLOBFERRY_BROKER_URL")


def main() -> None:
    """Start everything, print the addresses, wait."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    console = Console(highlight=False, soft_wrap=True)
    with ExitStack() as services, work_directory("up") as directory:
        console.print("starting Valkey, an S3 server (moto), Flower and a worker …")
        broker = services.enter_context(valkey())
        s3 = services.enter_context(moto())
        monitoring = services.enter_context(flower(broker.url))
        stack = Stack(broker.url, f"sqlite:///{directory}/blobferry.db", s3, directory)
        stack.prepare()
        roots = f'["{stack.incoming}", "{Path.home()}", "{Path.cwd()}"]'
        stack = replace(stack, settings={"BLOBFERRY_SOURCES__FILE_ROOTS": roots})
        worker = services.enter_context(stack.worker())
        console.print(_how_to(stack, monitoring.url, worker.log))
        ended.wait()
        console.print("stopping …")


def _how_to(stack: Stack, flower_url: str, log: Path) -> str:
    exports = "\n".join(f"  export {name}={shlex.quote(stack.environment()[name])}" for name in CLIENT_VARIABLES)
    return f"""
Flower      {flower_url}
S3          {stack.s3.endpoint}  bucket {BUCKET}, key {stack.s3.access_key}, secret {stack.s3.secret_key}
worker log  {log}

In another terminal, here in the checkout:

{exports}
  .venv/bin/blobferry write README.md /docs/readme.md --wait

The worker reads files below your home and this directory. Ctrl-C ends everything."""


if __name__ == "__main__":
    main()
