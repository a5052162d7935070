"""A broker that forgets, goes away, stays silent or says everything twice. SQL owns the truth, so it costs seconds.

The table of all failures and their tests is in test_failures_of_workers.
"""

import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from celery import Celery
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from blobferry import Client, Job
from blobferry.messages.job_messages import Message, client_app, publish
from dev.proxies.tcp import Wire, wire
from dev.services import Valkey, valkey
from dev.stack import Stack
from tests.system.conftest import LASTING_BROKER
from tests.system.recorded_stack import LONG_LEASE, Scene, recorded

TWO_SLOTS = LONG_LEASE | {"BLOBFERRY_CONCURRENCY": "2"}


def message_of(scene: Scene, job_id: str) -> Message:
    """The newest message of a job's row."""
    (row,) = scene.rows.select("select * from blobferry_jobs where id = :id", id=job_id)
    return Message.from_row(row)


def deliver(stack: Stack, *messages: Message) -> None:
    app = client_app(stack.broker_url)
    for message in messages:
        assert publish(app, message)
    app.close()


def wait_until_all_before_is_delivered(scene: Scene, path: str = "/marker") -> None:
    """A job behind all other messages is done, and the queue is empty."""
    scene.succeeded(scene.submit(path, 1), timeout=30)


def half_a_minute_later(scene: Scene) -> None:
    """Messages that were sent before count as lost from now on, as they would 30 s after they were sent."""
    scene.rows.execute(
        "update blobferry_jobs set published_at = now() - interval '31 s' where published_at > now() - interval '31 s'"
    )


def token_of(scene: Scene, job: Job) -> int:
    (row,) = scene.rows.select("select token from blobferry_jobs where id = :id", id=job.id)
    return int(row["token"])


@pytest.fixture(scope="module")
def cable(broker: Valkey) -> Iterator[Wire]:
    """A wire to the broker, for workers alone."""
    with wire(("127.0.0.1", broker.port)) as running:
        yield running


@pytest.fixture(scope="module")
def scene(lasting_stack: Stack, cable: Wire) -> Iterator[Scene]:
    """One worker for all failures that it can survive, and its broker at the end of the cable."""
    url = f"redis://127.0.0.1:{cable.port}/{LASTING_BROKER}"
    with recorded(lasting_stack, settings=TWO_SLOTS, broker_url=url) as scene, scene.stack.worker():
        yield scene


@pytest.fixture(params=[pytest.param("with AOF", marks=pytest.mark.long), "without AOF"])
def mortal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Valkey]:
    """A broker of the test's own."""
    with valkey(directory=tmp_path / "valkey" if request.param == "with AOF" else None) as service:
        yield service


def test_redis_is_down_while_jobs_run_and_are_submitted_and_restarts(stack: Stack, mortal: Valkey) -> None:
    stack = replace(stack, broker_url=mortal.url)
    with recorded(stack, settings=LONG_LEASE) as scene, scene.stack.worker():
        running, queued = scene.submit("/down/running", 12), scene.submit("/down/queued", 2)
        scene.under_way(running)
        mortal.kill9()
        submitted = scene.submit("/down/submitted", 2)
        scene.succeeded(running, attempt=1)  # telemetry fails no job
        mortal.restart()
        half_a_minute_later(scene)
        scene.succeeded_once(running, queued, submitted)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_redis_is_down_for_a_minute_while_jobs_run_and_are_submitted(stack: Stack) -> None:
    with valkey() as mortal:
        stack = replace(stack, broker_url=mortal.url)
        with recorded(stack, delays={"upload_part": 5}, settings=LONG_LEASE) as scene, scene.stack.worker():
            running = scene.begin("/minute/running", 45)  # lasts 75 s
            mortal.kill9()
            submitted = [scene.submit(f"/minute/{n}", 1) for n in range(5)]
            threading.Event().wait(60)
            mortal.restart()
            scene.succeeded_once(running, *submitted, timeout=180)


@pytest.mark.long
def test_an_idle_worker_gives_up_a_half_open_connection_to_redis(scene: Scene, cable: Wire) -> None:
    cable.freeze_existing()
    for number in range(3):
        scene.succeeded_once(scene.submit(f"/idle/{number}", 2), timeout=120)
    cable.thaw()


def test_a_partition_from_redis_does_not_keep_a_running_job_from_its_end(scene: Scene, cable: Wire) -> None:
    running = scene.begin("/partition/running", 6)
    cable.freeze()
    (running,) = scene.succeeded_once(running, timeout=30)
    cable.thaw()
    assert scene.result(running).get(timeout=20)["size"] == running.size
    scene.succeeded_once(scene.submit("/partition/later", 2))


def test_duplicate_and_out_of_date_messages_claim_nothing(scene: Scene) -> None:
    job = scene.submit("/duplicate/blob", 9)
    first = message_of(scene, job.id)
    deliver(scene.direct, *[first] * 5)
    scene.under_way(job)
    deliver(scene.direct, *[first] * 5, *[replace(message_of(scene, job.id), seq=seq) for seq in range(5)])
    wait_until_all_before_is_delivered(scene, "/duplicate/marker/1")
    scene.succeeded(job, attempt=1)
    deliver(scene.direct, *[first] * 5, message_of(scene, job.id))
    wait_until_all_before_is_delivered(scene, "/duplicate/marker/2")
    assert token_of(scene, job) == 1, "claimed once"
    scene.assert_sent_once(job)


