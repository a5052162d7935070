"""The app learns the end of its jobs: written with the end, sent to the app's own queue, sent again when in doubt."""

import base64
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis
from sqlalchemy import update

from blobferry.contract import JobState
from blobferry.messages.job_messages import client_app
from blobferry.messages.publisher import Publisher
from blobferry.sql.tables import jobs as rows
from dev.services import Valkey, free_port, valkey
from models import Database
from models.queries.outbox import note_end
from tests.jobs.counted_run import cost_of
from tests.jobs.job_world import AT_ONCE, PATH, World, on_each_database
from tests.models.rows import ago
from worker.maintenance.deliver_ends import HOLD_SECONDS, deliver_ends

SIGNATURE = {"task": "shop.stored", "args": [7], "kwargs": {"by": "me"}, "options": {}}
LOST = {"task": "shop.lost", "args": [], "kwargs": {}, "options": {"queue": "alarms"}}
CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def broker() -> Iterator[Valkey]:
    with valkey() as server:
        yield server


@pytest.fixture(autouse=True)
def emptied(broker: Valkey) -> None:
    broker.flush()


@pytest.fixture
def publisher(broker: Valkey) -> Iterator[Publisher]:
    with client_app(broker.url) as app:
        yield Publisher(app)


def told(broker: Valkey, queue: str = "celery") -> list[dict[str, Any]]:
    """Task, id, arguments and parent of the messages in a queue, the oldest first."""
    with redis.Redis.from_url(broker.url) as connection:
        raw = [json.loads(entry) for entry in reversed(connection.lrange(queue, 0, -1))]
    found = []
    for message in raw:
        args, kwargs, _ = json.loads(base64.b64decode(message["body"]))
        headers = message["headers"]
        found.append({"task": headers["task"], "id": headers["id"], "args": args, "kwargs": kwargs, "headers": headers})
    return found


def small(world: World, **asked: Any) -> str:
    return str(world.ask("put_content", path=PATH, contents=b"abc", on_done=SIGNATURE, on_failed=LOST, **asked))


def write(world: World, **asked: Any) -> str:
    return world.submit(arguments={"on_done": SIGNATURE, "on_failed": LOST, **asked})


@on_each_database
@pytest.mark.parametrize("make", [small, write], ids=["in a batch", "alone"])
def test_success_is_told_once_to_the_queue_of_the_app(
    make: Callable[..., str], world: World, broker: Valkey, publisher: Publisher
) -> None:
    job_id = make(world, labels={"tenant": "acme"})
    world.succeed(job_id)
    assert told(broker) == [], "only what has been committed is told"
    assert world.sweep(publish=publisher.publish).told == 1
    (message,) = told(broker)
    event, own = message["args"]
    assert (message["task"], own, message["kwargs"]) == ("shop.stored", 7, {"by": "me"})
    assert (message["headers"]["parent_id"], message["headers"]["root_id"]) == (job_id, job_id)
    row = world.job_row(job_id)
    assert UUID(event["event_id"]) != UUID(message["id"])
    assert event | {"event_id": ""} == {
        "event_id": "",
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
    }
    assert world.sweep(publish=publisher.publish).told == 0
    assert len(told(broker)) == 1


@on_each_database
def test_a_failure_and_the_end_after_a_retry_are_two_events(world: World, broker: Valkey, publisher: Publisher) -> None:
    job_id = write(world)
    world.file.unlink()
    world.fail(job_id, "source_not_found", **AT_ONCE)
    world.sweep(publish=publisher.publish)
    (failed,) = told(broker, "alarms")
    assert (failed["task"], failed["args"][0]["state"], failed["args"][0]["error_code"]) == (
        *("shop.lost", "failed", "source_not_found"),
    )
    world.file.write_bytes(world.data)
    world.change(job_id, state="retrying", finished_at=None)
    world.succeed(job_id)
    world.sweep(publish=publisher.publish)
    (done,) = told(broker)
    assert (failed["args"][0]["sequence"], done["args"][0]["sequence"]) == (1, 2)
    assert failed["args"][0]["event_id"] != done["args"][0]["event_id"]
    assert done["args"][0]["error_code"] is None


