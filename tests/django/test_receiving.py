"""docs/ends.md: the views that receive webhooks take what a worker signs, and nothing else."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import RequestFactory, override_settings
from fastapi.testclient import TestClient
from pydantic import SecretStr

from models.queries import WebhookDelivery
from tests.client.conftest import CHECKOUT
from tests.maintenance.webhook_site import NEW_SECRET, SECRET
from worker.maintenance.webhooks.signed_event import SignedEvent

PAGE = (CHECKOUT / "docs" / "ends.md").read_text(encoding="utf-8")
Receive = Callable[[bytes, dict[str, str]], int]


def run_snippet(beginning: str, noted: list[Any]) -> dict[str, Any]:
    """The names of the one block of code that begins with these words."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (found,) = [block for block in blocks if block.startswith(beginning)]
    names: dict[str, Any] = {"note": noted.append}
    exec(compile(found, "ends.md", "exec"), names)
    return names


@pytest.fixture
def noted() -> list[Any]:
    return []


@pytest.fixture(params=["fastapi", "django"])
def receive(request: pytest.FixtureRequest, noted: list[Any], monkeypatch: pytest.MonkeyPatch) -> Receive:
    """Posts a body to the view; the status of its answer."""
    if request.param == "fastapi":
        monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
        web = TestClient(run_snippet("import os", noted)["app"])
        return lambda body, headers: web.post("/hooks/blobferry", content=body, headers=headers).status_code

    view = run_snippet("from django.conf", noted)["ended"]

    def to_django(body: bytes, headers: dict[str, str]) -> int:
        given = {name: value for name, value in headers.items() if name != "Content-Type"}
        posted = RequestFactory().post("/hooks/blobferry", body, content_type="application/json", headers=given)
        with override_settings(WEBHOOK_SECRET=SECRET):
            return int(view(posted).status_code)

    return to_django


def signed(*secrets: str, moment: datetime | None = None) -> SignedEvent:
    now = datetime.now(UTC)
    url = "https://shop.example/hooks/blobferry"
    delivery = WebhookDelivery(
        *(1, "job-1", 1, "succeeded", 3, None, None, now, "delete", "default", "/ä", {"a": "ß"}),
        *(url, url, "shop.example", "default", 1, now),
    )
    return SignedEvent.of(delivery, [SecretStr(secret) for secret in secrets], moment or now)


def test_what_a_worker_signs_is_taken(receive: Receive, noted: list[Any]) -> None:
    event = signed(SECRET)
    assert receive(event.body, event.headers) == 204
    assert (noted[0]["job_id"], noted[0]["path"], noted[0]["labels"]) == ("job-1", "/ä", {"a": "ß"})


@pytest.mark.parametrize("secrets", [(NEW_SECRET, SECRET), (SECRET, NEW_SECRET)])
def test_one_of_several_signatures_is_enough(secrets: tuple[str, ...], receive: Receive, noted: list[Any]) -> None:
    event = signed(*secrets)
    assert receive(event.body, event.headers) == 204
    assert len(noted) == 1


def test_nothing_else_is_taken(receive: Receive, noted: list[Any]) -> None:
    event, foreign, old = signed(SECRET), signed(NEW_SECRET), signed(SECRET, moment=datetime.now(UTC) - timedelta(1))
    forged = [
        (event.body + b" ", event.headers),
        (event.body, {**event.headers, "webhook-id": "other"}),
        (event.body, {**event.headers, "webhook-signature": "nonsense"}),
        (event.body, {name: value for name, value in event.headers.items() if name != "webhook-signature"}),
        (b"\xff", event.headers),
        (foreign.body, foreign.headers),
        (old.body, old.headers),
    ]
    assert [receive(body, headers) for body, headers in forged] == [401] * len(forged)
    assert noted == []
