"""The package as an app meets it: what its import loads, what it exports, and what help() shows."""

import inspect
import os
import pydoc
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import blobferry
from blobferry import Client, NewJob, errors
from blobferry.cli import main as command
from blobferry.jobs.job_options import JobOptions, RequestOptions, WriteOptions, WriteRequestOptions
from worker.__main__ import main as worker_command

CHECKOUT = Path(__file__).parents[2]
HEAVY = {"alembic", "asyncio", "billiard", "celery", "click", "cryptography", "kombu", "psycopg", "rich", "sqlalchemy"}
CELERY = {"billiard", "celery", "kombu", "click", "rich"}
DATABASE = "from blobferry import Client; client = Client(database_url='sqlite:///nowhere.db'{})"


def loaded_by(script: str) -> set[str]:
    """The packages that a fresh interpreter has loaded after the script."""
    show = "; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-c", script + show]
    return set(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split())


def test_import_blobferry_loads_none_of_what_takes_long() -> None:
    assert loaded_by("import blobferry") & HEAVY == set()


def test_a_client_without_a_broker_loads_no_celery() -> None:
    assert loaded_by(DATABASE.format("")) & CELERY == set()
    assert "celery" in loaded_by(DATABASE.format(", broker_url='redis://127.0.0.1:1/0'"))


def test_every_error_is_exported() -> None:
    names = {name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)}
    assert names <= set(blobferry.__all__)
    assert all(getattr(blobferry, name) is getattr(errors, name) for name in names)


def test_everything_that_is_exported_is_there_and_nothing_else() -> None:
    assert [name for name in blobferry.__all__ if not hasattr(blobferry, name)] == []
    assert set(blobferry.__all__) <= set(dir(blobferry))
    with pytest.raises(AttributeError, match="module 'blobferry' has no attribute 'Clinet'"):
        _ = blobferry.Clinet


@pytest.mark.parametrize(("main", "name"), [(command, "blobferry"), (worker_command, "blobferry-worker")])
def test_both_commands_say_their_version(main: Any, name: str) -> None:
    assert CliRunner().invoke(main, ["--version"]).output == f"{name} {blobferry.__version__}\n"


def test_the_version_of_the_wheel_is_that_of_the_package() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["hatch"]["version"]["path"] == "blobferry/__init__.py"


def test_help_prints_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET_OF_THE_APP", "hunter2")
    script = "import pydoc; from blobferry import Client; print(pydoc.plain(pydoc.render_doc(Client)))"
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    shown = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert "from_env(environ" in shown.stdout
    assert "hunter2" not in shown.stdout


def test_from_env_reads_the_environment_of_now(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BLOBFERRY_DATABASE_URL", f"sqlite:///{tmp_path / 'now.db'}")
    Client.from_env().close()
    with pytest.raises(errors.ConfigurationError, match="BLOBFERRY_DATABASE_URL"):
        Client.from_env({})


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (Client.put_content, WriteOptions),
        (Client.write_stream, WriteOptions),
        (Client.read_stream, JobOptions),
        (Client.move, JobOptions),
        (Client.delete, JobOptions),
        (NewJob.put_content, WriteRequestOptions),
        (NewJob.write_stream, WriteRequestOptions),
        (NewJob.read_stream, RequestOptions),
        (NewJob.move, RequestOptions),
        (NewJob.delete, RequestOptions),
    ],
)
def test_help_lists_every_option_of_a_submit(method: Callable[..., Any], options: type) -> None:
    signature = pydoc.plain(pydoc.render_doc(method)).splitlines()[2]
    assert [name for name in inspect.get_annotations(options) if f"{name}: " not in signature] == []
    assert "**" not in signature
