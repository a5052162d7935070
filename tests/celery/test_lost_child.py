"""A child is lost with a job, and the broker does not take the message that Celery would send then."""

from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery import Celery
from kombu.message import Message

from blobferry.contract import ROW_HEADER, SEQ_HEADER
from worker.celery.job_task import JobTask
from worker.celery.revoke import JobRequest

NOBODY_THERE = "redis://127.0.0.1:1/0"


class Lost(JobTask):
    """A job whose child dies."""

    name = "blobferry.lost"

    def run(self) -> None:
        raise AssertionError("the child is dead")


class Told:
    """What the broker and those who look at events are told of a message."""

    enabled = True

    def __init__(self) -> None:
        self.said: list[str] = []

    def send(self, event: str, **fields: Any) -> None:
        self.said.append(event)

    def acknowledged(self, *args: Any) -> None:
        self.said.append("acknowledged")

    def rejected(self, *args: Any) -> None:
        self.said.append("requeued" if args[-1] else "dropped")


@pytest.mark.parametrize(
    ("broker", "said"), [("memory://", ["acknowledged", "task-retried"]), (NOBODY_THERE, ["requeued", "task-rejected"])]
)
def test_a_lost_child_is_no_failure_also_while_the_broker_is_away(broker: str, said: list[str]) -> None:
    app = Celery("lost", broker=broker, backend="cache+memory://", set_as_current=False)
    app.conf.update(
        task_retry_on_worker_lost=True, task_publish_retry=False, broker_transport_options={"max_retries": 0}
    )
    task, told = app.register_task(Lost()), Told()
    headers = {"id": "job-1", "task": task.name, "retries": 0, ROW_HEADER: True, SEQ_HEADER: 0}
    message = Message("[[], {}, {}]", headers=headers, content_type="application/json", accept=["json"])  # type: ignore[no-untyped-call]
    message._decoded_cache = ([], {}, {})
    request = JobRequest(
        message, app=app, task=task, eventer=told, on_ack=told.acknowledged, on_reject=told.rejected, hostname="host"
    )
    try:
        raise WorkerLostError("signal 9")
    except WorkerLostError:
        request.on_failure(ExceptionInfo())
    assert told.said == said
    assert app.AsyncResult("job-1").state != "FAILURE"
