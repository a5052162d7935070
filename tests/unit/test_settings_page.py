"""docs/settings.md is what the code says."""

from typing import Any

from dev.settings_page import PAGE, page
from worker.parameters import DriverParameters
from worker.settings import Settings


def test_the_page_is_that_of_the_code() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew: make docs"


def test_every_setting_has_a_row() -> None:
    rows = {line.split("`")[1] for line in page().splitlines() if line.startswith("| `")}
    sections = {name for name in Settings.model_fields if f"`[{name}]`" in page()}
    assert {*Settings.model_fields, *DriverParameters.model_fields} - sections - rows == {"storages"}
    for name in sections:
        section: Any = Settings.model_fields[name].annotation
        assert set(section.model_fields) <= rows


def test_a_row_shows_default_range_and_meaning() -> None:
    assert "| `concurrency` | `2` | ≥ 1, ≤ 256 | jobs that one worker runs at a time |" in page()
    assert "| `acl` | `keep` | `keep`, `default` | of copies, and of blobs that are written onto |" in page()
    assert "| `database_url` | needed |  | PostgreSQL, or SQLite for a single host |" in page()
