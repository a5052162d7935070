"""Jobs that a test ends by hand look as in life, to the app and to whoever is told."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import select

from blobferry import Client, Job, JobNotFoundError, SourceChangedError, TooLateError
from blobferry.sql.outbox_tables import deliveries
from blobferry.sql.tables import attempts, jobs
from blobferry.testing import FerryKit, recording
from tests.client.conftest import SOURCE, Site

SIGNATURE = {"task": "shop.stored", "args": [7]}


@pytest.fixture
def kit(ferry: Client) -> Iterator[FerryKit]:
    with recording(ferry) as kit:
        yield kit


#: Columns that differ from run to run, or that only bytes can fill.
APART = {"id", "seq", "job_id", "ended_in", "path", "request", "source", "dest"}
BYTES = {"source_fingerprint", "base_etag", "sent", "cutoff", "deleted_any"}
TABLES = ((jobs, jobs.c.id), (attempts, attempts.c.job_id), (deliveries, deliveries.c.job_id))


def rows_of(kit: FerryKit, job: Job) -> dict[str, Any]:
    """All columns of a job's rows that two runs should have alike; of a time, or a worker, whether it is there."""
    found = {}
    with kit.ferry._engine.connect() as connection:
        for table, column in TABLES:
            for number, row in enumerate(connection.execute(select(table).where(column == job.id)).mappings()):
                of_file = {"etag"} if job.operation == "read_stream" else set()
                for name in row.keys() - APART - BYTES - of_file:
                    value = row[name]
                    if name.endswith("_at") or name == "worker":
                        value = value is not None
                    elif name == "result":
                        value = sorted(value or ())
                    found[f"{table.name}.{number}.{name}"] = value
    return found


def differences(kit: FerryKit, by_hand: Job, real: Job) -> dict[str, tuple[Any, Any]]:
    left, right = rows_of(kit, by_hand), rows_of(kit, real)
    assert len(left) > 50
    return {
        name: (left.get(name), right.get(name)) for name in left | right if left.get(name, ...) != right.get(name, ...)
    }


@pytest.mark.parametrize("operation", ["write_stream", "put_content", "read_stream", "move", "delete"])
def test_the_rows_are_those_of_a_real_run(kit: FerryKit, operation: str, tmp_path: Path) -> None:
    kit.driver().put_content("/there", b"bytes of a blob")
    (tmp_path / "source").write_bytes(b"bytes of a blob")

    def submit() -> Job:
        told: Mapping[str, Any] = {"on_done": SIGNATURE}
        match operation:
            case "write_stream":
                return kit.ferry.write_stream("/new", tmp_path / "source", **told)
            case "put_content":
                return kit.ferry.put_content("/new", b"bytes of a blob", **told)
            case "read_stream":
                return kit.ferry.read_stream("/there", tmp_path / "dest", **told)
            case "move":
                return kit.ferry.move("/there", "/moved", **told)
        return kit.ferry.delete("/there", **told)

    real = submit()
    assert [job.state for job in kit.drain()] == ["succeeded"]
    by_hand = submit()
    etag = (kit.ferry.get(real.id).result or {}).get("etag")
    kit.finish(by_hand, size=15, etag=etag)
    assert differences(kit, by_hand, real) == {}
    told = [{**callback.event, "event_id": 0, "job_id": 0, "finished_at": 0} for callback in kit.callbacks]
    assert told[0] == told[1]


def test_a_failed_job_has_the_rows_of_a_real_failure(kit: FerryKit, tmp_path: Path) -> None:
    real = kit.ferry.write_stream("/new", tmp_path / "missing", on_failed=SIGNATURE)
    kit.drain()
    failed = kit.ferry.get(real.id)
    by_hand = kit.ferry.write_stream("/new", tmp_path / "missing", on_failed=SIGNATURE)
    kit.fail(by_hand, "source_not_found", message=failed.error_message)
    assert differences(kit, by_hand, real) == {}


