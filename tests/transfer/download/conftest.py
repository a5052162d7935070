"""What tests of downloads share."""

from pathlib import Path

import pytest

from tests.transfer.download.downloads import OLD, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A download over an old file."""
    return World(tmp_path / "srv", old=OLD)
