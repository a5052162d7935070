"""Whether any job needs a message."""

from typing import Any

import pytest

from models import queries
from models.queries import REPUBLISH_AFTER
from tests.models.rows import Rows, ago


def lacks_messages(rows: Rows, limit: int = 2) -> bool:
    with rows.database.read() as session:
        return queries.missing_messages(session, limit=limit).of_jobs


def test_no_job_needs_none(rows: Rows) -> None:
    assert not lacks_messages(rows)


@pytest.mark.parametrize(
    ("columns", "needs"),
    [
        ({}, True),
        ({"published_at": ago(1)}, False),
        ({"published_at": ago(REPUBLISH_AFTER + 1)}, True),
        ({"run_at": ago(-60)}, False),
        ({"run_at": ago(1), "state": "retrying"}, True),
        ({"waits_for": "another"}, False),
        ({"cancel_requested": True}, False),
        ({"state": "succeeded"}, False),
        ({"state": "running", "worker": "w", "lease_expires_at": ago(-60)}, False),
    ],
)
def test_a_claimable_job_without_a_message_needs_one(rows: Rows, columns: dict[str, Any], needs: bool) -> None:
    rows.submit(**columns)
    assert lacks_messages(rows) is needs


def test_no_job_needs_one_while_as_many_as_the_limit_have_one(rows: Rows) -> None:
    waiting, _ = rows.submit(published_at=ago(1)), rows.submit(published_at=ago(1))
    rows.submit()
    assert not lacks_messages(rows, limit=2)
    assert lacks_messages(rows, limit=3)
    rows.change(waiting, state="succeeded")
    assert lacks_messages(rows, limit=2)
