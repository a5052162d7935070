"""The project learns the end: a signal, and tasks of Django's, each at least once, by `manage.py blobferry_listen`."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction

from blobferry import Job, NewJob
from blobferry.checks.callbacks import TASK_OF
from blobferry.contract import RECEIVERS
from blobferry.django.ended_jobs import enqueue_missed, tell_of
from blobferry.django.models import FerryJob
from blobferry.django.signals import job_finished
from blobferry.errors import ConflictError, InvalidRequestError
from models.queries import outbox
from tests.client.conftest import SOURCE, Site
from tests.client.test_finished import end_now
from tests.django.conftest import Project
from tests.django.test_test_safety import started_manage
from tests.models.rows import Rows


class Enqueued:
    """A task as @task makes one, whose backend remembers: what is asked of it is the same in each version of Django."""

    def __init__(self, name: str, **options: Any) -> None:
        self.module_path = f"{__name__}.{name}"
        self.options: dict[str, Any] = {"backend": "default", "queue_name": "default", "priority": 0} | options
        self.events: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["options"][name]
        except KeyError:
            raise AttributeError(name) from None

    def using(self, **options: Any) -> "Enqueued":
        other = Enqueued("", **self.options | options)
        other.module_path, other.events = self.module_path, self.events
        return other

    def enqueue(self, event: dict[str, Any]) -> None:
        self.events.append((json.loads(json.dumps(event)), self.options))


stored = Enqueued("stored")
lost = Enqueued("lost")


@pytest.fixture(autouse=True)
def _nothing_enqueued() -> None:
    for task in (stored, lost):
        task.events.clear()


def ended(project: Project, job: Job, *, failed: bool = False) -> Job:
    """The job, once it has ended."""
    if failed:
        project.ferry.cancel(job.id)
        project.site.change(job, state="cancelled", ends=1, ended_in=1, finished_at=datetime.now(UTC))
    else:
        Rows(project.site.database).claim(job.id)
        end_now(project.site, job.id)
    return project.ferry.get(job.id)


@contextmanager
def heard() -> Iterator[list[dict[str, Any]]]:
    """What the signal says meanwhile."""
    found: list[dict[str, Any]] = []

    def note(**sent: Any) -> None:
        found.append(sent)

    job_finished.connect(note)
    try:
        yield found
    finally:
        job_finished.disconnect(note)


# --- what a job keeps ------------------------------------------------------------------------------------------------


def test_every_submit_takes_a_task(project: Project) -> None:
    later = stored.using(backend="slow", queue_name="films", priority=7, run_after=datetime(2030, 1, 1, tzinfo=UTC))
    with transaction.atomic():
        project.ferry.delete("/a", on_done=later, on_failed=lost)
        project.ferry.submit_many([NewJob.delete("/b", on_done=stored)])
    with project.site.client() as client:
        client.delete("/c", on_failed=lost)
    kept = {row["path"]: row["on_end"] for row in project.site.rows()}
    assert kept["/a"][TASK_OF["on_done"]] == {
        "django_task": f"{__name__}.stored",
        "backend": "slow",
        "queue_name": "films",
        "priority": 7,
        "run_after": "2030-01-01T00:00:00+00:00",
    }
    assert [sorted(kept[path]) for path in ("/a", "/b", "/c")] == [
        ["task_on_done", "task_on_failed"],
        ["task_on_done"],
        ["task_on_failed"],
    ]
    assert not set(TASK_OF.values()) & set(RECEIVERS.values()), "no worker sends it"


def test_the_same_key_with_another_task_is_another_request(project: Project) -> None:
    def submit(task: Enqueued) -> str:
        return project.ferry.delete("/a", idempotency_key="k", on_done=task).id

    assert submit(stored) == submit(stored.using())
    with pytest.raises(ConflictError):
        submit(lost)


def test_what_is_no_task_is_refused(project: Project) -> None:
    for wrong in ({"django_task": ""}, {"django_task": "a.b", "args": [1]}, {"django_task": "a", "priority": "high"}):
        with pytest.raises(InvalidRequestError, match="on_done: needs a @task"):
            project.ferry.delete("/a", on_done=wrong)
    with pytest.raises(InvalidRequestError, match="on_done: needs a Celery signature"):
        project.ferry.delete("/a", on_done=write_nothing)  # type: ignore[arg-type]


def write_nothing() -> None:
    """A function that is no task."""


# --- what is told ----------------------------------------------------------------------------------------------------


def test_the_signal_has_the_event_and_the_job(project: Project) -> None:
    job = ended(project, project.ferry.write_stream("/a", SOURCE, labels={"app": "shop"}))
    with heard() as found:
        tell_of(project.ferry, job)
    (sent,) = found
    names = ("sender", "job", "job_id", "state", "path", "labels", "sequence")
    assert [sent[name] for name in names] == [FerryJob, job, job.id, "succeeded", "/a", {"app": "shop"}, 1]


def test_the_event_is_the_one_that_a_celery_task_gets(project: Project) -> None:
    job = ended(project, project.ferry.write_stream("/a", SOURCE, on_done={"task": "shop.stored"}))
    with project.site.database.begin() as session:
        (delivery,) = outbox.take_deliveries(session, limit=1, hold_seconds=1)
    from worker.maintenance.deliver_ends import _message  # noqa: PLC0415 - what workers send

    with heard() as found:
        tell_of(project.ferry, job)
    told = _message(delivery).event
    assert {name: found[0][name] for name in told} == told


def test_a_task_gets_the_event_of_its_end(project: Project) -> None:
    done = ended(project, project.ferry.write_stream("/a", SOURCE, on_done=stored.using(queue_name="films")))
    cancelled = ended(project, project.ferry.delete("/b", on_done=stored, on_failed=lost), failed=True)
    for job in (done, cancelled):
        tell_of(project.ferry, job)
    ((event, options),) = stored.events
    assert (event["job_id"], event["state"], options["queue_name"]) == (done.id, "succeeded", "films")
    ((event, _),) = lost.events
    assert (event["job_id"], event["state"]) == (cancelled.id, "cancelled")


def test_a_task_that_is_gone_stops_nobody(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    kept = {"django_task": "shop.tasks.renamed", "backend": "default"}
    job = ended(project, project.ferry.write_stream("/a", SOURCE, on_done=kept))
    with heard() as found:
        tell_of(project.ferry, job)
    assert len(found) == 1
    assert "shop.tasks.renamed is not enqueued" in caplog.text


def test_what_ended_before_the_first_listening_is_enqueued(project: Project) -> None:
    ended(project, project.ferry.write_stream("/a", SOURCE, on_done=stored))
    ended(project, project.ferry.write_stream("/b", SOURCE))
    with heard() as found:
        assert [enqueue_missed(project.ferry, "django", None) for _ in range(2)] == [1, 0]
    assert ([event["path"] for event, _ in stored.events], found) == (["/a"], [])


# --- the command -----------------------------------------------------------------------------------------------------


@contextmanager
def listening(site: Site, heard: Path, **environment: str) -> Iterator[Callable[[str], list[str]]]:
    """The command, once it listens, and what gives the paths that were told once this one was, or it has died."""
    heard.touch()
    command = ["blobferry_listen", "--interval", "0.05"]
    with started_manage(site, *command, PROJECT_HEARD=str(heard), PYTHONUNBUFFERED="1", **environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("listening as django")

        def until(path: str) -> list[str]:
            pause = threading.Event()
            while True:
                is_alive = process.poll() is None
                paths = [json.loads(line)[2] for line in heard.read_text().splitlines()]
                if path in paths or not is_alive:
                    return paths
                pause.wait(0.02)

        yield until


def test_the_command_tells_of_each_end_also_after_its_death(project: Project, tmp_path: Path) -> None:
    def end(path: str) -> None:
        ended(project, project.ferry.write_stream(path, SOURCE))

    with listening(project.site, tmp_path / "first", PROJECT_DIES_AT="/2") as until:
        for path in ("/1", "/2", "/3"):
            end(path)
        assert until("/3") == ["/1", "/2"]
    with listening(project.site, tmp_path / "second") as until:
        end("/4")
        assert until("/4")[-3:] == ["/2", "/3", "/4"]


def test_the_command_says_what_is_wrong(site: Site, tmp_path: Path) -> None:
    with started_manage(site, "blobferry_listen", "", PROJECT_HEARD=str(tmp_path / "heard")) as process:
        _, problem = process.communicate(timeout=60)
    assert (process.returncode, "name: " in problem) == (1, True)
