"""Webhooks: written with the end, signed by the specification, tried for a day, and never in the way of anything."""

import json
import os
import signal
import ssl
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text, update
from standardwebhooks import WebhookVerificationError

from blobferry.contract import JobState
from blobferry.jobs.delivery_log import redeliver
from blobferry.jobs.webhook_receivers import webhook_receiver
from blobferry.messages.end_events import event_id
from blobferry.sealing import Sealer
from dev.waiting import wait_until
from models import Database, DeliveryRow
from models.queries import WebhookDelivery
from models.queries.outbox import note_end
from tests.jobs.counted_run import cost_of
from tests.jobs.job_world import AT_ONCE, PATH, World, on_each_database
from tests.maintenance.webhook_site import NEW_SECRET, SECRET, WebhookSite, hang, hang_up, receiving, status
from tests.models.rows import ago, at_once
from tests.transfer.sources.http.test_addresses import write_certificate
from worker.errors import UnreachableError
from worker.maintenance.webhooks.endpoints import PostAnswer
from worker.maintenance.webhooks.webhook_lanes import WebhookLanes
from worker.maintenance.webhooks.webhook_post import FIRST_PAUSE, LONGEST_PAUSE, WebhookPost, pause_after
from worker.parameters import DriverParameters

CHECKOUT = Path(__file__).parents[2]
#: Of a worker whose endpoints may be on loopback, without TLS.
LOCAL: dict[str, Any] = {
    "secrets": {"default": [SECRET]},
    "allow_http": True,
    "allow_private": True,
}


@pytest.fixture
def site() -> Iterator[WebhookSite]:
    with receiving() as found:
        yield found


@pytest.fixture(autouse=True)
def _no_storage_webhooks(world_database: Database) -> Iterator[None]:
    yield
    world_database.storage_webhooks = {}


def small(world: World, site: WebhookSite, path: str = "/hook", **asked: Any) -> str:
    return str(world.ask("put_content", path=PATH, contents=b"abc", webhook=site.url + path, **asked))


def write(world: World, site: WebhookSite, path: str = "/hook", **asked: Any) -> str:
    return world.submit(arguments={"webhook": site.url + path, **asked})


def send(world: World, **settings: Any) -> None:
    """A caretaker sends what is due now."""
    with world.worker(webhooks={**LOCAL, **settings}) as runtime:
        WebhookPost(runtime).send_due()


def make_due(database: Database) -> None:
    with database.begin() as session:
        session.execute(text("UPDATE blobferry_deliveries SET due_at = '2001-01-01 00:00:00.000000'"))


def pause_of(world: World, job_id: str) -> float:
    """Seconds from its last try until the next one."""
    (row,) = world.deliveries(job_id)
    return float((row.due_at - row.tried_at).total_seconds())


# --- what is told -----------------------------------------------------------------------------------------------------


@on_each_database
@pytest.mark.parametrize("make", [small, write], ids=["in a batch", "alone"])
def test_success_is_posted_once_and_its_signature_holds(
    make: Callable[..., str], world: World, site: WebhookSite
) -> None:
    job_id = make(world, site, labels={"tenant": "acme"})
    world.succeed(job_id)
    assert site.posted == [], "only what has been committed is told"
    send(world)
    (posted,) = site.posted
    row, message = world.job_row(job_id), posted.verified()
    assert message == {
        "type": "job.succeeded",
        "timestamp": row.finished_at.isoformat(),
        "data": {
            "event_id": posted.headers["webhook-id"],
            "sequence": 1,
            "job_id": job_id,
            "state": "succeeded",
            "operation": row.operation,
            "storage": "default",
            "path": PATH,
            "size": row.size,
            "labels": {"tenant": "acme"},
            "error_code": None,
            "error_message": None,
            "finished_at": row.finished_at.isoformat(),
        },
    }
    assert posted.headers["webhook-id"] == event_id(job_id, 1)
    assert posted.headers["content-type"] == "application/json"
    (kept,) = world.deliveries(job_id)
    assert (kept.state, kept.status, kept.tries, kept.error) == ("delivered", 204, 1, None)
    make_due(world.database)
    send(world)
    assert len(site.posted) == 1


