"""Tasks that a worker sends for Celery go to their owners, through a real broker."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery
from pydantic import SecretStr

from dev.services import Valkey, valkey
from worker.celery.config import celery_config
from worker.settings import Settings


@pytest.fixture(scope="module")
def broker() -> Iterator[Valkey]:
    with valkey() as server:
        yield server


@pytest.fixture
def app(broker: Valkey) -> Iterator[Celery]:
    """As a worker's, with its configuration."""
    broker.flush()
    with Celery("worker", set_as_current=False) as app:
        app.conf.update(celery_config(Settings.model_construct(broker_url=SecretStr(broker.url))))
        yield app


@pytest.mark.parametrize(
    ("task", "options", "queue"),
    [
        ("tasks.stored", {}, "celery"),
        ("tasks.stored", {"queue": "mine"}, "mine"),
        ("celery.map", {}, "celery"),
        ("blobferry.move", {}, "blobferry"),
        ("blobferry.stat", {}, "blobferry.reads"),
        ("blobferry.stat", {"queue": "other"}, "other"),
        ("celery.chord_unlock", {}, "blobferry"),
    ],
)
def test_a_link_or_the_next_task_of_a_chain_goes_to_its_owner(
    app: Celery, broker: Valkey, task: str, options: dict[str, Any], queue: str
) -> None:
    app.send_task(task, ("result",), **options)  # as a signature is that Celery calls as a link, in another app
    with redis.Redis.from_url(broker.url) as connection:
        queues = ("celery", "mine", "other", "blobferry", "blobferry.reads")
        assert {name: 1 for name in queues if connection.llen(name)} == {queue: 1}
