"""The rows of a database of each kind."""

import pytest

from models import Database
from tests.models.rows import Rows


@pytest.fixture
def rows(database: Database) -> Rows:
    return Rows(database)