@on_each_database
def test_a_failure_and_the_end_after_a_retry_are_two_events(world: World, site: WebhookSite) -> None:
    job_id = write(world, site)
    world.file.unlink()
    world.fail(job_id, "source_not_found", **AT_ONCE)
    send(world)
    world.file.write_bytes(world.data)
    world.change(job_id, state="retrying", finished_at=None)
    world.succeed(job_id)
    send(world)
    failed, done = (posted.verified() for posted in site.posted)
    assert (failed["type"], failed["data"]["error_code"], failed["data"]["sequence"]) == (
        *("job.failed", "source_not_found", 1),
    )
    assert (done["type"], done["data"]["error_code"], done["data"]["sequence"]) == ("job.succeeded", None, 2)
    assert failed["data"]["event_id"] != done["data"]["event_id"]


@on_each_database
def test_ends_without_a_run_are_told(world: World, site: WebhookSite) -> None:
    cancelled, late = write(world, site), write(world, site, deadline="2001-01-01T00:00:00+00:00")
    world.change(cancelled, cancel_requested=True)
    assert world.sweep().changed == 2
    send(world)
    told = {posted.verified()["data"]["job_id"]: posted.verified()["type"] for posted in site.posted}
    assert told == {cancelled: "job.cancelled", late: "job.failed"}


@on_each_database
def test_a_storage_tells_of_the_ends_of_all_its_jobs(world: World, site: WebhookSite) -> None:
    parameters = DriverParameters.parse({"driver": "memory", "webhook": f"{site.url}/all"})
    plain, own = world.submit(), write(world, site, path="/own")
    same = write(world, site, path="/all")
    elsewhere = world.submit(arguments={"storage": "cold"})
    for job_id in (plain, own, same, elsewhere):
        world.succeed(job_id, storages={"default": parameters})
    send(world)
    assert sorted(posted.verified()["data"]["job_id"] for posted in site.of("/all")) == sorted([plain, own, same])
    assert [posted.verified()["data"]["job_id"] for posted in site.of("/own")] == [own]


@on_each_database
def test_a_rolled_back_end_tells_nobody(world: World, site: WebhookSite) -> None:
    job_id = write(world, site)
    world.change(job_id, state="succeeded", finished_at=ago(0))
    receiver = webhook_receiver(f"{site.url}/hook", "default", Sealer())
    ended = {job_id: ("default", {"webhook": receiver})}
    with world.database.begin() as session:
        note_end(session, JobState.SUCCEEDED, ended)
        session.rollback()
    send(world)
    assert (world.deliveries(job_id), site.posted) == ([], [])
    with world.database.begin() as session:
        note_end(session, JobState.SUCCEEDED, ended)
    send(world)
    assert len(site.posted) == 1


@on_each_database
@pytest.mark.parametrize("size", [7])
def test_a_job_of_which_nobody_is_told_costs_no_statement_more(world: World, site: WebhookSite) -> None:
    asked = {"path": PATH, "source": world.file.as_uri()}
    unheard = cost_of(world, world.submit(arguments=asked, deadline=ago(-3600)))
    heard = cost_of(world, write(world, site, deadline="2222-01-01T00:00:00+00:00"))
    assert [one for one in unheard.statements if "blobferry_deliveries" in one] == []
    assert len(heard.statements) == len(unheard.statements) + 1


# --- signatures -------------------------------------------------------------------------------------------------------


def test_while_secrets_are_rotated_all_of_them_sign(world: World, site: WebhookSite) -> None:
    world.succeed(write(world, site))
    send(world, secrets={"default": [NEW_SECRET, SECRET]})
    (posted,) = site.posted
    assert posted.verified(SECRET) == posted.verified(NEW_SECRET)
    assert len(posted.headers["webhook-signature"].split(" ")) == 2
    world.succeed(write(world, site))
    send(world, secrets={"default": [NEW_SECRET]})
    assert site.posted[1].verified(NEW_SECRET)
    with pytest.raises(WebhookVerificationError):
        site.posted[1].verified(SECRET)


