"""What the tests of a job's life have in common."""

from pathlib import Path

import pytest

from models import Database
from tests.tasks.life import World


@pytest.fixture
def world(sqlite_database: Database, tmp_path: Path) -> World:
    """A world on SQLite, whose file has ten parts."""
    directory = tmp_path / "incoming"
    directory.mkdir()
    return World(sqlite_database, directory)
