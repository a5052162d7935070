"""`blobferry listen` as a process that is killed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sqlalchemy import text

from dev.services import wait_until
from tests.client.conftest import CHECKOUT, Site
from tests.client.test_finished import end_now, run


@contextmanager
def listening(site: Site, log: Path) -> Iterator[IO[str]]:
    """The command, until it is killed with SIGKILL; what it prints."""
    command = [sys.executable, "-m", "blobferry", "listen", "shop", "--interval", "0.05", "--label", "app=shop"]
    with log.open("w") as output, log.open() as printed:
        process = subprocess.Popen(command, env=site.environment(), cwd=CHECKOUT, stdout=output)
        try:
            yield printed
        finally:
            process.kill()
            process.wait()


def paths(printed: IO[str]) -> list[str]:
    return [json.loads(line)["path"] for line in printed]


def test_a_killed_listener_goes_on_with_what_ended_meanwhile(site: Site, tmp_path: Path) -> None:
    def kept() -> str | None:
        with site.database.read() as session:
            found = session.scalar(text("SELECT position FROM blobferry_listeners"))
        return None if found is None else str(found)

    def is_through() -> bool:
        with site.client() as client:
            return not client.finished(after=kept(), labels={"app": "shop"}).jobs

    with listening(site, tmp_path / "first") as printed:
        wait_until(kept, 30, "the listener")
        end_now(site, *run(site, "/1", "/2", app="shop"), *run(site, "/other", app="blog"))
        wait_until(is_through, 30, "the end of the last page")
        assert paths(printed) == ["/1", "/2"]
    end_now(site, *run(site, "/3", app="shop"))
    with listening(site, tmp_path / "second") as printed:
        wait_until(lambda: (tmp_path / "second").read_text().endswith("\n"), 30, "a line")
        assert paths(printed) == ["/3"]