@on_each_database
def test_a_delivery_is_left_to_a_worker_that_has_its_secret(world: World, site: WebhookSite) -> None:
    job_id = write(world, site, webhook_secret="billing")
    world.succeed(job_id)
    send(world)
    send(world, secrets={})
    assert (site.posted, world.deliveries(job_id)[0].tries) == ([], 0)
    send(world, secrets={"default": [SECRET], "billing": [NEW_SECRET]})
    assert site.posted[0].verified(NEW_SECRET)["data"]["job_id"] == job_id


@on_each_database
def test_what_no_worker_can_sign_is_given_up_after_its_time(world: World, site: WebhookSite) -> None:
    job_id = write(world, site, webhook_secret="billing")
    world.succeed(job_id)
    with world.worker(webhooks={**LOCAL, "give_up_seconds": 0}) as runtime:
        post = WebhookPost(runtime)
        assert post.give_up_unsigned() == 0, "another worker may still come"
    with world.database.begin() as session:
        session.execute(text("UPDATE blobferry_deliveries SET ended_at = '2001-01-01 00:00:00.000000'"))
    with world.worker(webhooks=LOCAL) as runtime:
        assert WebhookPost(runtime).give_up_unsigned() == 1
    (row,) = world.deliveries(job_id)
    assert (row.state, row.error) == (
        "given_up",
        "no worker has tried it that has its secret, webhooks.secrets.billing",
    )


def test_a_try_long_after_the_end_has_a_timestamp_of_its_own(world: World, site: WebhookSite) -> None:
    """The library for receivers refuses what is older than five minutes."""
    site.scripts["/hook"].append(status(500))
    job_id = write(world, site)
    world.succeed(job_id)
    with world.database.begin() as session:
        session.execute(update(DeliveryRow).values(ended_at=ago(7200)))
    send(world)
    make_due(world.database)
    send(world)
    first, second = site.posted
    assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)
    assert datetime.fromisoformat(second.verified()["timestamp"]) < datetime.now(UTC) - timedelta(seconds=7000)


