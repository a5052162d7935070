"""The targets of the work on light jobs, as one run finds them: met, missed, or not measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.interleaved_rounds import Result
from bench.measurement import Measurement

#: Peers of the single GiB whose store checks what it was sent; obstore and s5cmd send no checksum by themselves.
CHECKING: Final = ("boto3", "crt", "awscli", "rclone")
RUNNING: Final = ("celery", "boto3", "crt", "obstore")  #: peers whose process is there before the files
ALL: Final = ("boto3", "crt", "obstore", "awscli", "s5cmd", "rclone")
OURS: Final = "blobferry"

Medians = Mapping[str, Measurement]


class NotMeasuredError(Exception):
    """The run has not what the target needs."""


@dataclass(frozen=True, slots=True)
class BenchTarget:
    """One target. ``at_least``: the figure must reach the bound; otherwise it must not pass it."""

    name: str
    load: str
    bound: float
    figure: Callable[[Medians], float]
    at_least: bool = False

    def verdict(self, value: float) -> str:
        """Met or missed."""
        is_met = value >= self.bound if self.at_least else value <= self.bound
        return "met" if is_met else "missed"


def _of(medians: Medians, name: str) -> Measurement:
    if name not in medians:
        raise NotMeasuredError(name)
    return medians[name]


def _best(medians: Medians, names: Sequence[str], figure: Callable[[Measurement], float]) -> float:
    found = [figure(medians[name]) for name in names if name in medians]
    if not found:
        raise NotMeasuredError(", ".join(names))
    return min(found)


def _cpu(measured: Measurement) -> float:
    return measured.cpu_per_unit


def _wall(measured: Measurement) -> float:
    return measured.wall / measured.units


def _rate_over(name: str, peer: str) -> Callable[[Medians], float]:
    return lambda medians: _of(medians, name).rate / _of(medians, peer).rate


def _over(name: str, peers: Sequence[str], figure: Callable[[Measurement], float]) -> Callable[[Medians], float]:
    return lambda medians: figure(_of(medians, name)) / _best(medians, peers, figure)


def _rate(name: str) -> Callable[[Medians], float]:
    return lambda medians: _of(medians, name).rate


def _more(name: str, figure: str) -> Callable[[Medians], float]:
    return lambda medians: _of(medians, name).more[figure]


TARGETS: Final = (
    BenchTarget("small: jobs/s ÷ plain Celery", "small", 1.0, _rate_over(OURS, "celery"), True),
    BenchTarget("small: CPU per job ÷ plain Celery", "small", 1.5, _over(OURS, ["celery"], _cpu)),
    BenchTarget("small on SQLite: jobs/s ÷ plain Celery", "small", 0.5, _rate_over("blobferry sqlite", "celery"), True),
    BenchTarget("small files: jobs/s ÷ plain Celery", "small-files", 1.0, _rate_over(OURS, "celery"), True),
    BenchTarget("200 × 8 MiB: CPU ÷ best running peer", "medium", 1.0, _over(OURS, RUNNING, _cpu)),
    BenchTarget("200 × 8 MiB: wall ÷ plain Celery", "medium", 0.7, _over(OURS, ["celery"], _wall)),
    BenchTarget("submit_many, PostgreSQL, jobs/s", "submit", 5000, _rate("submit_many postgres"), True),
    BenchTarget("submit_many, SQLite, jobs/s", "submit", 3000, _rate("submit_many sqlite"), True),
    BenchTarget("one by one, PostgreSQL, jobs/s", "submit", 600, _rate("one by one postgres"), True),
    BenchTarget("one by one, SQLite, jobs/s", "submit", 400, _rate("one by one sqlite"), True),
    BenchTarget("idle stack, p50, ms", "latency", 60, _more("blobferry postgres", "p50 ms")),
    BenchTarget("idle stack, p99, ms", "latency", 150, _more("blobferry postgres", "p99 ms")),
    BenchTarget("1 GiB, http: CPU ÷ best checking peer", "gib", 0.85, _over(OURS, CHECKING, _cpu)),
    BenchTarget("1 GiB, TLS: CPU ÷ best checking peer", "gib-tls", 0.7, _over(OURS, CHECKING, _cpu)),
    BenchTarget("durability: CPU ÷ engine alone", "gib", 1.03, _over(OURS, ["engine alone"], _cpu)),
    BenchTarget("durability: wall ÷ engine alone", "gib", 1.03, _over(OURS, ["engine alone"], _wall)),
    BenchTarget("5 GiB move: boto3.copy's wall ÷ ours", "move", 3, _rate_over(OURS, "boto3"), True),
    BenchTarget("1 GiB read_stream: wall ÷ best peer", "read", 1.0, _over(OURS, ALL, _wall)),
    BenchTarget("1 GiB read_stream: CPU ÷ best peer", "read", 1.0, _over(OURS, ALL, _cpu)),
    BenchTarget("caretaker, idle, % of a core", "idle", 0.5, _more("blobferry postgres", "caretaker % of a core")),
)


def print_targets(console: Console, results: Sequence[Result]) -> None:
    """The last table: each target, what was measured, and whether that meets it."""
    medians = {result.load.name: result.medians() for result in results}
    table = Table(title="Targets", title_justify="left")
    for column, justify in (("what", "left"), ("target", "right"), ("measured", "right"), ("", "left")):
        table.add_column(column, justify="right" if justify == "right" else "left")
    for target in TARGETS:
        bound = f"{'≥' if target.at_least else '≤'} {target.bound:g}"
        try:
            value = target.figure(medians.get(target.load, {}))
        except NotMeasuredError:
            table.add_row(target.name, bound, "–", "not measured")
            continue
        verdict = target.verdict(value)
        table.add_row(target.name, bound, f"{value:.3g}", verdict, style="green" if verdict == "met" else "red")
    console.print(table)
