"""The wheels: web apps install the package ``blobferry`` and nothing else of ours; the worker is another wheel."""

import re
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from os import environ
from pathlib import Path

import pytest

from blobferry import __version__
from dev.process import ServiceProcess, running
from dev.services import Service, valkey

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("worker", "tasks", "models")


def built(project: Path, directory: Path) -> Path:
    """Built from this checkout by the tools of this environment, so that nothing is fetched."""
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", directory, project)
    (wheel,) = directory.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def worker_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(ROOT / "packaging" / "worker", tmp_path_factory.mktemp("worker-wheel"))


def run(*command: str | Path, **means: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **means)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def contents(wheel: Path) -> dict[str, bytes]:
    """What it holds, by name."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def requirements(packed: dict[str, bytes]) -> tuple[set[str], set[str], list[str]]:
    """What it needs always, what its extras need, and all lines of its metadata."""
    (metadata,) = (content for name, content in packed.items() if name.endswith(".dist-info/METADATA"))
    lines = metadata.decode().splitlines()
    needs = {line.partition(": ")[2] for line in lines if line.startswith("Requires-Dist: ")}
    extra = {need for need in needs if "extra ==" in need}
    return needs - extra, extra, lines


@pytest.fixture(scope="module")
def packed(wheel: Path) -> dict[str, bytes]:
    return contents(wheel)


def modules(*packages: str) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for name in packages for path in (ROOT / name).rglob("*.py")}


def test_the_wheel_holds_every_module_of_blobferry_and_no_other_package(packed: dict[str, bytes]) -> None:
    packages = {name.partition("/")[0] for name in packed}
    assert {name for name in packages if not name.endswith(".dist-info")} == {"blobferry", "pytest_blobferry.py"}
    migrations = {f"blobferry/migrations/{path.name}" for path in (ROOT / "alembic" / "versions").glob("*.py")}
    assert {name for name in packed if name.endswith(".py")} == modules("blobferry") | migrations | {
        "pytest_blobferry.py"
    }
    (entry_points,) = (text.decode() for name, text in packed.items() if name.endswith("/entry_points.txt"))
    assert "[pytest11]\nblobferry = pytest_blobferry" in entry_points
    assert "blobferry/py.typed" in packed
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in packed)


def test_the_wheel_asks_for_no_more_than_a_client_needs(packed: dict[str, bytes]) -> None:
    needs, extra, lines = requirements(packed)
    names = set(re.findall(r"(?m)^[\w\[\]-]+", "\n".join(needs)))
    assert names == {"celery[redis]", "kombu", "sqlalchemy", "click", "rich"}
    extras = {line.partition(": ")[2] for line in lines if line.startswith("Provides-Extra")}
    assert extras == {"django", "encryption", "fastapi", "flask", "postgresql", "signing", "webhooks"}
    named = {re.split("[<>]", need)[0] for need in extra}
    clients = {"botocore", "cryptography", "django", "fastapi", "flask", "psycopg[binary]", "standardwebhooks"}
    assert named == clients
    assert f"Version: {__version__}" in lines


def test_pytest_finds_the_plugin_of_the_wheel(wheel: Path, tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    run(*pip, tmp_path / "site-packages", wheel)
    test = tmp_path / "test_app.py"
    test.write_text("def test_it(blobferry_kit):\n    blobferry_kit.finish(blobferry_kit.ferry.delete('/a'))\n")
    variables = environ | {"PYTHONPATH": str(tmp_path / "site-packages")}
    pytest_alone = [sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", "-c", "/dev/null"]
    assert "1 passed" in run(*pytest_alone, "--rootdir", tmp_path, test, env=variables, cwd=tmp_path)


def test_the_workers_wheel_holds_worker_tasks_models_and_migrations(worker_wheel: Path) -> None:
    packed = contents(worker_wheel)
    scripts = {f"models/{name}" for name in modules("alembic")}
    assert {name for name in packed if name.endswith(".py")} == {"blobferry_worker.py", *modules(*PACKAGES), *scripts}
    needs, extra, lines = requirements(packed)
    assert f"blobferry=={__version__}" in needs
    assert {"alembic", "boto3", "pydantic-settings"} <= {re.split(r"[\[<>=]", need)[0] for need in needs}
    assert extra == set()
    assert f"Version: {__version__}" in lines


@pytest.fixture(scope="module")
def installed_once(worker_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed") / "site-packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    run(*pip, folder, worker_wheel)
    return folder


@pytest.fixture
def installed(installed_once: Path, tmp_path: Path) -> Path:
    """A folder with the worker's wheel; what it needs is in this environment."""
    return Path(shutil.copytree(installed_once, tmp_path / "site-packages"))


def answer(installed: Path, *words: str, path: tuple[Path, ...] = (), cwd: Path = ROOT) -> str:
    """What the command says, whatever its status."""
    variables = environ | {"PYTHONPATH": ":".join(map(str, (*path, installed, ROOT)))}
    command = [sys.executable, *words]
    done = subprocess.run(command, env=variables, cwd=cwd, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


COMMAND = ("-P", "-m", "blobferry_worker", "--version")


def test_the_command_runs_where_it_is_alone(installed: Path) -> None:
    assert answer(installed, *COMMAND) == f"blobferry-worker {__version__}\n"


@pytest.mark.parametrize("name", PACKAGES)
@pytest.mark.parametrize("file", ["__init__.py", "user.py"], ids=["replaced", "added"])
def test_it_refuses_packages_that_another_wheel_has_written_into(installed: Path, name: str, file: str) -> None:
    (installed / name / file).write_text('"""Of an app."""')
    said = answer(installed, *COMMAND)
    assert str(installed / name / file) in said
    assert "needs an environment of its own: pipx install blobferry-worker" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("name", ["tasks", "models"])
def test_it_refuses_a_package_of_an_app_that_comes_first_on_the_path(
    installed: Path, tmp_path: Path, name: str
) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / f"{name}.py").write_text('"""Of an app."""')
    for words, path, cwd in [(COMMAND, (app,), ROOT), (("-m", "worker", "--version"), (), app)]:
        said = answer(installed, *words, path=path, cwd=cwd)
        assert f"the package {name} is {app / name}.py" in said
        assert "needs an environment of its own" in said


