"""Publishing: many messages in one round trip, and no waiting for a broker that is away."""

import logging
import re
from collections.abc import Callable, Iterator

import pytest
import redis
from celery import Celery

from blobferry.messages.job_messages import Message, client_app, publish
from blobferry.messages.publisher import FIRST_PAUSE, LONGEST_PAUSE, Publisher
from dev.services import Valkey, free_port, valkey
from tests.client.conftest import Site


@pytest.fixture
def make_app() -> Iterator[Callable[[str], Celery]]:
    apps: list[Celery] = []

    def make(url: str) -> Celery:
        apps.append(client_app(url))
        return apps[-1]

    yield make
    for app in apps:
        app.close()


@pytest.fixture
def own_broker() -> Iterator[Valkey]:
    with valkey() as server:
        yield server


def messages(count: int, **options: object) -> list[Message]:
    return [Message(f"job-{number}", "delete", "blobferry", {"path": "/a"}, 0, options) for number in range(count)]


def reads(url: str) -> int:
    """How often the broker has read something, at most 16 KiB at once."""
    with redis.Redis.from_url(url) as connection:
        return int(connection.info("stats")["total_reads_processed"])


def test_all_messages_go_out_in_order_and_together(sqlite_site: Site, make_app: Callable[[str], Celery]) -> None:
    app = make_app(sqlite_site.broker_url)
    assert publish(app, *messages(1)) == 1  # connects
    sqlite_site.take_messages()
    before = reads(sqlite_site.broker_url)
    assert publish(app, *messages(50)) == 50
    assert reads(sqlite_site.broker_url) - before < 50, "a round trip for each would be a read for each"
    assert sqlite_site.message_ids()[::-1] == [f"job-{number}" for number in range(50)]


def test_a_message_that_cannot_be_encoded_does_not_keep_the_others_back(
    sqlite_site: Site, make_app: Callable[[str], Celery]
) -> None:
    first, second, third = messages(3)
    odd = Message("odd", "delete", "blobferry", {}, 0, {"link": object()})
    assert publish(make_app(sqlite_site.broker_url), first, odd, second, third) == 4
    assert sqlite_site.message_ids()[::-1] == ["job-0", "job-1", "job-2"]


def test_links_of_a_bare_task_are_in_the_body_of_its_message(
    sqlite_site: Site, make_app: Callable[[str], Celery]
) -> None:
    link = {"task": "app.done", "args": [], "kwargs": {}, "options": {}}
    publish(make_app(sqlite_site.broker_url), *messages(1, link=[link], link_error=link, chord=link, group_index=0))
    (message,) = sqlite_site.messages()
    embedded = message["body"][2]
    assert (embedded["callbacks"], embedded["errbacks"], embedded["chord"]) == ([link], [link], link)
    assert message["group_index"] == 0


def test_a_publish_from_inside_a_task_does_not_make_that_task_the_parent(
    sqlite_site: Site, make_app: Callable[[str], Celery]
) -> None:
    app = make_app(sqlite_site.broker_url)

    @app.task(name="outer", shared=False)
    def outer() -> None:
        publish(app, *messages(1))

    outer.apply()
    (message,) = sqlite_site.messages()
    assert (message["parent_id"], message["root_id"]) == (None, "job-0")


def test_a_connection_that_went_stale_is_replaced(own_broker: Valkey, make_app: Callable[[str], Celery]) -> None:
    app = make_app(own_broker.url)
    assert publish(app, *messages(1)) == 1
    own_broker.kill9()
    own_broker.restart()
    assert publish(app, *messages(2)) == 2


def test_a_transport_without_pipelines_gets_the_messages_one_by_one(make_app: Callable[[str], Celery]) -> None:
    app = make_app("memory://")
    own = [Message(f"job-{number}", "delete", "one by one", {"path": "/a"}, 0, {}) for number in range(3)]
    assert publish(app, *own) == 3
    with app.connection_for_read() as connection:
        assert connection.SimpleQueue("one by one").qsize() == 3


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def tries(caplog: pytest.LogCaptureFixture) -> Callable[[], int]:
    """How many tries have failed: each is logged."""
    caplog.set_level(logging.WARNING, "blobferry.messages")
    return lambda: sum(record.getMessage().startswith("message not published") for record in caplog.records)


def test_a_broker_that_is_away_is_tried_less_and_less_often(
    make_app: Callable[[str], Celery], tries: Callable[[], int]
) -> None:
    clock = Clock()
    publisher = Publisher(make_app(f"redis://127.0.0.1:{free_port()}/0"), clock=clock)
    pause = FIRST_PAUSE
    for number in range(1, 8):
        assert publisher.publish(*messages(3)) == 0
        assert tries() == number
        clock.now += pause - 0.001
        assert publisher.is_paused
        assert publisher.publish(*messages(3)) == 0
        assert tries() == number
        clock.now += 0.002
        pause = min(2 * pause, LONGEST_PAUSE)
    assert pause == LONGEST_PAUSE


def test_a_broker_that_is_back_is_used_at_once_again(make_app: Callable[[str], Celery], own_broker: Valkey) -> None:
    clock = Clock()
    publisher = Publisher(make_app(own_broker.url), clock=clock)
    own_broker.kill9()
    assert publisher.publish(*messages(1)) == 0
    own_broker.restart()
    assert publisher.publish(*messages(1)) == 0, "the pause is not over"
    clock.now += FIRST_PAUSE
    assert publisher.publish(*messages(2)) == 2
    assert not publisher.is_paused
    assert publisher.publish(*messages(1)) == 1


def test_a_plain_log_line_names_the_job_and_the_reason(
    make_app: Callable[[str], Celery], caplog: pytest.LogCaptureFixture
) -> None:
    publish(make_app(f"redis://:s3cret@127.0.0.1:{free_port()}/0"), *messages(3))
    (line,) = [logging.Formatter("%(message)s").format(record) for record in caplog.records]
    assert re.fullmatch(r"message not published, the caretaker does it: job \S+, 3 in all: .*refused.*", line)
    assert "s3cret" not in line
