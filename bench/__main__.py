"""``make bench``: ``python -m bench --loads small,gib --rounds 5 --scale 0.1``."""

from pathlib import Path

import click
from rich.console import Console

from bench.interleaved_rounds import run_rounds
from bench.loads.catalogue import LOADS
from bench.result_tables import print_load, write_json
from bench.stage import ROOT, Options, end_politely, open_stage
from bench.targets import print_targets


@click.command()
@click.option("--loads", default="all", show_default=True, help=f"Of {', '.join(LOADS)}, separated by commas.")
@click.option("--only", default="", help="Contenders by name, separated by commas. Default: all.")
@click.option("--rounds", default=3, show_default=True, help="Each round has every contender once.")
@click.option("--scale", default=0.1, show_default=True, help="Of counts and sizes; 1 is the whole load.")
@click.option("--checkout", default=ROOT, type=click.Path(path_type=Path, exists=True), help="Whose code is measured.")
@click.option("--store", default="sink", type=click.Choice(["sink", "swift"]), show_default=True)
@click.option("--json", "report", default=ROOT / ".bench" / "report.json", type=click.Path(path_type=Path))
def main(loads: str, only: str, rounds: int, scale: float, checkout: Path, store: str, report: Path) -> None:
    """Measure Blobferry beside its peers, and print the medians."""
    names = list(LOADS) if loads == "all" else loads.split(",")
    if unknown := [name for name in names if name not in LOADS]:
        raise click.UsageError(f"no such load: {', '.join(unknown)}; there are {', '.join(LOADS)}")
    end_politely()
    console = Console(highlight=False)
    contenders = tuple(name for name in only.split(",") if name)
    options = Options(scale=scale, rounds=rounds, checkout=checkout.resolve(), store=store, contenders=contenders)
    results = []
    with open_stage(options) as stage:
        for name in names:
            result = run_rounds(stage, LOADS[name], console)
            print_load(console, result)
            results.append(result)
            write_json(report, stage, results)
    print_targets(console, results)
    console.print(f"written to {report}")


if __name__ == "__main__":
    main()
