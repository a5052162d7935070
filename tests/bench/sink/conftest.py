"""A sink in a process of its own, and a boto3 client of an empty bucket of it."""

from collections.abc import Iterator
from typing import Any

import pytest

from bench.sink_service import Sink, sink
from bench.stage import control
from dev.services import create_bucket

BUCKET = "tests"


@pytest.fixture(scope="session")
def running_sink() -> Iterator[Sink]:
    with sink() as started:
        yield started


@pytest.fixture
def empty_sink(running_sink: Sink) -> Sink:
    create_bucket(running_sink, BUCKET)
    control(running_sink, "clear", bucket=BUCKET)
    control(running_sink, "pace")
    control(running_sink, "reset")
    return running_sink


@pytest.fixture
def s3(empty_sink: Sink) -> Iterator[Any]:
    client = empty_sink.client()
    yield client
    client.close()
