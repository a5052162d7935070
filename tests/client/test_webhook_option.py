"""Asking for webhooks: kept with the row however the job is submitted, listed, and sent again."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from blobferry import AsyncClient, Client, NewJob
from blobferry.checks.callbacks import WEBHOOK_REQUEST
from blobferry.errors import ConflictError, InvalidRequestError, JobNotFoundError
from blobferry.messages.end_events import event_id
from blobferry.sql.outbox_tables import deliveries
from blobferry.values import Delivery
from tests.client.conftest import SOURCE, Command, Site

URL = "https://shop.example/hook"
KEPT = {"url": URL, "endpoint": URL, "host": "shop.example", "secret": "default"}
KEYS = "a" * 43 + "="


def told(site: Site, job_id: str, **columns: Any) -> int:
    """A delivery of the job; its number."""
    usual = {"kind": "webhook", "state": "waiting", "sequence": 1, "job_state": "succeeded"} | KEPT
    with site.database.begin() as session:
        added = insert(deliveries).values(job_id=job_id, **{**usual, **columns}).returning(deliveries.c.id)
        return int(session.scalars(added).one())


def test_every_submit_keeps_it(ferry: Client, site: Site) -> None:
    with Session(site.database.engine) as session:
        ferry.write_stream("/1", SOURCE, session=session, webhook=URL)
        ferry.submit_many([NewJob.delete("/2", webhook=URL, webhook_secret="billing")], session=session)
        session.commit()
    ferry.put_content("/3", b"x", webhook=URL)
    ferry.submit_many([NewJob.delete("/4"), NewJob.move("/5", "/6", webhook=URL)])
    rows = {row["path"]: row for row in site.rows()}
    kept = {path: (row["on_end"] or {}).get("webhook") for path, row in rows.items()}
    assert kept == {"/1": KEPT, "/2": {**KEPT, "secret": "billing"}, "/3": KEPT, "/4": None, "/6": KEPT}
    assert rows["/1"]["request_version"] == WEBHOOK_REQUEST, "a worker that would tell nobody leaves it alone"
    assert rows["/4"]["request_version"] < WEBHOOK_REQUEST


def test_a_rolled_back_submit_leaves_nothing_to_tell(ferry: Client, site: Site) -> None:
    with Session(site.database.engine) as session:
        ferry.write_stream("/1", SOURCE, session=session, webhook=URL)
        session.rollback()
    assert site.rows() == []


def test_an_async_client_takes_it_and_lists_deliveries(sqlite_site: Site) -> None:
    async def submit() -> tuple[str, list[Delivery], list[Delivery]]:
        async with AsyncClient(database_url=sqlite_site.url) as ferry:
            job = await ferry.delete("/a", webhook=URL)
            told(sqlite_site, job.id)
            return job.id, await ferry.deliveries(job.id), await ferry.redeliver(job.id)

    job_id, found, again = asyncio.run(submit())
    assert [each.job_id for each in (*found, *again)] == [job_id, job_id]


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"webhook": "ftp://a/b"}, "webhook: needs a URL such as 'https://shop.example/hooks/blobferry', got 'ftp"),
        ({"webhook": "file:///srv/a"}, "webhook: needs a URL"),
        ({"webhook": "/srv/a"}, "webhook: needs a URL"),
        ({"webhook": "https:///a"}, "webhook: .* needs a host"),
        ({"webhook": "https://a/#b"}, "webhook: .* fragment"),
        ({"webhook": 7}, "webhook: needs a URL"),
        ({"webhook": "https://a/" + "b" * 2048}, "webhook: has 2058 characters; a URL may have 2048"),
        ({"webhook": URL, "webhook_secret": "whsec_AAAA"}, "webhook_secret: needs the name of a secret"),
        ({"webhook": URL, "webhook_secret": "whsec_aaaa"}, "webhook_secret: needs the name of a secret"),
        ({"webhook": URL, "webhook_secret": 7}, "webhook_secret: needs the name of a secret"),
        ({"webhook_secret": "billing"}, "webhook_secret: needs a webhook that it signs"),
    ],
)
def test_what_cannot_be_posted_to_is_refused(client: Client, asked: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"^{problem}") as caught:
        client.delete("/a", **asked)
    assert "aaaa" not in str(caught.value).lower()


def test_the_same_key_with_another_webhook_is_another_request(sqlite_site: Site) -> None:
    """The URL is sealed anew each time, so another text does not make another request."""
    url = "https://user:pass-word@shop.example/hook?token=hidden"
    with sqlite_site.client(encryption_keys=KEYS) as ferry:

        def submit(url: str, secret: str = "default") -> str:
            return ferry.delete("/a", idempotency_key="k", webhook=url, webhook_secret=secret).id

        assert submit(url) == submit(url)
        again = ferry.submit_many([NewJob.delete("/a", idempotency_key="k", webhook=url)])
        assert list(again) == [submit(url)]
        for other in ((URL, "default"), (url, "billing")):
            with pytest.raises(ConflictError):
                submit(*other)
        (row,) = sqlite_site.rows()
    assert row["on_end"]["webhook"]["endpoint"] == "https://***@shop.example/hook?token=***"
    assert "pass-word" not in str(row)
    assert "hidden" not in str(row)


def test_deliveries_are_listed_the_newest_first(ferry: Client, site: Site) -> None:
    first, second = ferry.delete("/a", webhook=URL), ferry.delete("/b", on_done={"task": "shop.stored"})
    told(site, first.id, state="given_up", error="answers 500", status=500, tries=30)
    told(site, first.id, state="gone", status=410, sequence=2)
    told(site, second.id, kind="task", state="due", url=None, endpoint=None, secret=None)
    newest, gone, given_up = ferry.deliveries()
    assert (newest.kind, newest.receiver, newest.state, newest.secret) == ("task", "shop.stored", "waiting", None)
    assert (gone.receiver, gone.state, gone.status, gone.due_at) == (URL, "gone", 410, None)
    assert (given_up.error, given_up.tries, given_up.event_id) == ("answers 500", 30, event_id(first.id, 1))
    assert ferry.deliveries(second.id) == [newest]
    assert ferry.deliveries(failed=True) == [gone, given_up]
    assert ferry.deliveries(second.id, failed=True) == []
    assert ferry.deliveries(limit=1) == [newest]
    assert list(ferry.situation(first.id).deliveries) == [gone, given_up]
    with pytest.raises(JobNotFoundError):
        ferry.deliveries("nothing")


def test_the_last_end_of_a_job_or_one_delivery_is_told_again(ferry: Client, site: Site) -> None:
    job = ferry.delete("/a", webhook=URL, on_done={"task": "shop.stored"})
    earlier = told(site, job.id, state="given_up", error="x", status=500, tries=30)
    hook = told(site, job.id, state="delivered", sequence=2, status=204, tries=1)
    task = told(site, job.id, kind="task", state="delivered", sequence=2, endpoint=None)
    assert sorted(each.id for each in ferry.redeliver(job.id)) == [hook, task]
    with site.database.begin() as session:
        states = session.execute(select(deliveries.c.state).order_by(deliveries.c.id)).scalars().all()
    assert states == ["given_up", "waiting", "due"], "a worker takes a task where it is due"
    (again,) = ferry.redeliver(earlier)
    assert (again.state, again.tries, again.status, again.error) == ("waiting", 0, None, None)


@pytest.mark.parametrize("which", [0, -1, 2**63, True, 10**400])
def test_what_is_no_delivery_cannot_be_told_again(client: Client, which: Any) -> None:
    with pytest.raises(InvalidRequestError):
        client.redeliver(which)


def test_a_job_of_which_nobody_is_told_says_so(client: Client) -> None:
    job = client.delete("/a")
    with pytest.raises(InvalidRequestError, match="has no deliveries: it has not ended, or nobody is to be told"):
        client.redeliver(job.id)
    with pytest.raises(JobNotFoundError):
        client.redeliver("nothing")
    with pytest.raises(InvalidRequestError, match="there is no delivery 7"):
        client.redeliver(7)


# --- the command -----------------------------------------------------------------------------------------------------


def test_a_command_asks_for_a_webhook(command: Command, sqlite_site: Site) -> None:
    done = command("write", "file:///srv/a", "/a", "--webhook", URL, "--webhook-secret", "billing", "--json")
    assert done.exit_code == 0, done.output
    assert sqlite_site.rows()[0]["on_end"]["webhook"] == {**KEPT, "secret": "billing"}


def test_commands_show_deliveries_and_send_them_again(command: Command, client: Client, sqlite_site: Site) -> None:
    job = client.delete("/a", webhook=URL)
    number = told(sqlite_site, job.id, state="given_up", error="answers 500", status=500, tries=30)
    failed = command("deliveries", "--failed")
    assert all(word in failed.stdout for word in (job.id, URL, "given_up", "answers 500"))
    assert json.loads(command("deliveries", job.id, "--json").stdout)[0]["id"] == number
    status = command("status", job.id).stdout
    assert f"told        job.succeeded to webhook {URL}: given up after 30 tries: answers 500" in status
    assert f"blobferry redeliver {number}" in status
    assert json.loads(command("status", job.id, "--json").stdout)["deliveries"][0]["state"] == "given_up"
    again = command("redeliver", str(number)).stdout
    assert again == f"{number}  job.succeeded to webhook {URL}: waits for its first try\n"
    assert command("redeliver", job.id).exit_code == 0
    assert command("deliveries", "--failed").stdout == "no deliveries\n"
    assert command("redeliver", "999").exit_code == 2


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"state": "delivered", "status": 204, "tries": 1, "delivered_at": datetime.now(UTC)}, "(204)"),
        ({"state": "gone", "status": 410, "error": "answers 410 Gone"}, "the endpoint answers 410 Gone, and gets no"),
        ({"tries": 1, "status": 500, "error": "answers 500"}, "answers 500; 1 try, the next one at "),
        ({"tries": 1}, "is being sent"),
        ({}, "waits for its first try"),
    ],
)
def test_status_says_how_far_the_last_delivery_has_got(
    columns: dict[str, Any], words: str, command: Command, client: Client, sqlite_site: Site
) -> None:
    job = client.delete("/a", webhook=URL)
    told(sqlite_site, job.id, **columns)
    assert words in command("status", job.id).stdout
