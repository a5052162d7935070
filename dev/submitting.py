"""What submitting costs: one by one and many at once, on both databases, beside an older tree in the same run.

    python -m dev.submitting --before ../main

Each round of each case is a process of its own; the rounds of both trees take turns. Prints medians: jobs a second, and
the milliseconds of CPU that the client takes for a job, which say more than the former on a machine that others use.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from sqlalchemy import create_engine, text

from dev.services import postgres, postgres_database, valkey

HERE = Path(__file__).parents[1]
CONTENTS = 4096  #: bytes of each job
_CLIENT = """
import json, sys, time
from blobferry import Client
url, broker, count, together = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "together"
with Client(database_url=url, broker_url=broker) as client:
    for number in range(20):  # connects, compiles
        client.put_content(f"/warm/{number}", b"x")
    began, used = time.perf_counter(), time.process_time()
    if together:
        from blobferry import NewJob
        client.submit_many(NewJob.put_content(f"/a/{number}", b"x" * SIZE) for number in range(count))
    else:
        for number in range(count):
            client.put_content(f"/a/{number}", b"x" * SIZE)
    print(json.dumps([count / (time.perf_counter() - began), 1000 * (time.process_time() - used) / count]))
""".replace("SIZE", str(CONTENTS))


@dataclass(frozen=True, slots=True)
class Case:
    """Jobs that one client submits."""

    tree: Path
    database: str  #: its kind
    together: bool
    count: int

    @property
    def name(self) -> str:
        """The case in words."""
        return f"{self.database}, {self.count} {'at once' if self.together else 'one by one'}"


@click.command()
@click.option("--before", type=click.Path(exists=True, path_type=Path), help="An older checkout, measured beside.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--jobs", default=300, show_default=True, help="Submitted one by one.")
@click.option("--many", default=10_000, show_default=True, help="Submitted at once.")
def main(before: Path | None, rounds: int, jobs: int, many: int) -> None:
    """Measure submits."""
    trees = [before.resolve(), HERE] if before else [HERE]
    cases = [
        Case(tree, database, together, many if together else jobs)
        for database in ("postgres", "sqlite")
        for together in (False, True)
        for tree in trees
        if tree == HERE or not together
    ]
    found: dict[Case, list[tuple[float, float]]] = {case: [] for case in cases}
    with ExitStack() as running:
        broker = running.enter_context(valkey())
        urls = dict(_databases(running))
        for _ in range(rounds):
            for case in cases:
                broker.flush()
                _empty(urls[case.database])
                found[case].append(_measured(case, urls[case.database], broker.url))
    for case, figures in found.items():
        rate, cpu = (statistics.median(values) for values in zip(*figures, strict=True))
        tree = "" if before is None else f"{'here' if case.tree == HERE else 'before':8}"
        print(f"{tree}{case.name:30} {rate:8.0f} jobs/s  {cpu:6.3f} ms CPU a job")


def _databases(running: ExitStack) -> Iterator[tuple[str, str]]:
    server = running.enter_context(postgres())
    directory = running.enter_context(TemporaryDirectory())
    for kind, url in (
        ("postgres", running.enter_context(postgres_database(server))),
        ("sqlite", f"sqlite:///{directory}/blobferry.db"),
    ):
        settings = os.environ | {"BLOBFERRY_DATABASE_URL": url, "BLOBFERRY_BROKER_URL": "redis://none"}
        subprocess.run([sys.executable, "-m", "worker", "migrate"], env=settings, cwd=HERE, check=True)
        yield kind, url


def _empty(url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM blobferry_jobs"))
    engine.dispose()


def _measured(case: Case, url: str, broker_url: str) -> tuple[float, float]:
    """Jobs a second, and milliseconds of CPU for each."""
    means = "together" if case.together else "alone"
    command = [sys.executable, "-c", _CLIENT, url, broker_url, str(case.count), means]
    environment = os.environ | {"PYTHONPATH": str(case.tree)}
    done = subprocess.run(command, env=environment, cwd=case.tree, capture_output=True, text=True, check=True)
    rate, cpu = json.loads(done.stdout)
    return rate, cpu


if __name__ == "__main__":
    main()
