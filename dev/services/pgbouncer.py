"""A real PgBouncer in transaction mode, in front of a PostgreSQL: Debian's package, or the program that is named."""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from dev.process import Service, ServiceError, ServiceProcess, running, work_directory
from dev.services.postgres_server import Postgres, give, server_owner

PORT = 5432  #: only names the socket
PROGRAM_VARIABLE = "BLOBFERRY_TEST_PGBOUNCER"  #: its path, where it is not on PATH


def pgbouncer_program() -> str | None:
    """The path of the program; None if there is none."""
    return os.environ.get(PROGRAM_VARIABLE) or shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")


@contextmanager
def pgbouncer(server: Postgres) -> Iterator[Path]:
    """A PgBouncer for every database of the server; the directory of its unix socket, which is its owner's.

    At a port of 127.0.0.1 every local account would be the server's superuser.
    """
    program = pgbouncer_program()
    if program is None:
        raise ServiceError(f"PgBouncer cannot be started: install pgbouncer, or name it in {PROGRAM_VARIABLE}")
    found = psycopg.conninfo.conninfo_to_dict(server.url)
    with work_directory("pgbouncer") as work:
        users, configuration = work / "users.txt", work / "pgbouncer.ini"
        users.write_text(f'"{found["user"]}" ""\n')
        configuration.write_text(
            f"[databases]\n* = host={found['host']} port={found.get('port', 5432)} user={found['user']}\n"
            f"[pgbouncer]\nlisten_addr =\nlisten_port = {PORT}\nunix_socket_dir = {work}\nauth_type = trust\n"
            f"auth_file = {users}\npool_mode = transaction\ndefault_pool_size = 4\n"
        )
        owner = server_owner()
        for path in (work, users, configuration):
            give(path, owner)
        process = ServiceProcess(
            "pgbouncer",
            [program, configuration],
            log=Path(work, "pgbouncer.log"),
            answers=lambda: _listens(work),
            owner=owner,
        )
        with running(Service(processes=(process,))):
            yield work


def _listens(directory: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(directory / f".s.PGSQL.{PORT}"))
        return True
