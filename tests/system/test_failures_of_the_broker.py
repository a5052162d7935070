"""A broker that forgets, goes away, stays silent or says everything twice. SQL owns the truth, so it costs seconds.

The table of all failures and their tests is in test_failures_of_workers.
"""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.result import AsyncResult
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from blobferry import Client, Job
from blobferry.messages.job_messages import Message, client_app, publish
from dev.proxies.tcp import Wire, wire
from dev.services import Postgres, S3Service, Valkey, valkey
from dev.stack import Stack
from tests.system.recorded_stack import LASTING_BROKER, LONG_LEASE, Scene, lasting_stack, recorded

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


def logged(scene: Scene) -> str:
    """What the worker has logged."""
    return (scene.stack.directory / "worker.log").read_text()


@contextmanager
def web_app(scene: Scene) -> Iterator[Engine]:
    """The engine of an app that submits in its own transactions."""
    engine = create_engine(scene.direct.database_url)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def results(scene: Scene) -> Iterator[Callable[[Job], Any]]:
    """What Celery hands out as the result of a job."""
    app = Celery(broker=scene.direct.broker_url, backend=scene.direct.broker_url, set_as_current=False)
    yield lambda job: AsyncResult(job.id, app=app).get(timeout=20)
    app.close()


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
def scene(
    broker: Valkey, s3: S3Service, postgres_server: Postgres, cable: Wire, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """One worker for all failures that it can survive, and its broker at the end of the cable."""
    with ExitStack() as services:
        directory = tmp_path_factory.mktemp("broker")
        stack = services.enter_context(lasting_stack(broker, s3, postgres_server, directory))
        url = f"redis://127.0.0.1:{cable.port}/{LASTING_BROKER}"
        scene = services.enter_context(recorded(stack, settings=TWO_SLOTS, broker_url=url))
        services.enter_context(scene.stack.worker())
        yield scene


@pytest.fixture(params=[pytest.param("with AOF", marks=pytest.mark.long), "without AOF"])
def mortal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Valkey]:
    """A broker of the test's own."""
    with valkey(directory=tmp_path / "valkey" if request.param == "with AOF" else None) as service:
        yield service


def test_redis_is_down_while_jobs_run_and_are_submitted_and_restarts(stack: Stack, mortal: Valkey) -> None:
    stack = replace(stack, broker_url=mortal.url)
    with recorded(stack, settings=LONG_LEASE) as scene, scene.stack.worker():
        running = scene.submit("/down/running", 12)
        queued = scene.submit("/down/queued", 2)
        scene.under_way(running)
        mortal.kill9()
        submitted = scene.submit("/down/submitted", 2)
        scene.succeeded(running, attempt=1)  # telemetry fails no job
        mortal.restart()
        half_a_minute_later(scene)
        jobs = [scene.succeeded(job, attempt=1) for job in (running, queued, submitted)]
        scene.assert_sent_once(*jobs)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_redis_is_down_for_a_minute_while_jobs_run_and_are_submitted(stack: Stack) -> None:
    with valkey() as mortal:
        stack = replace(stack, broker_url=mortal.url)
        with recorded(stack, delays={"upload_part": 5}, settings=LONG_LEASE) as scene, scene.stack.worker():
            running = scene.submit("/minute/running", 45)  # lasts 75 s
            scene.under_way(running)
            mortal.kill9()
            submitted = [scene.submit(f"/minute/{n}", 1) for n in range(5)]
            threading.Event().wait(60)
            mortal.restart()
            jobs = [scene.succeeded(job, attempt=1, timeout=180) for job in (running, *submitted)]
            scene.assert_sent_once(*jobs)


@pytest.mark.long
def test_an_idle_worker_gives_up_a_half_open_connection_to_redis(scene: Scene, cable: Wire) -> None:
    cable.freeze_existing()
    jobs = [scene.succeeded(scene.submit(f"/idle/{n}", 2), attempt=1, timeout=120) for n in range(3)]
    scene.assert_sent_once(*jobs)
    cable.thaw()


def test_a_partition_from_redis_does_not_keep_a_running_job_from_its_end(scene: Scene, cable: Wire) -> None:
    running = scene.submit("/partition/running", 6)
    scene.under_way(running)
    cable.freeze()
    running = scene.succeeded(running, attempt=1, timeout=30)
    cable.thaw()
    with results(scene) as result:
        assert result(running)["size"] == running.size
    later = scene.submit("/partition/later", 2)
    scene.succeeded(later, attempt=1)
    scene.assert_sent_once(running, later)


