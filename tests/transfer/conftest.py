"""What tests of transfers share."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.doubles import tiny_store
from tests.transfer.bench import PART, Bench
from worker.stores.memory.memory_store import MemoryStore
from worker.transfer.upload.engine import Engine


@pytest.fixture
def engine() -> Iterator[Engine]:
    with closing(Engine(part_size=PART, part_threads=2)) as engine:
        yield engine


@pytest.fixture
def memory() -> MemoryStore:
    return tiny_store()


@pytest.fixture
def bench(engine: Engine, memory: MemoryStore) -> Bench:
    return Bench(engine, memory)
