"""Webhooks of real workers: in no transfer's way, and told by another worker when theirs is killed."""

import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from blobferry import Client
from blobferry.sql.database_url import parse_url
from dev.services import Postgres, S3Service, Valkey, postgres_database, wait_until
from dev.stack import Stack
from tests.maintenance.webhook_site import SECRET, WebhookSite, hang, receiving
from tests.system.conftest import FAST, prepared

TIMEOUT = 60  #: seconds
HOOKS = {
    "BLOBFERRY_WEBHOOKS__SECRETS__DEFAULT": SECRET,
    "BLOBFERRY_WEBHOOKS__ALLOW_HTTP": "true",
    "BLOBFERRY_WEBHOOKS__ALLOW_PRIVATE": "true",
}


@pytest.fixture(params=["sqlite", "postgres"])
def hooked(request: pytest.FixtureRequest, broker: Valkey, s3: S3Service, tmp_path: Any) -> Iterator[Stack]:
    """A stack whose workers may post to this machine."""
    made = Stack(broker.url, f"sqlite:///{tmp_path}/blobferry.db", s3, tmp_path, settings=FAST | HOOKS)
    if request.param == "sqlite":
        yield prepared(broker, made)
        return
    server: Postgres = request.getfixturevalue("postgres_server")
    with postgres_database(server) as url:
        yield prepared(broker, replace(made, database_url=url))


@contextmanager
def both(stack: Stack) -> Iterator[tuple[WebhookSite, Client]]:
    with receiving() as site, stack.client() as client:
        yield site, client


def told(site: WebhookSite) -> list[str]:
    return [posted.verified()["data"]["path"] for posted in site.posted]


def test_an_endpoint_that_hangs_holds_no_slot_and_delays_nobody(hooked: Stack) -> None:
    """One slot, and each of three jobs has an endpoint that does not answer."""
    with both(hooked) as (site, client), receiving(address="127.0.0.2") as other, hooked.worker():
        site.scripts["/hook"] += [hang] * 3
        slow = [client.put_content(f"/slow/{number}", b"x", webhook=f"{site.url}/hook") for number in range(3)]
        for job in slow:
            assert client.wait(job.id, TIMEOUT).state == "succeeded"
        assert site.hanging.acquire(timeout=TIMEOUT)
        quick = client.put_content("/quick", b"x", webhook=f"{other.url}/hook")
        assert client.wait(quick.id, TIMEOUT).state == "succeeded"
        wait_until(lambda: told(other) == ["/quick"], TIMEOUT, "the other webhook")
        wait_until(lambda: client.deliveries(quick.id)[0].state == "delivered", TIMEOUT, "that this is known")
        assert {each.state for job in slow for each in client.deliveries(job.id)} == {"waiting"}


def test_a_worker_killed_before_it_was_answered_leaves_the_webhook_to_another(hooked: Stack) -> None:
    with both(hooked) as (site, client):
        site.scripts["/hook"].append(hang)
        with hooked.worker() as worker:
            job = client.put_content("/a", b"x", webhook=f"{site.url}/hook", labels={"app": "shop"})
            assert client.wait(job.id, TIMEOUT).state == "succeeded"
            assert site.hanging.acquire(timeout=TIMEOUT)
            os.killpg(worker.pids[0], signal.SIGKILL)
        (held,) = client.deliveries(job.id)
        assert (held.state, held.tries) == ("waiting", 1)
        make_due(hooked)
        with hooked.worker("another"):
            wait_until(lambda: client.deliveries(job.id)[0].state == "delivered", TIMEOUT, "the delivery")
        first, second = site.posted
        assert (first.headers["webhook-id"], json.loads(first.body)) == (held.event_id, second.verified())
        assert second.headers["webhook-id"] == held.event_id


def test_what_ended_while_no_caretaker_ran_is_told_late(hooked: Stack) -> None:
    with both(hooked) as (site, client):
        job = client.put_content("/a", b"x", webhook=f"{site.url}/hook")
        with without_secrets(hooked).worker("mute"):
            assert client.wait(job.id, TIMEOUT).state == "succeeded"
        assert (site.posted, client.deliveries(job.id)[0].tries) == ([], 0)
        with hooked.worker("late"):
            wait_until(lambda: told(site) == ["/a"], TIMEOUT, "the webhook")


def without_secrets(stack: Stack) -> Stack:
    """Its workers can sign nothing."""
    settings: Mapping[str, str] = {name: value for name, value in stack.settings.items() if "SECRETS" not in name}
    return replace(stack, settings=settings)


def make_due(stack: Stack) -> None:
    """The time passes until others may take it."""
    engine = create_engine(parse_url(stack.database_url))
    with engine.begin() as connection:
        connection.execute(text("UPDATE blobferry_deliveries SET due_at = '2001-01-01 00:00:00.000000'"))
    engine.dispose()
