"""Links, chains and chords of a bare task: kept on its row, within a bound."""

from typing import Any

import pytest
from celery.app.task import Context

from tests.jobs.job_world import PATH, World
from tests.models.rows import count_rows
from worker.celery.bare_task import MAX_OPTIONS, make_row
from worker.errors import InvalidRequestError


def arrive(world: World, callbacks: list[Any]) -> bool:
    """A bare task with these links arrives."""
    with world.worker() as runtime:
        arguments = {"path": PATH, "source": world.file.as_uri()}
        return make_row(runtime, Context(id="linked", callbacks=callbacks), "write_stream", arguments)


def test_links_that_are_too_large_for_a_row_are_refused_by_their_size(world: World) -> None:
    with pytest.raises(InvalidRequestError, match=rf"^link: have \d+ bytes as JSON; at most {MAX_OPTIONS} may be$"):
        arrive(world, [{"task": "app.next", "args": ["x" * MAX_OPTIONS]}])
    assert count_rows(world.database, "blobferry_jobs") == 0


def test_links_within_the_bound_are_kept(world: World) -> None:
    assert arrive(world, [{"task": "app.next", "args": ["x" * (MAX_OPTIONS - 100)]}])
