"""The tests of a project stay in its test database: nothing of them reaches the real one, or the broker."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.client.conftest import CHECKOUT, Site
from tests.django.conftest import as_in_settings

MANAGE = Path(__file__).parent / "project" / "manage.py"


def manage(site: Site, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run manage.py of the project on this database and broker."""
    variables = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(CHECKOUT),
        "PROJECT_DATABASE": json.dumps(as_in_settings(site.url)),
        "PROJECT_BROKER_URL": site.broker_url,
        **environment,
    }
    command = [sys.executable, "-W", "error", str(MANAGE), *arguments]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)


def test_a_projects_tests_touch_nothing_real(site: Site, sqlite_url: str, tmp_path: Path) -> None:
    outside = f"sqlite:///{tmp_path}/other.db"
    (tmp_path / "other.db").write_bytes(Path(sqlite_url.removeprefix("sqlite:///")).read_bytes())
    done = manage(site, "test", "shop.suite", "--noinput", PROJECT_OTHER_URL=outside)
    assert done.returncode == 0, done.stderr
    assert "Ran 10 tests" in done.stderr
    assert (site.rows(), site.messages()) == ([], [])
