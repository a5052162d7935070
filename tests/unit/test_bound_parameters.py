"""SQL is written by us and values are bound: no statement is ever put together from text that came from elsewhere."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("blobferry", "tasks", "worker", "models", "alembic")
MODULES = sorted(path.relative_to(ROOT) for folder in SHIPPED for path in (ROOT / folder).rglob("*.py"))

#: What takes SQL as text.
TAKERS = """
    text execute executemany executescript exec_driver_sql literal_column from_statement prefix_with suffix_with
    with_hint with_statement_hint DDL
""".split()  # noqa: SIM905  a word list reads better than a page of quotes
#: Files in which it is, and why that is safe.
EXCEPTIONS = {Path("alembic/env.py"): "SET takes no parameters; what it is set to is a constant beside it"}


def built(module: ast.Module) -> Iterator[int]:
    """The lines where SQL is handed over as text that is no constant."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in TAKERS and any(is_built(argument) for argument in node.args[:1]):
                yield node.lineno


def is_built(argument: ast.expr) -> bool:
    match argument:
        case ast.JoinedStr():
            return any(isinstance(value, ast.FormattedValue) for value in argument.values)
        case ast.BinOp(op=ast.Add() | ast.Mod()):
            return any(holds_text(side) for side in (argument.left, argument.right))
        case ast.Call(func=ast.Attribute(attr="format" | "join" | "replace", value=value)):
            return holds_text(value)
    return False


def holds_text(node: ast.expr) -> bool:
    return any(
        isinstance(child, ast.JoinedStr) or (isinstance(child, ast.Constant) and isinstance(child.value, str))
        for child in ast.walk(node)
    )


@pytest.mark.parametrize("path", [path for path in MODULES if path not in EXCEPTIONS], ids=str)
def test_no_statement_is_put_together_from_text(path: Path) -> None:
    assert list(built(ast.parse((ROOT / path).read_text(encoding="utf-8")))) == []


BUILT = (
    "text(f'SELECT * FROM a WHERE b = {c}')",
    "session.execute('SELECT ' + c)",
    "session.execute(sqlalchemy.text('SELECT %s' % c))",
    "cursor.execute('SELECT {}'.format(c))",
    "connection.exec_driver_sql(f'PRAGMA {c}')",
    "literal_column('a' + b)",
    "text(', '.join(names))",
)
BOUND = ("text('SELECT :a')", "execute(select(jobs).where(jobs.c.id == a))", "text('a' 'b')")


@pytest.mark.parametrize("source", [*BUILT, *BOUND])
def test_what_is_put_together_is_seen_and_what_is_bound_is_fine(source: str) -> None:
    assert bool(list(built(ast.parse(source)))) == (source in BUILT)


def test_every_folder_that_speaks_sql_is_looked_at() -> None:
    assert {path.parts[0] for path in MODULES} == set(SHIPPED)
    assert len(MODULES) > 100