@on_each_database
def test_ends_without_a_run_are_told_as_failures(world: World, broker: Valkey, publisher: Publisher) -> None:
    cancelled, late = write(world), write(world, deadline="2001-01-01T00:00:00+00:00")
    world.change(cancelled, cancel_requested=True)
    swept = world.sweep(publish=publisher.publish)
    assert (swept.changed, swept.told) == (2, 2)
    states = {message["args"][0]["job_id"]: message["args"][0]["state"] for message in told(broker, "alarms")}
    assert states == {cancelled: "cancelled", late: "failed"}


def test_a_run_that_was_cancelled_is_told(world: World, broker: Valkey, publisher: Publisher) -> None:
    job_id = write(world)
    world.change(job_id, state="running")
    world.change(job_id, state="queued")
    store = world.requesting(job_id, "upload_part")
    world.cancel(job_id, store, lease={"seconds": 30, "heartbeat_seconds": 0.03, "margin_seconds": 1})
    world.sweep(publish=publisher.publish)
    assert [message["args"][0]["state"] for message in told(broker, "alarms")] == ["cancelled"]


@on_each_database
@pytest.mark.parametrize("size", [7])
def test_a_job_of_which_nobody_is_told_costs_no_statement_more(world: World) -> None:
    asked = {"path": PATH, "source": world.file.as_uri()}
    unheard = cost_of(world, world.submit(arguments=asked, deadline=ago(-3600)))
    heard = cost_of(world, world.submit(arguments=asked | {"on_done": SIGNATURE}, deadline=ago(-3600)))
    assert [one for one in heard.statements if "blobferry_deliveries" in one] != []
    assert [one for one in unheard.statements if "blobferry_deliveries" in one] == []
    assert len(heard.statements) == len(unheard.statements) + 1
    assert heard.transactions == unheard.transactions


@on_each_database
def test_a_rolled_back_end_tells_nobody(world: World) -> None:
    job_id = write(world)
    world.change(job_id, state="succeeded", finished_at=ago(0))
    with world.database.begin() as session:
        note_end(session, JobState.SUCCEEDED, {job_id: ("default", {"on_done": SIGNATURE})})
        session.rollback()
    assert world.deliveries(job_id) == []


@on_each_database
def test_while_the_broker_is_away_it_is_kept_and_tried_again(
    world: World, broker: Valkey, publisher: Publisher
) -> None:
    job_id = write(world)
    world.succeed(job_id)
    with client_app(f"redis://127.0.0.1:{free_port()}/0") as away:
        assert world.sweep(publish=Publisher(away).publish).told == 0
    (kept,) = world.deliveries(job_id)
    assert (kept.state, kept.tries) == ("due", 0)
    assert world.sweep(publish=publisher.publish).told == 0, "not yet due again"
    assert told(broker) == []
    make_due(world.database)
    assert world.sweep(publish=publisher.publish).told == 1
    assert len(told(broker)) == 1


def make_due(database: Database) -> None:
    with database.begin() as session:
        session.connection().exec_driver_sql("UPDATE blobferry_deliveries SET due_at = '2001-01-01 00:00:00.000000'")


def test_what_was_sent_but_not_noted_is_sent_again_as_the_same_task(
    world: World, broker: Valkey, publisher: Publisher
) -> None:
    job_id = write(world)
    world.succeed(job_id)

    def dying(*messages: Any) -> int:
        publisher.publish(*messages)
        raise KeyboardInterrupt  # the process ends here

    with world.worker() as runtime:
        with pytest.raises(KeyboardInterrupt):
            deliver_ends(runtime, dying)
        assert deliver_ends(runtime, publisher.publish) == 0, f"another one waits for {HOLD_SECONDS} s"
        make_due(world.database)
        assert deliver_ends(runtime, publisher.publish) == 1
    first, second = told(broker)
    assert (first["id"], first["args"]) == (second["id"], second["args"])


