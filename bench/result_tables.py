"""What was measured, as tables and as JSON."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench.interleaved_rounds import Result
from bench.peer_environments import PEERS
from bench.stage import Stage

MIB: Final = 1024 * 1024


def print_load(console: Console, result: Result) -> None:
    """A table of one load: medians, and their ratios to the first contender."""
    load = result.load
    table = Table(title=load.title, title_justify="left")
    columns = ("contender", f"{load.unit}/s", "×", f"CPU ms/{load.unit}", "×", "peak MiB", "requests and more")
    for column in columns:
        table.add_column(column, justify="left" if column in ("contender", columns[-1]) else "right")
    names = [contender.name for contender in load.contenders]
    medians = {name: found for name in names if (found := result.median(name)) is not None}
    first = next(iter(medians.values()), None)
    for name in names:
        if (found := medians.get(name)) is not None and first is not None:
            more = ", ".join(f"{value:.3g} {key}" for key, value in found.more.items())
            table.add_row(
                name,
                f"{found.rate:.3g}",
                _ratio(found.rate, first.rate),
                f"{found.cpu_per_unit * 1000:.4g}",
                _ratio(found.cpu_per_unit, first.cpu_per_unit),
                f"{found.memory / MIB:.0f}",
                more,
            )
        elif name in result.missing:
            table.add_row(name, "–", "", "–", "", "", result.missing[name].splitlines()[0])
    console.print(table)


def _ratio(value: float, first: float) -> str:
    return f"{value / first:.2f}" if first else ""


def write_json(path: Path, stage: Stage, results: Sequence[Result]) -> None:
    """Everything, also of single rounds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_report(stage, results), indent=1))


def _report(stage: Stage, results: Sequence[Result]) -> dict[str, Any]:
    options = stage.options
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpus": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "load_average": os.getloadavg()[0],
        "scale": options.scale,
        "rounds": options.rounds,
        "store": options.store,
        "peers": {name: stage.peers.version(name) for name in PEERS},
        "loads": {
            result.load.name: {
                "title": result.load.title,
                "unit": result.load.unit,
                "missing": result.missing,
                "measured": {name: [asdict(found) for found in rounds] for name, rounds in result.measured.items()},
            }
            for result in results
        },
    }
