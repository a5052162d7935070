"""``make chaos SEED=n MINUTES=m``: everything goes wrong for some minutes; then every job must be right."""

import logging
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import click
from rich.console import Console

from dev.chaos.fault_plan import draw_plan
from dev.chaos.run import run


@click.command()
@click.option("--seed", default=1, show_default=True, help="Decides on the jobs and the faults.")
@click.option("--minutes", default=2.0, show_default=True, help="How long faults are injected.")
@click.option("--directory", type=click.Path(path_type=Path), help="Where logs and data lie, and are then kept.")
def main(seed: int, minutes: float, directory: Path | None) -> None:
    """Run it. Exit status 0 only if all is well; else the logs are kept."""
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)
    logging.getLogger("blobferry").setLevel(logging.ERROR)  # that the broker is away is no news here
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    work = directory or Path(tempfile.mkdtemp(prefix="blobferry-chaos-"))
    work.mkdir(parents=True, exist_ok=True)
    work.chmod(0o755)  # the database server may be another user
    is_well = run(draw_plan(seed, minutes * 60), work, console)
    if is_well and directory is None:
        shutil.rmtree(work)
    else:
        console.print(f"logs and data: {work}")
    sys.exit(0 if is_well else 1)


if __name__ == "__main__":
    main()
