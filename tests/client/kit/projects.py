"""Small projects that use the test kit, run by a pytest of their own: what docs/testing.md shows, and apps behind it.

A project sees the client as its wheel lays it out, with its entry points, and nothing else unless asked.
"""

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.client.conftest import CHECKOUT

PAGE: Final = CHECKOUT / "docs" / "testing.md"
CLIENT: Final = ("blobferry", "pytest_blobferry.py")
WORKER: Final = ("worker", "tasks", "models", "alembic", "alembic.ini")
#: A conftest without a worker, wherever the environment has one: as where the client's wheel alone is installed.
CLIENT_ALONE: Final = """
import sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"worker", "models", "tasks", "boto3", "alembic", "pydantic_settings"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refused())
"""


def section_files(title: str) -> dict[str, str]:
    """The files of a section of the page: blocks of Python whose first line is a comment with the name."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.split(r"(?m)^##? ([A-Z].*)\n", text)
    section = dict(zip(found[1::2], found[2::2], strict=True))[title]
    blocks = re.findall(r"(?ms)^```python\n# (\S+\.py)\n(.*?)^```$", section)
    assert section.count("```python") == len(blocks), "a block without a name would not be tested"
    return dict(blocks)


def python_blocks(page: str) -> list[str]:
    """The blocks of Python of another page, up to what it shows of tests: they are one app."""
    text = PAGE.with_name(page).read_text(encoding="utf-8").partition("In tests")[0]
    return re.findall(r"(?ms)^```python\n(.*?)^```$", text)


def installed(directory: Path, *, with_worker: bool = False) -> Path:
    """A folder for ``sys.path`` that has what the wheels would install."""
    folder = directory / ("both" if with_worker else "client")
    if folder.exists():
        return folder
    folder.mkdir()
    for name in (*CLIENT, *(WORKER if with_worker else ())):
        (folder / name).symlink_to(CHECKOUT / name)
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    metadata = folder / "blobferry-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: blobferry\nVersion: 0\n")
    lines = ["[pytest11]", *(f"{name} = {module}" for name, module in project["entry-points"]["pytest11"].items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    return folder


def import_path(folder: Path) -> str:
    """The folder, before what is on the path of these tests, but for the checkout."""
    others = (entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry)
    return os.pathsep.join([str(folder), *(entry for entry in others if Path(entry).resolve() != CHECKOUT)])


def run_project(
    pytester: pytest.Pytester, files: Mapping[str, str], *options: str, ini: Sequence[str] = ()
) -> pytest.RunResult:
    """Write the files and run pytest on them; a warning is an error there."""
    for name, text in files.items():
        path = pytester.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (pytester.path / "pytest.ini").write_text("\n".join(["[pytest]", "filterwarnings = error", *ini]))
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *options, timeout=120)