def test_the_client_sees_the_end_as_in_life(kit: FerryKit) -> None:
    ferry = kit.ferry
    cursor = ferry.finished(after="now").cursor
    done, lost = ferry.write_stream("/a", SOURCE), ferry.write_stream("/b", SOURCE)
    watch = ferry.watch(done.id)
    assert next(watch).state == "queued"
    kit.progress(done, 40, size=100)
    assert (next(watch).bytes_done, ferry.get(done.id).size) == (40, 100)
    finished = kit.finish(done.id, size=100, etag='"abc"')
    assert next(watch) == ferry.wait(done.id) == finished == ferry.get(done.id)
    assert finished.result == {"path": "/a", "size": 100, "etag": '"abc"', "version_id": None}
    failed = kit.fail(lost, "source_changed", message="size 3, was 4")
    assert (failed.state, failed.error_code, failed.error_message) == ("failed", "source_changed", "size 3, was 4")
    page = ferry.finished(after=cursor)
    assert list(page) == [finished, failed]
    assert [attempt.outcome for attempt in ferry.attempts(lost.id)] == ["failed"]
    assert ferry.retry(lost.id).state == "retrying"
    assert kit.finish(lost).attempt == 2
    assert [job.id for job in ferry.finished(after=page.cursor)] == [lost.id]


def test_an_error_is_given_as_itself_or_by_its_code(kit: FerryKit) -> None:
    job = kit.fail(kit.ferry.delete("/a"), SourceChangedError("it grew"))
    assert (job.error_code, job.error_message) == ("source_changed", "it grew")
    with pytest.raises(ValueError, match="'source_chnged' is the code of no error, did you mean 'source_changed'"):
        kit.fail(kit.ferry.delete("/b"), "source_chnged")


def test_a_job_ends_once(kit: FerryKit) -> None:
    job = kit.finish(kit.ferry.delete("/a", on_done=SIGNATURE))
    for again in (kit.finish, lambda job: kit.fail(job, "deadline"), lambda job: kit.progress(job, 1)):
        with pytest.raises(TooLateError, match="it is succeeded"):
            again(job)
    assert len(kit.callbacks) == 1
    with pytest.raises(JobNotFoundError):
        kit.finish("of no job")


@pytest.mark.parametrize("state", ["running", "verifying", "paused", "retrying", "succeeded", "failed", "cancelled"])
def test_any_state_can_be_simulated_and_left_again(kit: FerryKit, state: str) -> None:
    job = kit.ferry.write_stream("/a", SOURCE, on_failed=SIGNATURE)
    kit.progress(job, 5, size=10)
    assert kit.simulate(job, state).state == kit.ferry.get(job.id).state == state
    assert len(kit.callbacks) == (state in ("failed", "cancelled"))
    if state in ("running", "verifying", "paused", "retrying"):
        assert kit.finish(job, size=10).attempt == (2 if state == "retrying" else 1)


def test_a_job_is_queued_by_its_submit_alone(kit: FerryKit) -> None:
    job = kit.ferry.delete("/a")
    with pytest.raises(ValueError, match="is queued when it is submitted"):
        kit.simulate(job, "queued")
    with pytest.raises(ValueError, match="'done' is not a valid JobState"):
        kit.simulate(job, "done")


def test_a_callback_is_recorded_as_its_worker_would_get_it(kit: FerryKit) -> None:
    ferry = kit.ferry
    stored = ferry.write_stream("/a", SOURCE, labels={"video": 7}, on_done=SIGNATURE, on_failed={"task": "shop.lost"})
    lost = ferry.write_stream(
        "/b", SOURCE, on_failed={"task": "shop.lost", "kwargs": {"a": 1}, "immutable": True, "options": {"queue": "q"}}
    )
    kit.finish(stored, size=9)
    kit.fail(lost, "source_changed")
    first, second = kit.callbacks
    assert (first.task, first.args[1:], first.queue, first.job_id) == ("shop.stored", (7,), "celery", stored.id)
    assert first.args[0] == first.event
    told = {"job_id": stored.id, "state": "succeeded", "path": "/a", "size": 9, "labels": {"video": "7"}, "sequence": 1}
    assert told.items() <= first.event.items()
    assert (second.task, second.args, second.kwargs, second.queue) == ("shop.lost", (), {"a": 1}, "q")
    assert second.event["error_code"] == "source_changed"


