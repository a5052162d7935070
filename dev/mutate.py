"""Mutation testing: break a module in one small way at a time, and see whether its tests fail.

A mutant that the tests do not notice survives. To compare the tests of two commits, run this in a checkout of each::

    python -m dev.mutate --sample 20 --json before.json
    python -m dev.mutate --compare before.json --json after.json

The second judges the mutants of the first again, in whatever file their functions are by then. Each mutant is written
into a copy of the checkout, never into the checkout itself.
"""

import hashlib
import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import psutil

from dev.mutations import Mutant, mutants_of
from dev.process import work_directory

ROOT = Path(__file__).resolve().parent.parent
#: The tests that judge each module, the quickest first.
JUDGES = {
    "worker/transfer/plan.py": "transfer/plan transfer/parts transfer/body upload/source_upload upload/stream_upload",
    "models/queries/locks.py": "models/queries/locks",
    "models/queries/blockers.py": "models/queries/locks",
    "models/queries/claims.py": (
        "models/queries/claims models/queries/unowned models/queries/endings models/queries/history"
    ),
    "models/queries/ownership.py": (
        "models/queries/claims models/queries/point_of_no_return models/queries/endings models/queries/history"
    ),
    "worker/transfer/visible.py": "upload/commit upload/source_upload driver/delete_moved",
    "worker/jobs/lease.py": "jobs/lease celery/job_task jobs/runner",
    "worker/transfer/upload/reconcile.py": "upload/reconcile upload/source_upload",
}
PYTEST = ("-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-k", "not postgres and not s3")  # no slow servers
NOT_COPIED = (".*", "__pycache__", "build", "dist", "htmlcov")
MEMORY = 8 << 30  #: bytes of addresses that the tests of a mutant may take: some mutants collect for ever
# Mutants of two commits are the same if they agree in the first of these, or else in the second (reworded), or the
# third (in a function of another name).
LIKENESSES: tuple[Callable[[dict[str, Any]], object], ...] = (
    lambda mutant: (mutant["function"], mutant["kind"], mutant["source"], mutant["replacement"]),
    lambda mutant: (mutant["function"], mutant["kind"], mutant["ordinal"]),
    lambda mutant: (mutant["kind"], mutant["source"], mutant["replacement"], mutant["ordinal"]),
)


def row_of(mutant: Mutant) -> dict[str, Any]:
    """The mutant as it stands in the file of outcomes."""
    return {name: value for name, value in asdict(mutant).items() if name != "text"}


def _test_file(name: str) -> str:
    """The test file of a judge, named ``FOLDER/MODULE``."""
    folder, _, module = name.rpartition("/")
    return f"tests/{folder.replace('upload', 'transfer/upload')}/test_{module}.py"


class ScratchCheckout:
    """A copy of the checkout, in which one module at a time is broken and judged by its tests."""

    def __init__(self, checkout: Path, module: str) -> None:
        self._checkout = checkout
        self._module = checkout / module
        self._tests = [_test_file(name) for name in JUDGES[module].split()]
        self._original = self._module.read_text(encoding="utf-8")
        self._limit = 600.0
        outcome, output, seconds = self.judge(self._original)
        if outcome != "survived":
            raise click.ClickException(f"the tests of {module} fail without any mutation:\n{output}")
        self._limit = 20 + 3 * seconds
        if self.judge(f"{self._original}\nraise RuntimeError\n")[0] != "killed":
            raise click.ClickException(f"the tests of {module} do not import it from the copy")

    def judge(self, text: str) -> tuple[str, str, float]:
        """Outcome, the end of pytest's output, and the seconds that the tests took with this text of the module."""
        self._write(text)
        environment = os.environ | {"PYTHONPATH": str(self._checkout)}
        start = time.monotonic()
        with (self._checkout / ".mutant-output").open("w+b") as output:
            command = [sys.executable, *PYTEST, *self._tests]
            tests = subprocess.Popen(command, cwd=self._checkout, env=environment, stdout=output, stderr=output)
            try:
                outcome = "killed" if tests.wait(self._limit) else "survived"
            except subprocess.TimeoutExpired:
                outcome = "timed out"
                for started in psutil.Process(tests.pid).children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        started.kill()
            finally:
                tests.kill()
                tests.wait()
                self._write(self._original)
            output.seek(0)
            lines = output.read().decode(errors="replace").splitlines()
        return outcome, "\n".join(lines[-30:]), time.monotonic() - start

    def _write(self, text: str) -> None:
        self._module.write_text(text, encoding="utf-8")
        # Python tells bytecode that is out of date by seconds and size; two mutants may agree in both.
        Path(importlib.util.cache_from_source(self._module)).unlink(missing_ok=True)


