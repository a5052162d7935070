"""The tests of a project stay in its test database: nothing of them reaches the real one, or the broker."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.client.conftest import CHECKOUT, Site
from tests.django.conftest import as_in_settings

MANAGE = Path(__file__).parent / "project" / "manage.py"


def manage(site: Site, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run manage.py of the project on this database and broker."""
    command, variables = [sys.executable, "-W", "error", str(MANAGE), *arguments], _variables(site, environment)
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)


@contextmanager
def started_manage(site: Site, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The same, while it runs; killed on the way out."""
    command, variables = [sys.executable, "-W", "error", str(MANAGE), *arguments], _variables(site, environment)
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=variables, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def _variables(site: Site, environment: Mapping[str, str]) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(CHECKOUT),
        "PROJECT_DATABASE": json.dumps(as_in_settings(site.url)),
        "PROJECT_BROKER_URL": site.broker_url,
        **environment,
    }


def test_a_projects_tests_touch_nothing_real(site: Site, sqlite_url: str, tmp_path: Path) -> None:
    outside = f"sqlite:///{tmp_path}/other.db"
    (tmp_path / "other.db").write_bytes(Path(sqlite_url.removeprefix("sqlite:///")).read_bytes())
    done = manage(site, "test", "shop.suite", "--noinput", PROJECT_OTHER_URL=outside)
    assert done.returncode == 0, done.stderr
    assert "Ran 11 tests" in done.stderr
    assert (site.rows(), site.messages()) == ([], [])
