"""``make example APP=fastapi``: one of the apps in ``examples/`` with all that it needs, until Ctrl-C.

PostgreSQL, Valkey, an S3 server, a worker, the app and its process that learns the ends. Nothing stays behind.
"""

import secrets
import signal
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from sqlalchemy import make_url

from dev.process import LOOPBACK, Service, ServiceProcess, free_port, running, work_directory
from dev.services import moto, postgres, postgres_database, valkey
from dev.stack import CHECKOUT, Stack

_LISTEN: Final = ("-m", "blobferry", "listen", "films", "--label", "app=films", "--app")


@dataclass(frozen=True, slots=True)
class Example:
    """The arguments of Python that run an app's commands, in its folder."""

    web: Sequence[str]  #: followed by the port
    listener: Sequence[str]
    prepare: Sequence[str] = ()
    driver: str = "postgresql+psycopg"  #: of the app's database URL


EXAMPLES: Final[Mapping[str, Example]] = {
    "django": Example(
        ("manage.py", "runserver", "--noreload"), ("manage.py", "blobferry_listen"), ("manage.py", "migrate")
    ),
    "fastapi": Example(
        ("-m", "uvicorn", "app:app", "--timeout-graceful-shutdown", "5", "--port"),
        (*_LISTEN, "app:ferry"),
        driver="postgresql+asyncpg",
    ),
    "flask": Example(("-m", "flask", "run", "--port"), (*_LISTEN, "app:client")),
}


def with_spool(stack: Stack) -> Stack:
    """The stack with a directory for the app's uploads."""
    spool = stack.directory / "spool"
    spool.mkdir()
    return replace(stack, settings={**stack.settings, "BLOBFERRY_SPOOL_DIR": str(spool)})


@contextmanager
def running_example(name: str, stack: Stack) -> Iterator[str]:
    """The app and its listener, beside a stack with a spool; gives the app's URL. A worker is the caller's to start."""
    example, port = EXAMPLES[name], free_port()
    folder, url = CHECKOUT / "examples" / name, f"http://{LOOPBACK}:{port}"
    database = make_url(stack.database_url).set(drivername=example.driver)
    environment = stack.environment() | {
        "BLOBFERRY_DATABASE_URL": database.render_as_string(hide_password=False),
        "PYTHONPATH": f"{CHECKOUT}:{folder}",
        "SECRET_KEY": secrets.token_urlsafe(32),
    }

    def process(part: str, arguments: Sequence[str], answers: bool = False) -> ServiceProcess:
        return ServiceProcess(
            f"{name} {part}",
            [sys.executable, *(str(folder / word) if word == "manage.py" else word for word in arguments)],
            log=stack.directory / f"{name}-{part}.log",
            answers=(lambda: _answers(url)) if answers else lambda: True,
            port=port if answers else None,
            environment=environment,
        )

    if example.prepare:
        process("prepare", example.prepare).run()
    web = process("web", [*example.web, str(port)], answers=True)
    with running(Service(processes=(web,))), running(Service(processes=(process("listener", example.listener),))):
        yield url


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=5) as response:
        return bool(response.status == 200)


@contextmanager
def _stack(directory: Path) -> Iterator[Stack]:
    with postgres(directory / "postgres") as server, valkey() as broker, moto() as s3, postgres_database(server) as url:
        stack = with_spool(Stack(broker.url, url, s3, directory))
        stack.prepare()
        with stack.worker():
            yield stack


@click.command()
@click.argument("name", type=click.Choice(sorted(EXAMPLES)))
def main(name: str) -> None:
    """Start it all, print the address, wait."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    console = Console(highlight=False, soft_wrap=True)
    with work_directory("example") as directory, ExitStack() as parts:
        directory.chmod(0o755)  # the database server may be another user
        console.print("starting PostgreSQL, Valkey, an S3 server (moto), a worker and the app …")
        url = parts.enter_context(running_example(name, parts.enter_context(_stack(directory))))
        console.print(f"\n{url}\n\nIts code is in examples/{name}, its logs in {directory}. Ctrl-C ends everything.")
        ended.wait()
        console.print("stopping …")


if __name__ == "__main__":
    main()
