"""The wheel: what a web app installs is the package ``blobferry`` and nothing else of ours."""

import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from blobferry import __version__

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from this checkout by the tools of this environment, so that nothing is fetched."""
    directory = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", directory, ROOT)
    (wheel,) = directory.glob("*.whl")
    return wheel


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def packed(wheel: Path) -> dict[str, bytes]:
    """What it holds, by name."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_holds_every_module_of_blobferry_and_no_other_package(packed: dict[str, bytes]) -> None:
    packages = {name.partition("/")[0] for name in packed}
    assert {name for name in packages if not name.endswith(".dist-info")} == {"blobferry"}
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "blobferry").rglob("*.py")}
    assert {name for name in packed if name.endswith(".py")} == modules
    assert "blobferry/py.typed" in packed
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in packed)


def test_the_wheel_asks_for_no_more_than_a_client_needs(packed: dict[str, bytes]) -> None:
    (metadata,) = (content for name, content in packed.items() if name.endswith(".dist-info/METADATA"))
    lines = metadata.decode().splitlines()
    needs = {line.partition(": ")[2] for line in lines if line.startswith("Requires-Dist: ")}
    extra = {need for need in needs if "extra ==" in need}
    names = set(re.findall(r"(?m)^[\w\[\]-]+", "\n".join(needs - extra)))
    assert names == {"celery[redis]", "kombu", "sqlalchemy", "click", "rich"}
    extras = {line.partition(": ")[2] for line in lines if line.startswith("Provides-Extra")}
    assert extras == {"encryption", "postgresql"}
    assert {need.partition(">")[0] for need in extra} == {"cryptography", "psycopg[binary]"}
    assert f"Version: {__version__}" in lines


@pytest.mark.long
def test_installing_it_adds_one_package_and_one_command(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path, with_pip=True)
    (packages,) = tmp_path.glob("lib/python*/site-packages")
    before = set(packages.iterdir())
    run(tmp_path / "bin" / "python", "-m", "pip", "install", "--no-deps", "--no-index", wheel)
    added = {path.name for path in set(packages.iterdir()) - before if not path.name.endswith(".dist-info")}
    assert added == {"blobferry"}
    assert (tmp_path / "bin" / "blobferry").exists()
