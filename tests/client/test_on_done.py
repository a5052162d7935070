"""Asking to be told of the end: the signature is kept with the row, however the job is submitted."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from celery import Celery, chain, group
from sqlalchemy.orm import Session

from blobferry import Client, NewJob
from blobferry.checks.callbacks import MAX_CALLBACK, TOLD_REQUEST, check_callback
from blobferry.errors import ConflictError, InvalidRequestError
from tests.client.conftest import SOURCE, Site

VIDEO = UUID(int=7)

#: Celery deprecates the attribute ``queue`` of a task, and still follows it.
pytestmark = pytest.mark.filterwarnings("ignore::celery.exceptions.CDeprecationWarning")


def nothing(*args: Any) -> None:
    """What the app's tasks do here."""


@pytest.fixture(scope="module")
def shop() -> Iterator[Celery]:
    """The app's own Celery, which sends one of its tasks to a queue of its own."""
    with Celery("shop", broker="memory://", set_as_current=False) as app:
        app.conf.task_routes = {"shop.routed": {"queue": "routed"}}
        for name, options in {"stored": {}, "routed": {}, "mailed": {"queue": "mails"}}.items():
            app.task(nothing, name=f"shop.{name}", shared=False, **options)  # not of apps of other tests, too
        yield app


def stored(shop: Celery, *args: Any, name: str = "stored") -> Any:
    return shop.tasks[f"shop.{name}"].s(*args)


def test_every_submit_keeps_it(ferry: Client, site: Site, shop: Celery) -> None:
    told = {"on_done": stored(shop, 1), "on_failed": {"task": "shop.lost", "options": {"queue": "alarms"}}}
    with Session(site.database.engine) as session:
        ferry.write_stream("/1", SOURCE, session=session, **told)
        ferry.submit_many([NewJob.delete("/2", **told)], session=session)
        session.commit()
    ferry.put_content("/3", b"x", on_done=stored(shop, 1))
    ferry.submit_many([NewJob.delete("/4"), NewJob.move("/5", "/6", on_failed=stored(shop, 1))])
    rows = {row["path"]: row for row in site.rows()}
    asked = {path: sorted(row["on_end"] or {}) for path, row in rows.items()}
    both = ["on_done", "on_failed"]
    assert asked == {"/1": both, "/2": both, "/3": ["on_done"], "/4": [], "/6": ["on_failed"]}
    assert rows["/1"]["on_end"]["on_failed"]["options"] == {"queue": "alarms"}
    assert rows["/1"]["request_version"] == TOLD_REQUEST, "a worker that would tell nobody leaves it alone"
    assert rows["/4"]["request_version"] < TOLD_REQUEST


@pytest.mark.parametrize(("name", "queue"), [("stored", "celery"), ("routed", "routed"), ("mailed", "mails")])
def test_a_task_goes_where_the_configuration_of_its_app_sends_it(shop: Celery, name: str, queue: str) -> None:
    assert check_callback("on_done", stored(shop, name=name))["options"] == {"queue": queue}
    assert check_callback("on_done", stored(shop, name=name).set(queue="mine"))["options"] == {"queue": "mine"}
    assert check_callback("on_done", dict(shop.signature(f"shop.{name}")))["options"] == {}


def test_times_and_uuids_are_kept_as_celery_sends_them(shop: Celery) -> None:
    kept = check_callback("on_done", stored(shop, VIDEO, datetime(2026, 1, 1, tzinfo=UTC)))
    assert json.loads(json.dumps(kept)) == kept
    assert kept["args"][0]["__type__"] == "uuid"


@pytest.mark.parametrize("option", ["eta", "expires"])
def test_times_among_the_options_are_kept_as_a_message_has_them(shop: Celery, option: str) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    kept = check_callback("on_done", stored(shop, 1).set(**{option: moment}))
    assert kept["options"] == {"queue": "celery", option: "2026-01-01T00:00:00+00:00"}


def test_the_same_key_with_another_callback_is_another_request(ferry: Client, shop: Celery) -> None:
    def submit(video: int) -> str:
        return ferry.write_stream("/a", SOURCE, idempotency_key="k", on_done=stored(shop, video)).id

    assert submit(1) == submit(1)
    with pytest.raises(ConflictError):
        submit(2)
    again = NewJob.write_stream("/a", SOURCE, idempotency_key="k", on_done=stored(shop, 2))
    with pytest.raises(ConflictError):
        ferry.submit_many([again])


@pytest.mark.parametrize(
    ("callback", "problem"),
    [
        ("shop.stored", "needs a Celery signature"),
        ({"task": ""}, "needs a Celery signature"),
        ({"task": "a", "args": "x"}, "args must be a list"),
        ({"task": "a", "options": {"task_id": "x"}}, "unknown option 'task_id'"),
        ({"task": "a", "options": {"queue": 7}}, "option queue needs a text, got 7"),
        ({"task": "a", "options": {"countdown": 1e30}}, "option countdown needs a number of at most"),
        ({"task": "a", "options": {"eta": 5}}, "option eta needs a time, got 5"),
        ({"task": "a", "options": {"expires": "soon"}}, "option expires needs a time, or a number"),
        ({"task": "a", "options": {"link": ["x"]}}, "option link needs a signature, or a list"),
        ({"task": "a", "options": {"priority": True}}, "option priority needs a whole number"),
        ({"task": "a", "args": [object()]}, "cannot be stored as JSON"),
        ({"task": "a", "args": ["\0"]}, "a zero byte"),
        ({"task": "a", "args": ["x" * MAX_CALLBACK]}, "bytes as JSON; at most"),
    ],
)
def test_what_cannot_be_called_is_refused(client: Client, callback: Any, problem: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"^on_failed: .*{problem}"):
        client.delete("/a", on_failed=callback)


@pytest.mark.parametrize("make", [chain, group])
def test_several_tasks_are_refused(shop: Celery, make: Any) -> None:
    with pytest.raises(InvalidRequestError, match="give the signature of one task"):
        check_callback("on_done", make(stored(shop, 1), stored(shop, 2)))
