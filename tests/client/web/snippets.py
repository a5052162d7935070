"""The snippets of a page of the docs, which its test runs one after another."""

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[3] / "docs"


def run_snippets(page: str) -> dict[str, Any]:
    """Run the page's Python in one namespace, and return that."""
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    assert {language for language, _ in blocks} == {"python"}, "anything else would not be tested"
    names: dict[str, Any] = {"__name__": page}
    for _, source in blocks:
        exec(compile(source, page, "exec"), names)
    return names