def test_duplicate_and_out_of_date_messages_claim_nothing(scene: Scene) -> None:
    job = scene.submit("/duplicate/blob", 9)
    first = message_of(scene, job.id)
    deliver(scene.direct, *[first] * 5)
    scene.under_way(job)
    deliver(scene.direct, *[first] * 5, *[replace(message_of(scene, job.id), seq=seq) for seq in range(5)])
    wait_until_all_before_is_delivered(scene, "/duplicate/marker/1")
    job = scene.succeeded(job, attempt=1)
    deliver(scene.direct, *[first] * 5, message_of(scene, job.id))
    wait_until_all_before_is_delivered(scene, "/duplicate/marker/2")
    assert token_of(scene, job) == 1, "claimed once"
    scene.assert_sent_once(job)


def test_premature_messages_start_nothing_that_is_not_committed(scene: Scene) -> None:
    with web_app(scene) as engine, Client(engine=engine) as mute:
        file = scene.file_of("/premature/blob")
        file.write_bytes(b"premature")

        def too_early(session: Session) -> Job:
            job = mute.write_stream("/premature/blob", file, session=session)
            deliver(scene.direct, Message(job.id, "write_stream", "blobferry", {"path": "/premature/blob"}, 0, {}))
            return job

        with Session(engine) as session, session.begin() as transaction:
            with session.begin_nested() as savepoint:
                released = too_early(session)
            with session.begin_nested() as savepoint:
                taken_back = too_early(session)
                savepoint.rollback()
            wait_until_all_before_is_delivered(scene, "/early-marker/1")
            assert scene.requests.log.read_text().count("/premature/blob") == 0
            transaction.commit()
        scene.succeeded(released, attempt=1)
        with Session(engine) as session:
            rolled_back = too_early(session)
            wait_until_all_before_is_delivered(scene, "/early-marker/2")
        wait_until_all_before_is_delivered(scene, "/early-marker/3")
        ids = {row["id"] for row in scene.rows.select("select id from blobferry_jobs where path like '/premature%'")}
        assert ids == {released.id}
        assert not ids & {taken_back.id, rolled_back.id}
        assert len(scene.asked(released, "put")) == 1
        assert '"level": "ERROR"' not in logged(scene)


@pytest.mark.long
def test_the_message_of_a_pruned_job_starts_nothing(stack: Stack, broker: Valkey) -> None:
    settings = {"BLOBFERRY_RETENTION__JOB_SECONDS": "0"}
    app = Celery(broker=broker.url, set_as_current=False)
    with recorded(stack, settings=settings) as scene, scene.stack.worker():
        job = scene.submit("/pruned/blob", 1)
        old = message_of(scene, job.id)
        wait_until_stone = "select id from blobferry_tombstones where id = :id"
        scene.until_rows(wait_until_stone, id=job.id)
        sent = len(scene.asked(job, "put")) + len(scene.asked(job, "complete_upload"))
        assert sent == 1
        deliver(stack, old)
        arguments = {"path": "/pruned/blob", "source": scene.file_of("/pruned/blob").as_uri()}
        app.send_task("blobferry.write_stream", kwargs=arguments, task_id=job.id, queue="blobferry")
        marker = scene.submit("/marker", 1)
        scene.until_rows(wait_until_stone, id=marker.id)
        assert scene.rows.select("select id from blobferry_jobs where id = :id", id=job.id) == []
        assert len(scene.asked(job, "put")) + len(scene.asked(job, "complete_upload")) == sent
    app.close()


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
            jobs = [scene.succeeded(job, attempt=1) for job in (running[0], *queued)]
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
        job = scene.submit("/visible/blob", 12)
        scene.under_way(job)
        received = logged(scene).count(job.id)
        while not scene.client.get(job.id).is_final:
            link.default_channel.qos.restore_visible(interval=1)
            threading.Event().wait(0.2)
        job = scene.succeeded(job, attempt=1)
        wait_until_all_before_is_delivered(scene, "/visible/marker")
        assert logged(scene).count(job.id) > received + 2, "its message was delivered again"
        assert token_of(scene, job) == 1
        scene.assert_sent_once(job)
    impatient.close()


@pytest.mark.long
def test_a_half_open_connection_to_redis_is_given_up_and_jobs_go_on(scene: Scene, cable: Wire) -> None:
    running = [scene.submit(f"/half-open/running/{n}", 6) for n in range(2)]  # in all slots
    for job in running:
        scene.under_way(job)
    cable.freeze_existing()
    later = scene.submit("/half-open/later", 2)
    jobs = [scene.succeeded(job, attempt=1, timeout=120) for job in (*running, later)]
    scene.assert_sent_once(*jobs)
    with results(scene) as result:
        assert [result(job)["size"] for job in jobs] == [job.size for job in jobs]
    cable.thaw()