def test_a_job_of_which_somebody_is_still_to_be_told_is_not_pruned(world: World, publisher: Publisher) -> None:
    job_id = write(world)
    world.succeed(job_id)
    assert world.prune(job_seconds=0, tombstone_seconds=60, limit=9) == 0
    world.sweep(publish=publisher.publish)
    world.change(job_id, finished_at=ago(5))
    assert world.prune(job_seconds=0, tombstone_seconds=60, limit=9) == 1
    assert world.deliveries(job_id) == []


@pytest.mark.parametrize(
    "options",
    [
        {"eta": {"__type__": "datetime", "__value__": "2026-01-01"}},
        {"countdown": 1e30},
        {"queue": 7},
        {"expires": ["x"]},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_celery_cannot_make_a_message_of_holds_up_no_other_end(
    options: dict[str, Any], world: World, broker: Valkey, publisher: Publisher
) -> None:
    """Rows of an earlier version may have such options. The broker does not count as away for it."""
    jobs = [world.submit(arguments={"path": f"/{number}", "on_done": SIGNATURE}) for number in range(3)]
    with world.database.begin() as session:
        odd = {"on_done": {**SIGNATURE, "options": options}}
        session.execute(update(rows).where(rows.c.id == jobs[1]).values(on_end=odd))
    for job_id in jobs:
        world.succeed(job_id)
    world.sweep(publish=publisher.publish)
    assert [message["args"][0]["job_id"] for message in told(broker)] == [jobs[0], jobs[2]]
    assert not publisher.is_paused
    assert [delivery.state for job_id in jobs for delivery in world.deliveries(job_id)] == ["delivered"] * 3


def test_an_immutable_signature_gets_its_own_arguments_alone(
    world: World, broker: Valkey, publisher: Publisher
) -> None:
    world.succeed(world.submit(arguments={"on_done": {**SIGNATURE, "immutable": True}}))
    world.sweep(publish=publisher.publish)
    assert [message["args"] for message in told(broker)] == [[7]]


DIES_AFTER_THE_END = """
    import os, sys
    from worker.jobs.runner import run_job
    from worker.runtime import start_runtime
    run_job(start_runtime(), sys.argv[1])
    os.kill(os.getpid(), 9)
"""


@on_each_database
def test_a_process_killed_between_end_and_delivery_leaves_it_to_the_caretaker(
    world: World, broker: Valkey, tmp_path: Path
) -> None:
    """The very next step of that process would be to deliver it. Then another process sweeps once."""
    job_id = small(world)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("BLOBFERRY_")},
        "BLOBFERRY_DATABASE_URL": world.database.engine.url.render_as_string(hide_password=False),
        "BLOBFERRY_BROKER_URL": broker.url,
        "BLOBFERRY_STORAGES__DEFAULT__DRIVER": "local",
        "BLOBFERRY_STORAGES__DEFAULT__ROOTDIRECTORY": str(tmp_path / "store"),
    }
    (tmp_path / "store").mkdir()
    command = [sys.executable, "-c", textwrap.dedent(DIES_AFTER_THE_END), job_id]
    killed = subprocess.run(command, env=environment, cwd=CHECKOUT, capture_output=True, text=True, timeout=120)
    assert killed.returncode == -9, killed.stderr
    assert world.job_row(job_id).state == "succeeded"
    assert told(broker) == []
    sweep = [sys.executable, "-m", "worker", "sweep"]
    done = subprocess.run(sweep, env=environment, cwd=CHECKOUT, capture_output=True, text=True, timeout=120)
    assert "told=1" in done.stdout, done.stderr
    assert [message["args"][0]["job_id"] for message in told(broker)] == [job_id]
