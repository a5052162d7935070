"""``make bench-sql``: ``python -m bench.sql_fills``: what the statements of a job's life cost on full tables.

On an empty table, with 100,000 jobs queued and 1,000,000 finished, and with 500,000 scheduled for tomorrow; on
PostgreSQL and SQLite. The functions are those of models/queries, and what is shown are ratios to the empty table. See
``agents/statements.py``.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.table import Table

from bench.ferry_stack import ferry_stack
from bench.stage import ROOT, Options, Stage, end_politely, open_stage

FILLS: Final = ("empty", "finished", "scheduled")
KINDS: Final = ("postgres", "sqlite")
BOUNDS: Final = {"postgres": 1.3, "sqlite": 1.5}  #: the target of each ratio
QUEUED: Final = 100_000  #: rows at scale 1, and below
FINISHED: Final = 1_000_000
SCHEDULED: Final = 500_000
NOISE: Final = 0.5  #: milliseconds: what is less than this above the empty table is within the target

Times = Mapping[str, float]


@click.command()
@click.option("--scale", default=1.0, show_default=True, help="Of the rows; 1 is the whole of them.")
@click.option("--repeats", default=15, show_default=True, help="Calls of each function; the lower quartile counts.")
@click.option("--kinds", default=",".join(KINDS), show_default=True, help="Databases, separated by commas.")
@click.option("--checkout", default=ROOT, type=click.Path(path_type=Path, exists=True), help="Whose code is measured.")
@click.option("--json", "report", default=ROOT / ".bench" / "sql.json", type=click.Path(path_type=Path))
def main(scale: float, repeats: int, kinds: str, checkout: Path, report: Path) -> None:
    """Measure, and print a table for each database."""
    end_politely()
    console = Console(highlight=False)
    options = Options(scale=scale, rounds=1, checkout=checkout.resolve(), store="sink")
    found: dict[str, dict[str, Times]] = {}
    with open_stage(options) as stage:
        for kind in kinds.split(","):
            found[kind] = {fill: _measured(stage, kind, fill, repeats, console) for fill in FILLS}
            _print(console, kind, found[kind], scale)
    report.parent.mkdir(parents=True, exist_ok=True)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    report.write_text(json.dumps({"at": at, "scale": scale, "milliseconds": found}, indent=1))
    console.print(f"written to {report}")


def _measured(stage: Stage, kind: str, fill: str, repeats: int, console: Console) -> Times:
    rows = {"queued": QUEUED, "finished": FINISHED, "scheduled": SCHEDULED}
    sizes = {name: stage.scaled(count) for name, count in rows.items()}
    with ferry_stack(stage, kind) as stack:
        times = stack.ask("statements.py", fill=fill, repeats=repeats, **sizes)
    console.print(f"{kind}, {fill}: " + ", ".join(f"{name} {value:.2f} ms" for name, value in times.items()))
    return {name: float(value) for name, value in times.items()}


def _print(console: Console, kind: str, found: Mapping[str, Times], scale: float) -> None:
    title = (
        f"{kind}: {QUEUED * scale:,.0f} queued + {FINISHED * scale:,.0f} finished, {SCHEDULED * scale:,.0f} scheduled"
    )
    table = Table(title=title, title_justify="left")
    for column in ("what", "empty, ms", "× finished", "× scheduled", f"target ≤ {BOUNDS[kind]:g}"):
        table.add_column(column, justify="left" if column in ("what",) else "right")
    for name, empty in found["empty"].items():
        others = [found[fill][name] for fill in FILLS[1:]]
        is_met = all(other <= max(BOUNDS[kind] * empty, empty + NOISE) for other in others)
        ratios = [f"{other / empty:.2f}" for other in others]
        table.add_row(name, f"{empty:.2f}", *ratios, "met" if is_met else "missed", style="" if is_met else "red")
    console.print(table)


if __name__ == "__main__":
    main()
