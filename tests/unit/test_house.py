"""The rules of the house that no tool checks for us. Import directions are import-linter's, in pyproject.toml."""

import ast
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.no_cover  # it reads the code and runs none of it

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("blobferry", "tasks", "worker", "models")
MODULES = sorted(path.relative_to(ROOT) for folder in SHIPPED for path in (ROOT / folder).rglob("*.py"))
TOOLS = ("dev", "bench")
OURS = sorted([*MODULES, *(path.relative_to(ROOT) for folder in TOOLS for path in (ROOT / folder).rglob("*.py"))])

READERS_OF_THE_ENVIRONMENT = {
    Path("worker/settings/__init__.py"),
    Path("blobferry/client.py"),
    Path("blobferry/flask/flask_ferry.py"),  # it makes the client, from the app's config first
}
SIGNERS = {Path("blobferry/signing/s3_signer.py")}
MAX_LINES = 250
WRITTEN_BY_A_PROGRAM = {Path("blobferry/async_client.py")}  # as long as what it is written from
MORE_LINES = {
    Path("blobferry/errors.py"): 385,  # one tree, in one place: splitting it would cost more than it gives
    Path("blobferry/client.py"): 320,  # every call that apps make, one line each below what it promises
}
PUBLIC_FACES = {Path("worker/errors.py")}  # of blobferry/errors.py
PRESCRIBED_MODULES = {Path("blobferry/django/storage.py")}  # storages of Django's lie in a module of that name
PRESCRIBED_CLASSES = {"Command", "Migration"}  # Django finds each command, and each migration, by it
# They say nothing about what is inside, so everything ends up there.
EMPTY_NAMES = {"common", "helper", "helpers", "misc", "util", "utils"}


def names(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=str)


def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=str(path))


def repeated(names: Iterable[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def environment_reads(module: ast.Module) -> Iterator[int]:
    """The lines that name ``os.environ`` or ``os.getenv``, by whatever way they were imported."""
    doors = {"environ", "environb", "getenv", "getenvb"}
    aliases = {
        name.asname or name.name
        for node in ast.walk(module)
        if isinstance(node, ast.Import)
        for name in node.names
        if name.name == "os"
    }
    for node in ast.walk(module):
        match node:
            case ast.Attribute(value=ast.Name(id=base), attr=name) if base in aliases and name in doors:
                yield node.lineno
            case ast.ImportFrom(module="os") if any(name.name in doors for name in node.names):
                yield node.lineno


def imported_packages(module: ast.Module) -> set[str]:
    """The top-level names of everything imported absolutely."""
    names = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


@names([path for path in MODULES if path not in READERS_OF_THE_ENVIRONMENT])
def test_only_settings_and_the_client_read_the_environment(path: Path) -> None:
    assert list(environment_reads(tree(path))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.environ['A']",
        "import os as system\nsystem.getenv('A')",
        "from os import environ as variables\nvariables['A']",
        "import os.path\nimport os\nif os.environ.get('A'): pass",
    ],
)
def test_reading_the_environment_is_seen_however_it_is_spelled(source: str) -> None:
    assert list(environment_reads(ast.parse(source)))


@names([path for path in MODULES if not path.match("worker/stores/s3/*.py") and path not in SIGNERS])
def test_only_the_s3_store_and_the_signer_know_boto(path: Path) -> None:
    assert imported_packages(tree(path)) & {"boto3", "botocore"} == set()


@names([path for path in OURS if path not in WRITTEN_BY_A_PROGRAM])
def test_a_module_is_short(path: Path) -> None:
    assert len((ROOT / path).read_text(encoding="utf-8").splitlines()) <= MORE_LINES.get(path, MAX_LINES)


@names(OURS)
def test_a_name_says_what_is_inside(path: Path) -> None:
    assert not EMPTY_NAMES & set(path.with_suffix("").parts)
    classes = [node.name for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)]
    assert [name for name in classes if name.endswith("Manager")] == []


def test_no_two_modules_share_a_name() -> None:
    """A newcomer finds a room by its name. The exceptions are the other's public face, and what Django prescribes."""
    excepted = PUBLIC_FACES | PRESCRIBED_MODULES
    modules = [path for path in OURS if path.stem not in ("__init__", "__main__") and path not in excepted]
    assert repeated(path.stem for path in modules) == []


def test_no_two_classes_share_a_name() -> None:
    classes = (node.name for path in OURS for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef))
    assert repeated(name for name in classes if name not in PRESCRIBED_CLASSES) == []


def test_alembic_is_no_package() -> None:
    """It would shadow the library of that name."""
    assert not (ROOT / "alembic" / "__init__.py").exists()


def test_no_folder_of_tests_is_a_package() -> None:
    """tests/models would shadow models."""
    assert list((ROOT / "tests").rglob("__init__.py")) == []


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_the_lock_names_no_registry(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "://" not in text
    assert "--index-url" not in text
