"""The world of batches, on SQLite unless a test runs ``on_each_database``."""

from pathlib import Path

import pytest

from models import Database
from tests.jobs.batch.batch_world import BatchWorld


@pytest.fixture
def world(world_database: Database, tmp_path: Path) -> BatchWorld:
    return BatchWorld(world_database, tmp_path / "incoming")
