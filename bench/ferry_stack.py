"""Blobferry as in production: its own worker with two children, on PostgreSQL or SQLite."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
from sqlalchemy import make_url

from bench.sql_counts import SqlCounts
from bench.stage import BUCKET, Stage
from bench.tracked_process import Tracked, tracked_server
from dev.process import FOREIGN_VARIABLES, ServiceError
from dev.services import postgres_database

#: Celery's own keys and ours share it, so that flushing it leaves the plain Celery's alone.
DATABASE_OF_BROKER: Final = 3


class FerryStack:
    """One database of jobs, new and migrated, and the worker and the clients on it."""

    def __init__(self, stage: Stage, kind: str, database_url: str, settings: Mapping[str, str], secure: bool) -> None:
        self._stage = stage
        self._kind = kind
        self._url = database_url
        self._settings = settings
        self._secure = secure
        self.directory = stage.directory / f"ferry-{stage.number()}"
        self.directory.mkdir()
        self._sql = SqlCounts(self.directory / "sql-counts")

    @property
    def environment(self) -> dict[str, str]:
        """The variables of worker and clients."""
        store = self._stage.store
        storage = {
            "BUCKET": BUCKET,
            "REGION": store.region,
            "REGIONENDPOINT": self._stage.sink.secure_endpoint if self._secure else store.endpoint,
            "ACCESSKEY": store.access_key,
            "SECRETKEY": store.secret_key,
            "FORCEPATHSTYLE": "true",
            **({"CA_FILE": str(self._stage.sink.authority)} if self._secure else {}),
        }
        return {
            "PYTHONPATH": str(self._stage.options.checkout),
            "BLOBFERRY_DATABASE_URL": self._url,
            "BLOBFERRY_BROKER_URL": self._stage.broker.url.removesuffix("/0") + f"/{DATABASE_OF_BROKER}",
            "BLOBFERRY_SOURCES__FILE_ROOTS": json.dumps([str(self._stage.directory)]),
            **{f"BLOBFERRY_STORAGES__DEFAULT__{name}": value for name, value in storage.items()},
            **self._settings,
        }

    def submit(self, **what: Any) -> Mapping[str, Any]:
        """Let a client submit jobs; what it took. See ``agents/ferry_submit.py``."""
        return self.ask("ferry_submit.py", **what)

    def ask(self, agent: str, **what: Any) -> Mapping[str, Any]:
        """Run an agent that is a client, and return what it prints."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_VARIABLES)}
        done = subprocess.run(
            [*self._stage.python(agent), json.dumps(what)],
            cwd=self.directory,
            env=inherited | self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ServiceError(f"{agent} ended with status {done.returncode}\n{done.stderr}")
        found: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    @contextmanager
    def worker(self) -> Iterator[Tracked]:
        """A worker that has said it is ready."""
        log = self.directory / "worker.log"
        with tracked_server(
            "worker",
            [sys.executable, "-m", "worker", "run", "--name", f"bench{self._stage.number()}"],
            directory=self.directory,
            answers=lambda: " ready." in log.read_text(errors="replace"),
            environment=self.environment | self._sql.variables(str(self._stage.options.checkout)),
        ) as tracked:
            yield tracked

    def sql_counts(self) -> Mapping[str, int]:
        """The transactions and statements of the worker so far."""
        return self._sql.read()

    def succeeded(self) -> int:
        """How many jobs have."""
        return self.count("SELECT count(*) FROM blobferry_jobs WHERE state = 'succeeded'")

    def failed(self) -> int:
        """How many jobs have."""
        return self.count("SELECT count(*) FROM blobferry_jobs WHERE state IN ('failed', 'cancelled')")

    def count(self, query: str) -> int:
        """The number that the query returns."""
        if self._kind == "postgres":
            with psycopg.connect(_plain(self._url)) as connection:
                row = connection.execute(query.encode()).fetchone()
        else:
            with closing(sqlite3.connect(f"file:{make_url(self._url).database}?mode=ro", uri=True)) as database:
                row = database.execute(query).fetchone()
        return int(row[0]) if row else 0


@contextmanager
def ferry_stack(
    stage: Stage, kind: str, *, settings: Mapping[str, str] | None = None, secure: bool = False
) -> Iterator[FerryStack]:
    """A stack on a new database of the ``kind``, "postgres" or "sqlite"; the broker is flushed. ``secure``: TLS."""
    stage.broker.flush()
    with ExitStack() as databases:
        if kind == "postgres":
            url = databases.enter_context(postgres_database(stage.postgres))
            stack = FerryStack(stage, kind, url, settings or {}, secure)
            _migrate(stack)
        else:
            directory = stage.directory / f"sqlite-{stage.number()}"
            directory.mkdir()
            databases.callback(shutil.rmtree, directory)
            stack = FerryStack(stage, kind, f"sqlite:///{directory}/jobs.db", settings or {}, secure)
            _migrate(stack)
        yield stack


def _migrate(stack: FerryStack) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_VARIABLES)}
    done = subprocess.run(
        [sys.executable, "-m", "worker", "migrate"],
        cwd=stack.directory,
        env=inherited | stack.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ServiceError(f"migrate failed\n{done.stdout}{done.stderr}")


def _plain(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


def log_tail(path: Path, lines: int = 20) -> str:
    """The end of a log."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""