def test_a_webhook_is_recorded_as_its_endpoint_would_get_it_and_not_posted(kit: FerryKit) -> None:
    ferry = kit.ferry
    url = "https://shop.example/hooks?token=secret"
    done = ferry.put_content("/a", b"four", webhook=url, webhook_secret="shop", on_done=SIGNATURE)
    drained = ferry.put_content("/b", b"four", webhook=url)
    ferry.put_content("/c", b"four")
    kit.assert_enqueued("put_content", webhook=url, count=2)
    kit.assert_enqueued("put_content", webhook=url, webhook_secret="shop", count=1)
    kit.finish(done)
    kit.drain()
    assert [(told.job_id, told.message["type"]) for told in kit.webhooks] == [
        (done.id, "job.succeeded"),
        (drained.id, "job.succeeded"),
    ]
    assert kit.webhooks[0].message["data"] == kit.callbacks[0].event
    assert kit.webhooks[0].endpoint.startswith("https://shop.example/hooks")
    assert "secret" not in repr(kit.webhooks)
    assert {delivery.state for delivery in ferry.deliveries()} == {"delivered"}


def test_functions_for_ends_are_called_when_the_test_says_so(kit: FerryKit) -> None:
    called = []
    kit.ferry.on("succeeded")(lambda job: called.append(job.path))
    kit.finish(kit.ferry.delete("/a"))
    kit.fail(kit.ferry.delete("/b"), "deadline")
    assert called == []
    assert [job.path for job in kit.run_handlers()] == ["/a", "/b"]
    assert called == ["/a"]
    assert kit.run_handlers() == []


@pytest.fixture
def shop() -> Celery:
    app = Celery("shop", set_as_current=False)

    @app.task(name="shop.stored", shared=False)
    def stored(event: dict[str, Any], video: int) -> None:
        app.stored.append((event["size"], video))
        if event["size"] == 13:
            raise RuntimeError("an unlucky number")

    app.stored = []
    return app


def test_an_app_in_eager_mode_runs_its_callbacks_at_once(ferry: Client, shop: Celery) -> None:
    shop.conf.update(task_always_eager=True)
    with recording(ferry, celery=shop) as kit:
        kit.finish(ferry.put_content("/a", b"four", on_done=shop.tasks["shop.stored"].s(7)))
        assert shop.stored == [(4, 7)]
        kit.finish(ferry.delete("/a", on_done={"task": "of.another.app"}))
        assert [callback.task for callback in kit.callbacks] == ["shop.stored", "of.another.app"]
        with pytest.raises(LookupError, match=r"the Celery app 'shop' has no task 'of\.another\.app'"):
            kit.run_callbacks()
        shop.conf.task_eager_propagates = True
        job = ferry.write_stream("/a", SOURCE, on_done=SIGNATURE)
        with pytest.raises(RuntimeError, match="unlucky"):
            kit.finish(job, size=13)
        assert ferry.get(job.id).state == "succeeded"


def test_other_apps_run_them_when_the_test_says_so(ferry: Client, shop: Celery) -> None:
    with recording(ferry, celery=shop) as kit:
        kit.finish(ferry.write_stream("/a", SOURCE, on_done=SIGNATURE), size=4)
        assert shop.stored == []
        assert [callback.task for callback in kit.run_callbacks()] == ["shop.stored"]
        assert shop.stored == [(4, 7)]
        assert kit.run_callbacks() == []


def test_a_worker_that_comes_later_tells_nobody_again(site: Site, kit: FerryKit) -> None:
    kit.finish(kit.ferry.delete("/a", on_done=SIGNATURE))
    with site.database.begin() as session:
        assert session.scalars(select(deliveries.c.state)).all() == ["delivered"]