def test_no_secret_is_in_rows_or_logs(world: World, site: WebhookSite, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    key = "a" * 43 + "="
    url = site.url.replace("//", "//user:pass-word@") + "/hook?token=query-secret"
    job_id = world.submit(arguments={"webhook": url}, sealer=Sealer(key))
    world.succeed(job_id)
    site.scripts["/hook?token=query-secret"].append(status(500))
    with world.worker(webhooks=LOCAL) as runtime:
        runtime.sealer = Sealer(key)
        WebhookPost(runtime).send_due()
    assert site.posted[0].headers["authorization"].startswith("Basic ")
    with world.database.begin() as session:
        rows = [list(session.execute(text(f"SELECT * FROM blobferry_{table}"))) for table in ("deliveries", "jobs")]
    said = f"{rows} {caplog.text} {[record.__dict__ for record in caplog.records]}"
    assert "webhook not delivered" in caplog.text
    for secret in ("pass-word", "query-secret", SECRET.removeprefix("whsec_")):
        assert secret not in said


# --- what is refused, and how long it is tried ------------------------------------------------------------------------


@on_each_database
@pytest.mark.parametrize("code", [400, 404, 500, 503])
def test_what_is_refused_is_tried_again_later(world: World, site: WebhookSite, code: int) -> None:
    site.scripts["/hook"].append(status(code))
    job_id = write(world, site)
    world.succeed(job_id)
    send(world)
    send(world)
    (row,) = world.deliveries(job_id)
    assert (row.state, row.status, row.tries, len(site.posted)) == ("waiting", code, 1, 1)
    assert row.error.startswith(f"answers {code}")
    assert FIRST_PAUSE / 2 <= pause_of(world, job_id) <= FIRST_PAUSE
    make_due(world.database)
    send(world)
    (row,) = world.deliveries(job_id)
    assert (row.state, row.status, row.error, row.tries) == ("delivered", 204, None, 2)


def test_the_pauses_double_at_random_up_to_an_hour() -> None:
    for tries, longest in ((1, 5), (2, 10), (3, 20), (10, 2560), (11, LONGEST_PAUSE), (5000, LONGEST_PAUSE)):
        found = {pause_after(tries) for _ in range(50)}
        assert all(longest / 2 <= pause <= longest for pause in found)
        assert len(found) > 1


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize(("asked", "pause"), [("100", 100), ("999999", LONGEST_PAUSE), ("soon", FIRST_PAUSE)])
def test_an_endpoint_that_asks_to_wait_is_left_alone_up_to_an_hour(
    world: World, site: WebhookSite, code: int, asked: str, pause: float
) -> None:
    site.scripts["/hook"].append(status(code, Retry_After=asked))
    job_id = write(world, site)
    world.succeed(job_id)
    send(world)
    assert pause / 2 <= pause_of(world, job_id) <= pause + 0.01
    assert asked == "soon" or pause_of(world, job_id) >= pause - 0.01


@on_each_database
def test_after_its_time_a_webhook_is_given_up_and_may_be_sent_again(world: World, site: WebhookSite) -> None:
    site.scripts["/hook"] += [status(500), status(500)]
    job_id = write(world, site)
    world.succeed(job_id)
    send(world)
    with world.database.begin() as session:
        session.execute(text("UPDATE blobferry_deliveries SET ended_at = '2001-01-01 00:00:00.000000'"))
    make_due(world.database)
    send(world)
    (row,) = world.deliveries(job_id)
    assert (row.state, row.tries) == ("given_up", 2)
    make_due(world.database)
    send(world)
    assert len(site.posted) == 2
    (again,) = redeliver(world.database.engine, job_id)
    assert (again.state, again.tries, again.error) == ("waiting", 0, None)
    send(world)
    (row,) = world.deliveries(job_id)
    assert row.state == "delivered"
    assert len({posted.headers["webhook-id"] for posted in site.posted}) == 1


@on_each_database
def test_an_endpoint_that_is_gone_gets_no_more_of_that_job(world: World, site: WebhookSite) -> None:
    site.scripts["/hook"].append(status(410))
    job_id, other = write(world, site), write(world, site)
    world.succeed(job_id)
    send(world)
    world.change(job_id, state="retrying", finished_at=None)
    world.succeed(job_id)
    send(world)
    (row,) = world.deliveries(job_id)
    assert (row.state, row.status, len(site.posted)) == ("gone", 410, 1)
    world.succeed(other)
    send(world)
    assert site.posted[1].verified()["data"]["job_id"] == other
    redeliver(world.database.engine, row.id)
    send(world)
    assert world.deliveries(job_id)[0].state == "delivered", "a person knows better"


def test_a_gone_endpoint_ends_what_else_waits_for_it(world: World, site: WebhookSite) -> None:
    site.scripts["/hook"] += [status(500), status(410)]
    job_id = write(world, site)
    world.succeed(job_id)
    send(world)
    world.change(job_id, state="retrying", finished_at=None)
    world.succeed(job_id)
    send(world)
    assert [row.state for row in world.deliveries(job_id)] == ["gone", "gone"]


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(world: World, site: WebhookSite, code: int) -> None:
    site.scripts["/hook"].append(status(code, Location=f"{site.url}/elsewhere"))
    job_id = write(world, site)
    world.succeed(job_id)
    send(world)
    (row,) = world.deliveries(job_id)
    assert ([posted.path for posted in site.posted], site.asked) == (["/hook"], [])
    assert (row.state, row.status) == ("waiting", code)
    assert row.error.endswith("a redirect, which is not followed")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"allow_private": False}, "127.0.0.1: 127.0.0.1 is no public address (webhooks.allow_private would allow it)"),
        ({"allow_http": False}, "is no https: URL (webhooks.allow_http would allow it)"),
        ({"refuse": ["127.0.0.0/8"]}, "127.0.0.1: 127.0.0.1 is refused by webhooks.refuse"),
    ],
)
def test_an_endpoint_that_may_not_be_reached_gets_nothing(
    world: World, site: WebhookSite, settings: Mapping[str, Any], problem: str
) -> None:
    job_id = write(world, site)
    world.succeed(job_id)
    send(world, **settings)
    (row,) = world.deliveries(job_id)
    assert (row.state, row.status, row.error) == ("waiting", None, problem)
    assert site.posted == []


