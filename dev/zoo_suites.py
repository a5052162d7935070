"""Run the suites of driver and stores on profiles of the zoo, and print what became of them.

Usage: ``python -m dev.zoo_suites [--profile NAME]… [ARGUMENTS OF PYTEST]``, from the root of a checkout, about two
minutes a profile. The status is 1 if a case fails that tests/zoo_limits.py does not list, or one passes that it lists.
"""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

import click

from dev.zoo import PROFILES

_SUITES: Final = ("-k", "moto", "--numprocesses", "2", "tests/driver", "tests/stores")
_COUNTED: Final = {"passed": "passed", "listed": "xfailed", "failed": "failed", "errors": "errors?"}


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--profile", "profiles", type=click.Choice(list(PROFILES)), multiple=True, help="Default: all.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def main(profiles: Sequence[str], arguments: Sequence[str]) -> None:
    """Run the suites on each profile; then a line each: cases passed, listed exceptions, failures, errors."""
    table = {profile: run(profile, arguments) for profile in profiles or PROFILES}
    click.echo(f"\n{'profile':22} " + " ".join(f"{name:>7}" for name in _COUNTED))
    for profile, (_, summary) in table.items():
        click.echo(f"{profile:22} " + " ".join(f"{counted(summary, word):7}" for word in _COUNTED.values()))
    sys.exit(any(status for status, _ in table.values()))


def run(profile: str, arguments: Sequence[str]) -> tuple[int, str]:
    """The status of pytest, and its last line. What it prints goes to the terminal as it comes."""
    click.echo(f"--- {profile}")
    last = ""
    command = [sys.executable, "-m", "pytest", *_SUITES, *arguments]
    environment = os.environ | {"ZOO_PROFILE": profile}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            click.echo(line, nl=False)
            last = line if line.strip() else last
    return process.returncode, last


def counted(summary: str, word: str) -> int:
    """How many of these pytest's last line tells."""
    found = re.search(rf"(\d+) {word}\b", summary)
    return int(found[1]) if found else 0


if __name__ == "__main__":
    main()
