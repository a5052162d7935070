"""What an ordinary run costs: claim, point of no return, end; the store is asked for the base, the call, the Stat."""

from collections import Counter
from collections.abc import Callable

import pytest

from tests.jobs.counted_run import Cost, cost_of
from tests.jobs.job_world import PATH, World, on_each_database
from tests.models.rows import ago

FROM, SOURCE = "incoming/7.mp4", "/incoming/7.mp4"


def put_content(world: World) -> str:
    return world.ask("put_content", path=PATH, contents=world.data)


def write_stream(world: World) -> str:
    return world.submit()


def write_stream_alone(world: World) -> str:
    return world.submit(deadline=ago(-3600))


def move(world: World) -> str:
    world.memory.put(FROM, world.data)
    return world.ask("move", source_path=SOURCE, dest_path=PATH)


def cost(world: World, job_id: str) -> Cost:
    """In a child that has already done one of the kind, so that what it does once in its life is not counted."""
    world.file.with_name("first.mp4").write_bytes(b"x")
    asked = {"path": "/first", "source": world.file.with_name("first.mp4").as_uri()}
    first = world.submit(arguments=asked, deadline=ago(-3600))  # so that it takes no others along
    return cost_of(world, job_id, runs_before=(first,))


ONE_CALL: dict[str, tuple[Callable[[World], str], int, int, dict[str, int]]] = {
    "put_content": (put_content, 3, 16, {"head": 2, "put": 1}),  # a batch of one
    "write_stream": (write_stream, 3, 16, {"head": 2, "put": 1}),  # the same
    "write_stream alone": (write_stream_alone, 3, 13, {"head": 2, "put": 1}),
    "move": (move, 4, 16, {"head": 5, "options_of": 1, "copy": 1, "delete_batch": 1}),
}
IN_PARTS: dict[str, tuple[Callable[[World], str], int, int]] = {
    "write_stream": (write_stream, 10, 27),
    "move": (move, 11, 30),
}


@on_each_database
@pytest.mark.parametrize("size", [7])
@pytest.mark.parametrize("name", ONE_CALL)
def test_a_job_of_one_commit_call_costs_no_more_than_this(name: str, world: World) -> None:
    make, transactions, statements, requests = ONE_CALL[name]
    found = cost(world, make(world))
    assert found.transactions <= transactions
    assert len(found.statements) <= statements, found.statements
    assert found.requests == Counter(requests)
    assert "heartbeat" not in found.threads


@on_each_database
@pytest.mark.parametrize("name", IN_PARTS)
def test_a_job_in_ten_parts_costs_no_more_than_this(name: str, world: World) -> None:
    make, transactions, statements = IN_PARTS[name]
    found = cost(world, make(world))
    assert found.transactions <= transactions
    assert len(found.statements) <= statements, found.statements