def test_an_endpoint_must_have_a_certificate_that_is_trusted(world: World, tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path / "shop.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with receiving(address="127.0.0.2", tls=context) as shop:
        job_id = write(world, shop)
        world.succeed(job_id)
        send(world, allow_http=False)
        (row,) = world.deliveries(job_id)
        assert "certificate verify failed" in row.error
        assert shop.posted == []
        make_due(world.database)
        send(world, allow_http=False, ca_file=certificate)
        assert shop.posted[0].verified()["data"]["job_id"] == job_id


def test_an_endpoint_that_hangs_up_or_is_not_there_is_tried_again(world: World, site: WebhookSite) -> None:
    site.scripts["/hook"].append(hang_up)
    hung_up = write(world, site)
    absent = world.submit(arguments={"webhook": "http://127.0.0.1:1/x"})
    for job_id in (hung_up, absent):
        world.succeed(job_id)
    send(world)
    for job_id in (hung_up, absent):
        (row,) = world.deliveries(job_id)
        assert (row.state, row.status, row.tries) == ("waiting", None, 1)
        assert row.error


# --- in nobody's way --------------------------------------------------------------------------------------------------


@on_each_database
def test_an_endpoint_that_hangs_delays_no_other(world: World, site: WebhookSite) -> None:
    """Four jobs of the endpoint that hangs are due first, and one thread in four may be its."""
    with receiving(address="127.0.0.2") as other:
        site.scripts["/hook"] += [hang] * 4
        hanging = [write(world, site) for _ in range(4)]
        quick = write(world, other)
        for job_id in (*hanging, quick):
            world.succeed(job_id)
        with world.worker(webhooks={**LOCAL, "threads": 8}) as runtime:
            post = WebhookPost(runtime)
            post.begin()
            wait_until(lambda: other.posted, 30, "the other endpoint's webhook")
            assert (site.hanging.acquire(timeout=30), site.hanging.acquire(timeout=30)) == (True, True)
            assert len(site.posted) == 2, "a host has a quarter of the threads"
            assert sum(world.deliveries(job_id)[0].tries for job_id in hanging) == 2
            site.released.set()
            post.send_due()
        assert world.deliveries(quick)[0].state == "delivered"
        assert {world.deliveries(job_id)[0].tries for job_id in hanging} == {1}


def test_a_try_that_takes_too_long_has_failed_whatever_its_thread_does(world: World, site: WebhookSite) -> None:
    site.scripts["/hook"].append(hang)
    job_id = write(world, site)
    world.succeed(job_id)
    send(world, total_seconds=0.2, read_seconds=60)
    (row,) = world.deliveries(job_id)
    assert (row.state, row.status, row.error) == ("waiting", None, "no answer within 0.2 s")
    assert not site.released.is_set(), "its thread still hangs"


@on_each_database
def test_a_try_from_before_a_redelivery_changes_nothing_when_it_fails(world: World, site: WebhookSite) -> None:
    site.scripts["/hook"].append(hang)
    job_id = write(world, site)
    world.succeed(job_id)
    with world.worker(webhooks=LOCAL) as runtime:
        post = WebhookPost(runtime)
        assert post.begin() == 1
        assert site.hanging.acquire(timeout=30)
        redeliver(world.database.engine, job_id)
        site.released.set()
        assert wait_until(post.settle, 30, "the end of the first try") == 1
    (row,) = world.deliveries(job_id)
    assert (row.state, row.tries, row.error) == ("waiting", 0, None)
    send(world)
    assert world.deliveries(job_id)[0].state == "delivered"


def test_a_sweep_waits_for_no_endpoint(world: World, site: WebhookSite) -> None:
    site.scripts["/hook"].append(hang)
    job_id = write(world, site)
    world.succeed(job_id)
    with world.worker(webhooks=LOCAL) as runtime:
        post = WebhookPost(runtime)
        assert post.begin() == 1
        assert site.hanging.acquire(timeout=30)
        world.sweep()
        assert not site.released.is_set()


def some_delivery() -> WebhookDelivery:
    return WebhookDelivery(
        *(1, "job", 1, "succeeded", 3, None, None, datetime.now(UTC), "delete", "default", "/a", None),
        *("https://slow/x", "https://slow/x", "slow", "default", 1, datetime.now(UTC)),
    )


def test_a_thread_that_hangs_on_keeps_its_lane_and_that_of_its_host() -> None:
    let_go = threading.Event()

    def post(delivery: WebhookDelivery) -> PostAnswer:
        let_go.wait(60)
        return PostAnswer(204)

    lanes = WebhookLanes(post, threads=4, total_seconds=0.05)
    delivery = some_delivery()
    lanes.begin(delivery)
    assert list(lanes.ended(60)) == [(delivery, PostAnswer(problem="no answer within 0.05 s"))]
    assert (lanes.awaited, lanes.free, lanes.busy_hosts) == (0, 3, ["slow"])
    let_go.set()
    assert wait_until(lambda: list(lanes.ended(0)) or lanes.free == 4, 30, "the end of the thread") is True
    assert lanes.busy_hosts == []


def test_an_error_of_our_own_frees_the_lane_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def post(delivery: WebhookDelivery) -> PostAnswer:
        raise ZeroDivisionError

    lanes, delivery = WebhookLanes(post, threads=4, total_seconds=60), some_delivery()
    lanes.begin(delivery)
    assert list(lanes.ended(60)) == [(delivery, PostAnswer(problem="ZeroDivisionError"))]
    assert (lanes.free, lanes.awaited) == (4, 0)
    assert "webhook not posted" in caplog.text


def test_a_database_that_is_away_ends_no_loop_and_is_told_once(
    world: World, site: WebhookSite, caplog: pytest.LogCaptureFixture
) -> None:
    class Away(Database):
        def read(self) -> Any:
            raise UnreachableError("database: away")

    away = Away(world.database.engine.url.render_as_string(hide_password=False))
    with world.worker(webhooks=LOCAL, database=away) as runtime:
        post = WebhookPost(runtime)
        for _ in range(3):
            post.send_due()
    assert [record.getMessage() for record in caplog.records] == [
        "webhooks not sent, tried again soon: database: away",
    ]
    away.close()


@on_each_database
def test_two_caretakers_at_once_send_each_webhook_once(world: World, site: WebhookSite) -> None:
    jobs = [write(world, site) for _ in range(9)]
    for job_id in jobs:
        world.succeed(job_id)
    with world.worker(webhooks=LOCAL) as first, world.worker(webhooks=LOCAL) as second:
        posts = WebhookPost(first), WebhookPost(second)
        at_once(2, lambda number: posts[number].send_due())
        for post in posts:  # of those that one had locked when the other looked
            post.send_due()
    assert sorted(posted.verified()["data"]["job_id"] for posted in site.posted) == sorted(jobs)


# --- kills ------------------------------------------------------------------------------------------------------------

DIES_AFTER_THE_END = """
    import os, sys
    from worker.jobs.runner import run_job
    from worker.runtime import start_runtime
    run_job(start_runtime(), sys.argv[1])
    os.kill(os.getpid(), 9)
"""


def environment(world: World, directory: Path) -> dict[str, str]:
    (directory / "store").mkdir(exist_ok=True)
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("BLOBFERRY_")},
        "BLOBFERRY_DATABASE_URL": world.database.engine.url.render_as_string(hide_password=False),
        "BLOBFERRY_BROKER_URL": "redis://127.0.0.1:1/0",
        "BLOBFERRY_STORAGES__DEFAULT__DRIVER": "local",
        "BLOBFERRY_STORAGES__DEFAULT__ROOTDIRECTORY": str(directory / "store"),
        "BLOBFERRY_WEBHOOKS__SECRETS__DEFAULT": f"{NEW_SECRET},{SECRET}",
        "BLOBFERRY_WEBHOOKS__ALLOW_HTTP": "true",
        "BLOBFERRY_WEBHOOKS__ALLOW_PRIVATE": "true",
    }


