"""Tells Celery how jobs of a batch have ended whose messages are not at hand: result and event, as after a run of each.

Their messages come later, or have come to other children; they find the job done, or running, and are dropped.
"""

import logging
import time
from collections.abc import Sequence
from typing import Any

from celery import states
from celery.app.task import Context
from celery.utils.saferepr import saferepr

from blobferry.contract import OPERATIONS
from blobferry.messages.job_messages import Message
from models.queries import BatchedJob
from worker.celery.batched_messages import forget, note_claimed, note_reported
from worker.celery.result_backend import store_results
from worker.errors import BlobferryError
from worker.jobs.outcome import Cancelled, Finished, Outcome

logger = logging.getLogger(__name__)

Report = tuple[Context, str, Any]
"""A task's request, its state, and its result or error."""


class BatchReport:
    """The reporter of a batch to which the message of the current task has led."""

    def __init__(self, task: Any) -> None:
        self._task = task
        self._began = time.monotonic()

    def claimed(self, jobs: Sequence[BatchedJob]) -> None:
        """Have their messages dropped for as long as this process lives."""
        note_claimed(map(_outdated, jobs))

    def ended(self, outcomes: Sequence[tuple[BatchedJob, Outcome]]) -> None:
        """Store the results, and send the events. Jobs that have not ended are left to their next messages.

        Never raises for a broker that is away; then later messages of these jobs report them.
        """
        task, messages = self._task, [_outdated(job) for job, _ in outcomes]
        reports = [report for job, outcome in outcomes if (report := _report_of(task, job, outcome))]
        if not reports:
            return
        if store_results(task.backend, reports):
            note_reported(messages)
        else:
            forget(messages)
        if task.send_events and task.app.conf.worker_send_task_events:
            _send_events(task, reports, (time.monotonic() - self._began) / len(reports))


def _outdated(job: BatchedJob) -> tuple[str, int]:
    """The message that the claim has outdated: a job that has never run had no other."""
    return job.id, job.publish_seq - 1


def _report_of(task: Any, job: BatchedJob, outcome: Outcome) -> Report | None:
    match outcome:
        case Finished(error=BlobferryError() as failure):
            return _request(task, job), states.FAILURE, failure
        case Finished(result=result):
            return _request(task, job), states.SUCCESS, result
        case Cancelled():
            return _request(task, job), states.REVOKED, "cancelled"
        case _:
            return None


def _request(task: Any, job: BatchedJob) -> Context:
    """The request that the job's own message would have: results keep its name, arguments, worker and queue."""
    row = {**job._asdict(), "message_options": None}
    message = Message.from_row(row)
    return Context(
        id=job.id,
        task=OPERATIONS[job.operation].task_name,
        args=[],
        kwargs=dict(message.arguments),
        hostname=task.request.hostname,
        delivery_info={"routing_key": job.queue},
        parent_id=message.parent_id,
        root_id=message.root_id or job.id,
    )


def _send_events(task: Any, reports: Sequence[Report], seconds: float) -> None:
    """Send the event that ends each task, with what Flower shows of it, should it have seen no other. One message."""
    try:
        with task.app.events.default_dispatcher(hostname=task.request.hostname) as dispatcher:
            dispatcher.buffer_group, dispatcher.buffer_limit = frozenset({"task"}), len(reports) + 1
            for request, state, result in reports:
                shown = {"uuid": request.id, "name": request.task, "args": "[]", "kwargs": repr(request.kwargs)}
                shown |= {"root_id": request.root_id, "parent_id": request.parent_id}
                dispatcher.send(**_ending(task, state, result, seconds), **shown)
            dispatcher.flush()
    except Exception as error:  # clients of brokers raise many types; events are for show
        logger.warning("events not sent", extra={"jobs": len(reports), "reason": repr(error)})


def _ending(task: Any, state: str, result: Any, seconds: float) -> dict[str, Any]:
    match state:
        case states.SUCCESS:
            shown = saferepr(result, task.resultrepr_maxsize)
            return {"type": "task-succeeded", "result": shown, "runtime": seconds}
        case states.FAILURE:
            return {"type": "task-failed", "exception": repr(result), "traceback": None}
        case _:
            return {"type": "task-revoked", "terminated": False, "signum": None, "expired": False}
