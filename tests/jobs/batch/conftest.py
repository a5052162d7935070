"""The world of batches: on SQLite unless a test runs ``on_each_database``, of contents unless ``on_each_kind``."""

from pathlib import Path

import pytest

from models import Database
from tests.jobs.batch.batch_world import BatchWorld


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    """What small jobs write: the contents of their rows, or files."""
    return getattr(request, "param", "contents")


@pytest.fixture
def world(world_database: Database, tmp_path: Path, kind: str) -> BatchWorld:
    return BatchWorld(world_database, tmp_path / "incoming", of_files=kind == "files")