def sample(mutants: Iterable[Mutant], count: int, seed: int) -> list[Mutant]:
    """The mutants that this seed draws; a change to the code changes the draw only as far as mutants come and go."""

    def rank(mutant: Mutant) -> str:
        return hashlib.sha256(repr((seed, LIKENESSES[0](row_of(mutant)))).encode()).hexdigest()

    return sorted(mutants, key=rank)[:count]


def pair(mutants: Iterable[Mutant], before: Iterable[dict[str, Any]]) -> list[tuple[dict[str, Any], Mutant]]:
    """Each earlier outcome whose mutant is still there, and that mutant."""
    pairs, left, earlier = [], list(mutants), list(before)
    for likeness in LIKENESSES:
        for row in list(earlier):
            found = next((mutant for mutant in left if likeness(row_of(mutant)) == likeness(row)), None)
            if found:
                pairs.append((row, found))
                left.remove(found)
                earlier.remove(row)
    return pairs


def table(rows: list[dict[str, Any]]) -> None:
    """Print how many mutants of each module there were, and what became of them."""
    print(f"\n{'module':34} mutants  killed  survived  timed out  share")
    for module in (*dict.fromkeys(row["module"] for row in rows), "all"):
        outcomes = [row["outcome"] for row in rows if module in (row["module"], "all")]
        counts = [outcomes.count(outcome) for outcome in ("killed", "survived", "timed out")]
        share = 1 - counts[1] / max(len(outcomes), 1)
        print(f"{module:34} {len(outcomes):7} {counts[0]:7} {counts[1]:9} {counts[2]:10} {share:6.1%}")


def describe(row: dict[str, Any]) -> str:
    """The mutant in one line."""
    place = f"{row['module']} {row['function'] or '(module)'} {row['kind']} {row['ordinal']}"
    return f"{place}: {' '.join(row['source'].split())} -> {' '.join(row['replacement'].split())}"


def differences(pairs: list[tuple[dict[str, Any], Mutant]], before: list[Any], after: list[Any]) -> None:
    """Print what became of the earlier mutants; only those count that are still there."""
    outcomes = {(row["module"], row["function"], row["kind"], row["ordinal"]): row["outcome"] for row in after}
    changes = [(row, outcomes[new.module, new.function, new.kind, new.ordinal], new) for row, new in pairs]
    for row, outcome, mutant in changes:
        if row["outcome"] != outcome:
            print(f"{row['outcome']} before, {outcome} now: {describe(row)}\n  now {describe(row_of(mutant))}")
    for row in before:
        if not any(row is still for still, _, _ in changes):
            print(f"{row['outcome']} before, gone: {describe(row)}")
    was = sum(row["outcome"] != "survived" for row, _, _ in changes)
    now = sum(outcome != "survived" for _, outcome, _ in changes)
    print(f"of {len(changes)} mutants in both, {was} were noticed before and {now} now; {len(before)} before in all")


@click.command(help=__doc__)
@click.argument("modules", nargs=-1, metavar="[MODULE]...")
@click.option("--sample", "count", default=0, help="Judge so many mutants of each module instead of all.")
@click.option("--seed", default=1, show_default=True, help="Decides which mutants a sample has.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the outcome of each mutant there.")
@click.option("--compare", type=click.Path(path_type=Path, exists=True), help="Judge the mutants of this file again.")
def main(modules: tuple[str, ...], count: int, seed: int, file: Path | None, compare: Path | None) -> None:
    """Judge the mutants of the modules, of all that have judges if none is named."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    found = {module: mutants_of(module, (ROOT / module).read_text(encoding="utf-8")) for module in modules or JUDGES}
    before = json.loads(compare.read_text()) if compare else []
    pairs = pair([mutant for mutants in found.values() for mutant in mutants], before)
    again = [mutant for _, mutant in pairs]
    rows = []
    with work_directory("mutants") as directory:
        checkout = directory / "checkout"
        shutil.copytree(ROOT, checkout, symlinks=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
        for module, mutants in found.items():
            chosen = [mutant for mutant in again if mutant.module == module]
            if not compare:
                chosen = sample(mutants, count or len(mutants), seed)
            if not chosen:
                continue
            bench = ScratchCheckout(checkout, module)
            for mutant in chosen:
                outcome, output, seconds = bench.judge(mutant.text)
                by = next((line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))), "")
                rows.append(row_of(mutant) | {"outcome": outcome, "seconds": round(seconds, 1), "by": by})
                print(f"{outcome:9} {seconds:5.1f} s  {describe(rows[-1])}", flush=True)
                if file:
                    file.write_text(json.dumps(rows, indent=1) + "\n")
    table(rows)
    if compare:
        differences(pairs, before, rows)


if __name__ == "__main__":
    main()
