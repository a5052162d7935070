"""The table of exceptions names tests that exist, and stores that exist."""

import ast
from pathlib import Path

import pytest

from tests.driver.store_kinds import KINDS
from tests.driver.unsupported import UNSUPPORTED

pytestmark = pytest.mark.no_cover


NODES = [
    (file.name, node)
    for file in Path(__file__).parent.glob("test_*.py")
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
]


def test_every_exception_names_a_store_and_a_test_and_gives_a_reason() -> None:
    tests = {node.name for _, node in NODES if isinstance(node, ast.FunctionDef)}
    assert [pair for pair in UNSUPPORTED if pair[0] not in KINDS or pair[1] not in tests] == []
    assert all(UNSUPPORTED.values())


def test_no_test_is_skipped_in_any_other_way() -> None:
    marks = {(name, node.attr) for name, node in NODES if isinstance(node, ast.Attribute)}
    assert [mark for mark in marks if mark[1] in ("skip", "xfail", "importorskip")] == []
