"""``make docs``: docs/settings.md, the reference of all settings, from the code that reads them."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from worker.parameters import DriverParameters
from worker.settings import Settings

PAGE: Final = Path(__file__).parents[1] / "docs" / "settings.md"
_HEAD: Final = """# Settings

Written by `make docs` from the worker's code; a test compares the two. Sizes are in bytes, times in seconds.

A worker reads the TOML file that `BLOBFERRY_CONFIG` names, and variables on top of it: `part_size` of `[transfer]` is
`BLOBFERRY_TRANSFER__PART_SIZE`, `bucket` of `[storages.default]` is `BLOBFERRY_STORAGES__DEFAULT__BUCKET`; lists are
JSON. A client reads `BLOBFERRY_DATABASE_URL`, `BLOBFERRY_BROKER_URL`, `BLOBFERRY_RESULT_BACKEND`, `BLOBFERRY_KEYS`,
`BLOBFERRY_ENCRYPTION_KEYS`, `BLOBFERRY_SPOOL_DIR` and `BLOBFERRY_BROKER__…`; with `blobferry[signing]` also
`BLOBFERRY_CONFIG` and `BLOBFERRY_STORAGES__…`, to [sign URLs](urls.md).
"""
_BOUNDS: Final = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}"}


def page() -> str:
    """The whole page."""
    sections = {f"[{name}]": found for name, field in Settings.model_fields.items() if (found := _section(field))}
    tables: dict[str, type[BaseModel]] = {
        "At the top of the file": Settings,
        **sections,
        "[storages.NAME]": DriverParameters,
    }
    return _HEAD + "".join(f"\n## {_title(name)}\n\n{_intro(model)}{_table(model)}" for name, model in tables.items())


def _title(name: str) -> str:
    return f"`{name}`" if name.startswith("[") else name


def _intro(model: type[BaseModel]) -> str:
    """What the section is for, from its docstring."""
    said = (inspect.getdoc(model) or "").partition("``: ")[2].replace("``", "`")
    return f"{said[:1].upper()}{said[1:]}\n\n" if said else ""


def _table(model: type[BaseModel]) -> str:
    rows = [
        f"| `{name}` | {_default(field)} | {_allowed(field)} | {comment} |\n"
        for (name, comment) in _comments(model)
        if (field := model.model_fields[name]) and not _section(field) and name != "storages"
    ]
    return "| setting | default | allowed | meaning |\n|---|---|---|---|\n" + "".join(rows)


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _comments(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """The fields in their order, each with its ``#:`` comments, which stand above it or at its end."""
    lines = [line.strip() for line in inspect.getsource(model).splitlines()]
    (tree,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(model))).body
    assert isinstance(tree, ast.ClassDef)
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.end_lineno is not None:
            first = node.lineno - 1
            while lines[first - 1].startswith("#:"):
                first -= 1
            said = [*lines[first : node.lineno - 1], "#:".join(lines[node.end_lineno - 1].split("#:")[1:])]
            words = " ".join(piece.removeprefix("#:").strip() for piece in said).strip()
            yield node.target.id, words.replace("``", "`").replace("|", "\\|")


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if field.is_required():
        return "needed"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value is None or value in ("", (), {}):
        return "none"
    return f"`{value}`" if isinstance(value, int | float) else f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    return str(value) if isinstance(value, str | PurePath) else repr(value)


def _allowed(field: FieldInfo) -> str:
    choices = [str(each) for each in _choices(field.annotation)]
    bounds = [
        text.format(f"{bound:g}" if isinstance(bound, float) else bound)
        for name, text in _BOUNDS.items()
        for each in field.metadata
        if (bound := getattr(each, name, None)) is not None
    ]
    return ", ".join(f"`{choice}`" for choice in choices) or ", ".join(bounds)


def _choices(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if get_origin(annotation) is dict:
        return ()
    return next((found for each in get_args(annotation) if (found := _choices(each))), ())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
