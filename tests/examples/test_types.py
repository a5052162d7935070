"""mypy knows the types of Blobferry in the apps of ``examples/``: each passes, and planted mistakes are found.

The apps themselves are part of ``make check``.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dev.stack import CHECKOUT
from tests.examples.test_suites import EXAMPLES

MISTAKES = {
    "fastapi/app.py": (
        ('labels={"app": "films"}, session', 'lables={"app": "films"}, session'),
        ('ferry.url_for(film.path, {"expiry": 3600})', "ferry.url_for(film)"),
        ("values(size=job.size)", "values(size=job.bytes_total)"),
        ("job = await ferry.write_stream", "job = ferry.write_stream"),
    ),
    "flask/app.py": (
        ('labels={"app": "films"}, session', 'lables={"app": "films"}, session'),
        ('url_for(film.path, {"expiry": 3600})', "url_for(film)"),
        ("values(size=job.size)", "values(size=job.bytes_total)"),
        ('safe_path("films", str(row.id)', 'safe_path("films", row.id'),
    ),
    "django/films/views.py": (
        ("from films.models import Film", "from blobferry.django import ferry\nfrom films.models import Film"),
        ("    films = Film.objects", '    ferry.delete("/a", prioritty=3)\n    films = Film.objects'),
        ("    views = {", '    ferry.get("7").bytes_total\n    views = {'),
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("name", MISTAKES)
def test_planted_mistakes_are_found(name: str, tmp_path: Path) -> None:
    app = tmp_path / "app"
    shutil.copytree(EXAMPLES / name.partition("/")[0], app)
    module = app / name.partition("/")[2]
    options = ["--strict", "--allow-subclassing-any", "--hide-error-context"]  # Django has no types
    ignored = ["--disable-error-code", "import-untyped", "--exclude", "test"]
    command = [sys.executable, "-m", "mypy", *options, *ignored, "--cache-dir", str(tmp_path / "cache"), str(module)]

    def errors() -> str:
        environment = {"MYPYPATH": f"{CHECKOUT}:{app}", "PATH": ""}
        done = subprocess.run(command, cwd=app, env=environment, capture_output=True, text=True, timeout=170)
        return done.stdout + done.stderr

    assert errors().startswith("Success"), errors()
    text = module.read_text()
    for right, wrong in MISTAKES[name]:
        assert text.count(right) == 1, right
        text = text.replace(right, wrong)
    module.write_text(text)
    found = errors()
    planted = [wrong.splitlines()[0] for _, wrong in MISTAKES[name] if "import" not in wrong]
    lines = {int(line.split(":")[1]) for line in found.splitlines() if ": error:" in line}
    missed = [wrong for wrong in planted if not lines & lines_of(text, wrong)]
    assert missed == [], found
    assert found.count(": error:") >= len(planted), found


def lines_of(text: str, words: str) -> set[int]:
    """The numbers of the lines that hold the words, and of the next ones: an error may stand at a use."""
    first = text[: text.index(words)].count("\n") + 1
    return set(range(first, first + 3))
