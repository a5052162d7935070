"""Django's own tasks, of Django 6 or its backport: told of the end of a job, and as a way to submit one."""

from collections.abc import Iterator
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
from django.conf import settings
from django.db import transaction
from django.test import override_settings
from django.utils import timezone

from blobferry.django import operations
from blobferry.django.ended_jobs import tell_of
from tests.client.conftest import SOURCE
from tests.django.conftest import Project
from tests.django.test_ended_jobs import ended

API = next((name for name in ("django.tasks", "django_tasks") if find_spec(name)), None)
if API is None:
    pytest.skip("Django 5.2 has no tasks; test_ended_jobs has a stand-in", allow_module_level=True)
tasks = import_module(API)

TASKS = {
    "default": {"BACKEND": f"{API}.backends.dummy.DummyBackend", "QUEUES": ["default", "films"]},
    "ferry": {"BACKEND": "blobferry.django.task_backend.FerryTaskBackend"},
}
settings.TASKS = TASKS  # a task looks its backend up when it is made


@tasks.task
def stored(event: dict[str, Any]) -> None:
    """What the project does then."""


store = tasks.task(backend="ferry")(operations.write_stream)


@pytest.fixture(autouse=True)
def _these_tasks() -> Iterator[None]:
    with override_settings(TASKS=TASKS):
        yield


def test_the_task_is_enqueued_with_the_event(project: Project) -> None:
    job = ended(project, project.ferry.write_stream("/a", SOURCE, on_done=stored.using(queue_name="films")))
    tell_of(project.ferry, job)
    (result,) = tasks.default_task_backend.results
    assert (result.task.func, result.task.queue_name) == (stored.func, "films")
    assert [(event["job_id"], event["state"], event["path"]) for event in result.args] == [(job.id, "succeeded", "/a")]


def test_to_enqueue_is_to_submit_in_the_transaction(project: Project) -> None:
    with transaction.atomic():
        store.enqueue("/rolled-back", SOURCE)
        transaction.set_rollback(True)
    later = timezone.now() + timedelta(days=1)
    with transaction.atomic():
        result = store.using(priority=100, run_after=later).enqueue("/a", SOURCE, labels={"app": "shop"})
    (job,) = project.ferry.jobs()
    assert (job.id, job.path, job.priority, job.run_at, job.labels) == (result.id, "/a", 9, later, {"app": "shop"})
    assert (result.status, result.is_finished) == ("READY", False)


def test_the_result_follows_the_job(project: Project) -> None:
    result = store.enqueue("/a", SOURCE)
    ended(project, project.ferry.get(result.id))
    result.refresh()
    assert (result.status, result.attempts, result.errors) == ("SUCCESSFUL", 1, [])
    assert store.get_result(result.id).kwargs == {"path": "/a", "source": SOURCE}
    other = store.enqueue("/b", SOURCE)
    ended(project, project.ferry.get(other.id), failed=True)
    project.site.change(project.ferry.get(other.id), error_code="source_not_found", error_message="it is gone")
    other.refresh()
    assert (other.status, other.errors[0].traceback) == ("FAILED", "it is gone")
    assert other.errors[0].exception_class.__name__ == "SourceNotFoundError"


def test_what_is_no_job_has_no_result(project: Project) -> None:
    with pytest.raises(Exception, match="00000000") as missing:
        store.get_result("00000000-0000-4000-8000-000000000000")
    assert type(missing.value).__name__ == "TaskResultDoesNotExist"


def test_only_operations_are_its_tasks(project: Project) -> None:
    with pytest.raises(Exception, match="is no operation"):
        stored.using(backend="ferry", queue_name="default")
    with pytest.raises(Exception, match="invalid path"):
        store.enqueue("no path", SOURCE)
