"""What a run publishes at its end while its worker drains: what it hands over, for others, and without a long wait."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis
from celery import Celery
from pydantic import SecretStr

from blobferry.messages.job_messages import BROKER_TIMEOUTS
from dev.services import valkey
from tests.jobs.job_world import World
from worker import drain
from worker.celery.next_jobs import publish_next
from worker.runtime import start_runtime


@contextmanager
def draining(world: World, broker_url: str) -> Iterator[Celery]:
    """A worker child that drains; its app."""
    with world.worker() as runtime, Celery("own", broker=broker_url, set_as_current=False) as app:
        app.conf.broker_transport_options = BROKER_TIMEOUTS
        runtime.settings = runtime.settings.model_copy(update={"broker_url": SecretStr(broker_url)})
        start_runtime(runtime)
        drain.start()
        yield app


def test_a_draining_worker_publishes_what_it_has_handed_over(world: World) -> None:
    job_id = world.submit()
    with valkey() as broker, draining(world, broker.url) as app:
        publish_next(app)
        with redis.Redis.from_url(broker.url) as connection:
            assert connection.llen("blobferry") == 1
    assert world.job_row(job_id).published_at is not None


def test_a_draining_worker_does_not_wait_long_for_a_broker_that_never_answers(world: World) -> None:
    """It has two tries of 1.2 s each; those of a worker that goes on have 10 s."""
    job_id = world.submit()
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        draining(world, f"redis://127.0.0.1:{silent.getsockname()[1]}/0") as app,
    ):
        started = time.monotonic()
        publish_next(app)
        assert time.monotonic() - started < BROKER_TIMEOUTS["socket_timeout"]
    assert world.job_row(job_id).published_at is None, "the caretaker of another worker publishes it"
