"""The plain Celery peer: a worker of two prefork children, and the sending of its tasks."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import redis

from bench.stage import AGENTS, BUCKET, Stage
from bench.tracked_process import Tracked, tracked_server
from dev.process import FOREIGN_VARIABLES, ServiceError

BROKER: Final = 1
BACKEND: Final = 2


class PlainCelery:
    """The app of ``agents/celery_app.py``, against the store of the run. Raises MissingPeerError."""

    def __init__(self, stage: Stage) -> None:
        stage.broker.flush()
        self._stage = stage
        self._celery = stage.peers.program("celery")
        self.directory = stage.directory / f"celery-{stage.number()}"
        self.directory.mkdir()

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables of worker and clients."""
        return {
            "PYTHONPATH": str(AGENTS),
            "PLAIN_BROKER": self._database(BROKER),
            "PLAIN_BACKEND": self._database(BACKEND),
            "PLAIN_ENDPOINT": self._stage.store.endpoint,
            "PLAIN_BUCKET": BUCKET,
            "AWS_ACCESS_KEY_ID": self._stage.store.access_key,
            "AWS_SECRET_ACCESS_KEY": self._stage.store.secret_key,
        }

    def _database(self, number: int) -> str:
        return self._stage.broker.url.removesuffix("/0") + f"/{number}"

    def sql_counts(self) -> Mapping[str, int]:
        """None: it has no database."""
        return {}

    def submit(self, **what: Any) -> None:
        """Send the tasks. See ``agents/celery_submit.py``."""
        python: list[str | Path] = [self._celery.parent / "python", AGENTS / "celery_submit.py", json.dumps(what)]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_VARIABLES)}
        done = subprocess.run(
            python, cwd=self.directory, env=inherited | dict(self.environment), capture_output=True, text=True
        )
        if done.returncode:
            raise ServiceError(f"celery_submit.py ended with status {done.returncode}\n{done.stderr}")

    @contextmanager
    def worker(self) -> Iterator[Tracked]:
        """A worker that has said it is ready."""
        log = self.directory / "worker.log"
        python = self._celery.parent / "python"
        with tracked_server(
            "worker",
            [python, "-m", "celery", "-A", "celery_app", "worker", "--concurrency", "2", "--loglevel", "INFO"],
            directory=self.directory,
            answers=lambda: " ready." in log.read_text(errors="replace"),
            environment=self.environment,
        ) as tracked:
            yield tracked

    def succeeded(self) -> int:
        """How many results there are."""
        with redis.Redis.from_url(self._database(BACKEND)) as client:
            return int(client.dbsize())

    def failed(self) -> int:
        """How many of the last results are failures: looked up in the log, as results are many."""
        return (self.directory / "worker.log").read_text(errors="replace").count(" raised unexpected")