def test_the_caretaker_takes_no_package_from_the_current_directory(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text("raise SystemExit('an app')")
    script = "import runpy, sys; from worker.celery.caretaker_process import COMMAND; print(COMMAND[3])"
    code = answer(installed, "-P", "-c", script).strip()
    assert "Usage:" in answer(installed, "-P", "-c", code, "--help", cwd=tmp_path)


@pytest.mark.long
def test_installing_it_adds_one_package_and_one_command(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path, with_pip=True)
    (packages,) = tmp_path.glob("lib/python*/site-packages")
    before = set(packages.iterdir())
    run(tmp_path / "bin" / "python", "-m", "pip", "install", "--no-deps", "--no-index", wheel)
    added = {path.name for path in set(packages.iterdir()) - before if not path.name.endswith(".dist-info")}
    assert added == {"blobferry", "pytest_blobferry.py"}
    assert (tmp_path / "bin" / "blobferry").exists()


@pytest.fixture(scope="module")
def client_bin(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the client alone, on the oldest libraries that it allows."""
    needs, _, _ = requirements(contents(wheel))
    oldest = [re.sub(r">=([\d.]+)", r"==\1", need.replace(",<6", "").replace("<6,", "")) for need in needs]
    return environment(tmp_path_factory.mktemp("client"), wheel, *oldest)


@pytest.fixture(scope="module")
def worker_bin(wheel: Path, worker_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the worker alone."""
    return environment(tmp_path_factory.mktemp("worker"), wheel, worker_wheel)


def environment(folder: Path, *needs: str | Path) -> Path:
    venv.create(folder, with_pip=True)
    run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", *needs)
    return folder / "bin"


@pytest.fixture
def variables(tmp_path: Path) -> Iterator[dict[str, str]]:
    with valkey() as broker:
        yield {
            "PATH": environ["PATH"],
            "BLOBFERRY_DATABASE_URL": f"sqlite:///{tmp_path / 'jobs.db'}",
            "BLOBFERRY_BROKER_URL": broker.url,
            "BLOBFERRY_STORAGES__DEFAULT__DRIVER": "local",
            "BLOBFERRY_STORAGES__DEFAULT__ROOTDIRECTORY": str(tmp_path / "blobs"),
            "BLOBFERRY_SOURCES__FILE_ROOTS": f'["{tmp_path}"]',
        }


@pytest.mark.long
@pytest.mark.timeout(900)
def test_both_wheels_run_a_job_in_clean_environments(
    client_bin: Path, worker_bin: Path, variables: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "7.mp4").write_bytes(b"bytes of a video")
    (tmp_path / "worker.py").write_text("raise SystemExit('a module of an app')")  # in the directory of the worker
    means = {"env": variables, "cwd": tmp_path}
    run(worker_bin / "blobferry-worker", "migrate", **means)
    run(worker_bin / "blobferry-worker", "doctor", **means)
    log = tmp_path / "worker.log"
    process = ServiceProcess(
        "worker",
        [str(worker_bin / "blobferry-worker"), "run"],
        log=log,
        answers=lambda: " ready." in log.read_text(),
        stop_group=False,
        environment=variables,
    )
    with running(Service(processes=(process,))):
        run(client_bin / "blobferry", "write", tmp_path / "7.mp4", "/videos/7.mp4", "--wait", **means)
        assert "16 B" in run(client_bin / "blobferry", "stat", "/videos/7.mp4", **means)
        script = (
            "import sys; from blobferry import Client; c = Client.from_env(); print(c.get_content('/videos/7.mp4'))"
        )
        assert run(client_bin / "python", "-W", "error", "-c", script, **means) == "b'bytes of a video'\n"
    assert "caretaker ended" not in log.read_text()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_migrations_join_an_apps_alembic_from_the_installed_client(worker_bin: Path, tmp_path: Path) -> None:
    run(worker_bin / "alembic", "init", tmp_path / "alembic", cwd=tmp_path)
    ini = tmp_path / "alembic.ini"
    ours = "version_locations = %(here)s/alembic/versions:blobferry:migrations"
    text = ini.read_text().replace("driver://user:pass@localhost/dbname", f"sqlite:///{tmp_path / 'app.db'}")
    ini.write_text(
        text.replace("[alembic]\n", f"[alembic]\n{ours.replace(':blobferry', chr(10) + '  blobferry')}\n", 1)
    )
    ini.write_text(ini.read_text().replace("path_separator = os", "path_separator = newline"))
    run(worker_bin / "alembic", "upgrade", "heads", cwd=tmp_path)
    assert "0001" in run(worker_bin / "alembic", "history", cwd=tmp_path)
    assert (tmp_path / "app.db").stat().st_size > 50_000