@on_each_database
def test_a_process_killed_between_end_and_delivery_leaves_it_to_a_caretaker(
    world: World, site: WebhookSite, tmp_path: Path
) -> None:
    job_id = small(world, site)
    how: dict[str, Any] = {"cwd": CHECKOUT, "capture_output": True, "text": True, "timeout": 120}
    how["env"] = environment(world, tmp_path)
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(DIES_AFTER_THE_END), job_id], **how)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (world.job_row(job_id).state, site.posted) == ("succeeded", [])
    done = subprocess.run([sys.executable, "-m", "worker", "sweep"], **how)
    assert done.returncode == 0, done.stderr
    (posted,) = site.posted
    assert posted.verified(SECRET) == posted.verified(NEW_SECRET)
    assert world.deliveries(job_id)[0].state == "delivered"


@on_each_database
def test_a_caretaker_killed_while_an_endpoint_answers_repeats_the_same_event(
    world: World, site: WebhookSite, tmp_path: Path
) -> None:
    """It is held for a while, then another caretaker sends it."""
    site.scripts["/hook"].append(hang)
    job_id = write(world, site)
    world.succeed(job_id)
    command = [sys.executable, "-m", "worker", "sweep", "--loop"]
    with subprocess.Popen(command, cwd=CHECKOUT, env=environment(world, tmp_path), stderr=subprocess.PIPE) as caretaker:
        assert site.hanging.acquire(timeout=60)
        caretaker.kill()
    send(world)
    (row,) = world.deliveries(job_id)
    assert (row.state, row.tries, len(site.posted)) == ("waiting", 1, 1), "it is held"
    make_due(world.database)
    send(world)
    first, second = site.posted
    assert (first.headers["webhook-id"], json.loads(first.body)) == (second.headers["webhook-id"], second.verified())
    assert world.deliveries(job_id)[0].state == "delivered"


def test_a_caretaker_sends_what_becomes_due_and_ends_in_order(world: World, site: WebhookSite, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "worker", "sweep", "--loop"]
    with subprocess.Popen(command, cwd=CHECKOUT, env=environment(world, tmp_path), stderr=subprocess.PIPE) as caretaker:
        job_id = write(world, site)
        world.succeed(job_id)
        wait_until(lambda: world.deliveries(job_id)[0].state == "delivered", 60, "the delivery")
        caretaker.terminate()
        assert caretaker.wait(60) == 0


# --- pruning ----------------------------------------------------------------------------------------------------------


def test_deliveries_are_pruned_with_their_job_but_not_while_they_wait(world: World, site: WebhookSite) -> None:
    site.scripts["/hook"].append(status(500))
    job_id = write(world, site)
    world.succeed(job_id)
    send(world)
    world.change(job_id, finished_at=ago(5))
    assert world.prune(job_seconds=0, tombstone_seconds=60, limit=9) == 0
    make_due(world.database)
    send(world)
    assert world.prune(job_seconds=0, tombstone_seconds=60, limit=9) == 1
    assert world.deliveries(job_id) == []