def test_premature_messages_start_nothing_that_is_not_committed(scene: Scene) -> None:
    engine = create_engine(scene.direct.database_url)  # of an app that submits in its own transactions
    file = scene.file_of("/premature/blob")
    file.write_bytes(b"premature")

    def too_early(session: Session) -> Job:
        job = mute.write_stream("/premature/blob", file, session=session)
        deliver(scene.direct, Message(job.id, "write_stream", "blobferry", {"path": "/premature/blob"}, 0, {}))
        return job

    with Client(engine=engine) as mute:
        with Session(engine) as session, session.begin() as transaction:
            with session.begin_nested():
                released = too_early(session)
            with session.begin_nested() as savepoint:
                too_early(session)
                savepoint.rollback()
            wait_until_all_before_is_delivered(scene, "/early-marker/1")
            assert "/premature/blob" not in scene.requests.log.read_text()
            transaction.commit()
        scene.succeeded(released, attempt=1)
        with Session(engine) as session:
            too_early(session)
            wait_until_all_before_is_delivered(scene, "/early-marker/2")
    engine.dispose()
    wait_until_all_before_is_delivered(scene, "/early-marker/3")
    ids = [row["id"] for row in scene.rows.select("select id from blobferry_jobs where path like '/premature%'")]
    assert ids == [released.id], "neither what was taken back nor what was rolled back"
    assert len(scene.asked(released, "put")) == 1
    assert '"level": "ERROR"' not in scene.logged()


@pytest.mark.long
def test_the_message_of_a_pruned_job_starts_nothing(stack: Stack) -> None:
    with recorded(stack, settings={"BLOBFERRY_RETENTION__JOB_SECONDS": "0"}) as scene, scene.stack.worker():
        job = scene.submit("/pruned/blob", 1)
        old = message_of(scene, job.id)
        wait_until_stone = "select id from blobferry_tombstones where id = :id"
        scene.until_rows(wait_until_stone, id=job.id)
        scene.assert_sent_once(job)
        deliver(stack, old)
        arguments = {"path": "/pruned/blob", "source": scene.file_of("/pruned/blob").as_uri()}
        scene.app.send_task("blobferry.write_stream", kwargs=arguments, task_id=job.id, queue="blobferry")
        scene.until_rows(wait_until_stone, id=scene.submit("/marker", 1).id)
        assert scene.rows.select("select id from blobferry_jobs where id = :id", id=job.id) == []
        scene.assert_sent_once(job)


@pytest.mark.long
def test_a_restored_snapshot_of_the_broker_runs_nothing_again(stack: Stack, tmp_path: Path) -> None:
    directory, snapshot = tmp_path / "valkey", tmp_path / "snapshot"
    with valkey(directory=directory) as mortal:
        stack = replace(stack, broker_url=mortal.url)
        with recorded(stack, settings=TWO_SLOTS) as scene, scene.stack.worker():
            running = [scene.submit(f"/snapshot/running/{n}", 9) for n in range(2)]
            queued = [scene.submit(f"/snapshot/queued/{n}", 2) for n in range(3)]
            for job in running:
                scene.under_way(job)
            shutil.copytree(directory, snapshot)
            for job in (running[0], *queued):
                scene.succeeded(job, attempt=1)
            mortal.kill9()
            shutil.rmtree(directory)
            shutil.copytree(snapshot, directory)
            mortal.restart()
            with redis.Redis.from_url(mortal.url) as connection:
                assert connection.hlen("unacked") or connection.llen("blobferry"), "old messages are back"
            jobs = [scene.succeeded(job, attempt=1) for job in (*running, *queued)]
            wait_until_all_before_is_delivered(scene)
            assert [token_of(scene, job) for job in jobs] == [1] * len(jobs)
            scene.assert_sent_once(*jobs)


def test_a_run_longer_than_somebodys_visibility_timeout_is_not_joined_by_a_second(scene: Scene) -> None:
    impatient = Celery(broker=scene.direct.broker_url, set_as_current=False)
    impatient.conf.broker_transport_options = {"visibility_timeout": 0.5}  # the smallest of all on one Redis holds
    with impatient.connection() as link:
        job = scene.begin("/visible/blob", 12)
        received = scene.logged().count(job.id)
        while not scene.client.get(job.id).is_final:
            link.default_channel.qos.restore_visible(interval=1)
            threading.Event().wait(0.2)
        scene.succeeded(job, attempt=1)
        wait_until_all_before_is_delivered(scene, "/visible/marker")
        assert scene.logged().count(job.id) > received + 2, "its message was delivered again"
        assert token_of(scene, job) == 1
        scene.assert_sent_once(job)
    impatient.close()


@pytest.mark.long
def test_a_half_open_connection_to_redis_is_given_up_and_jobs_go_on(scene: Scene, cable: Wire) -> None:
    running = [scene.submit(f"/half-open/running/{n}", 6) for n in range(2)]  # in all slots
    for job in running:
        scene.under_way(job)
    cable.freeze_existing()
    jobs = scene.succeeded_once(*running, scene.submit("/half-open/later", 2), timeout=120)
    assert [scene.result(job).get(timeout=20)["size"] for job in jobs] == [job.size for job in jobs]
    cable.thaw()
