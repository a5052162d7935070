"""Each app of ``examples/`` has tests of its own, as an app of yours would: they pass, and its page is short."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dev.stack import CHECKOUT

EXAMPLES = CHECKOUT / "examples"
LONGEST = 150  #: lines of an app: its code and its pages, without settings and tests
SUITES = {
    "django": (sys.executable, "manage.py", "test"),
    "fastapi": (sys.executable, "-m", "pytest", "-p", "no:cacheprovider"),
    "flask": (sys.executable, "-m", "pytest", "-p", "no:cacheprovider"),
}
NOT_THE_APP = ("manage.py", "settings.py", "test_app.py", "tests.py", "0001_initial.py")

pytestmark = pytest.mark.no_cover


@pytest.mark.parametrize("name", SUITES)
def test_the_apps_own_tests_pass(name: str, tmp_path: Path) -> None:
    variables = {
        "BLOBFERRY_DATABASE_URL": f"sqlite:///{tmp_path}/films.db",
        "BLOBFERRY_BROKER_URL": "redis://127.0.0.1:1/0",
        "BLOBFERRY_SPOOL_DIR": str(tmp_path),
        "SECRET_KEY": "of a test",
        "PYTHONPATH": str(CHECKOUT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        SUITES[name], cwd=EXAMPLES / name, env=os.environ | variables, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout or "Ran 2 tests" in done.stderr


@pytest.mark.parametrize("name", SUITES)
def test_the_app_is_short(name: str) -> None:
    files = [path for path in (EXAMPLES / name).rglob("*") if path.suffix in {".py", ".html"}]
    assert files
    app = [path.read_text().count("\n") for path in files if path.name not in NOT_THE_APP]
    assert sum(app) < LONGEST, app
