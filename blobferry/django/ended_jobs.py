"""What ``manage.py blobferry_listen`` does for each job that ends: enqueue the task that it names, send the signal.

The place in the feed is kept behind both, so a process that dies does them again: each at least once.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from django.utils.module_loading import import_string
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from blobferry.checks.callbacks import TASK_OF
from blobferry.checks.django_tasks import NAME
from blobferry.contract import RECEIVERS
from blobferry.django.ferries import Ferry
from blobferry.django.models import FerryJob
from blobferry.django.signals import job_finished
from blobferry.jobs.job_options import Labels
from blobferry.messages.end_events import event_of
from blobferry.sql.database import reachable
from blobferry.sql.outbox_tables import listeners
from blobferry.sql.tables import jobs
from blobferry.values import Job

logger = logging.getLogger(__name__)

AT_ONCE: Final = 100  #: jobs of a page


def enqueue_missed(ferry: Ferry, name: str, labels: Labels | None) -> int:
    """Before the first listening under this name, enqueue the tasks of all jobs that have ended; return how many.

    Their signal is not sent: there may be weeks of them, of which nobody has asked to be told.
    """
    with reachable(), ferry._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if connection.scalar(select(listeners.c.name).where(listeners.c.name == name)) is not None:
            return 0
    cursor, enqueued = None, 0
    while True:
        page = ferry.finished(after=cursor, labels=labels, limit=AT_ONCE)
        enqueued += sum(_enqueue(job, *_kept(ferry, job)) for job in page)
        cursor = page.cursor
        if len(page) < AT_ONCE:
            break
    with suppress(IntegrityError), reachable(), ferry._engine.begin() as connection:  # another one was first
        connection.execute(insert(listeners).values(name=name, position=cursor))
    return enqueued


def tell_of(ferry: Ferry, job: Job) -> None:
    """Enqueue the task that the job names for its end, then send the signal. Raises what the task's backend raises."""
    event, on_end = _kept(ferry, job)
    _enqueue(job, event, on_end)
    job_finished.send_robust(sender=FerryJob, job=job, **event)  # which logs what receivers raise


def _kept(ferry: Ferry, job: Job) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """The event, and who is to be told; a job that was pruned a moment ago tells nobody."""
    kept = select(jobs.c.ends, jobs.c.on_end).where(jobs.c.id == job.id)
    with reachable(), ferry._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        row = connection.execute(kept).one_or_none()
    names = ("operation", "storage", "path", "labels", "size", "error_code", "error_message")
    about = {"job_id": job.id, "job_state": str(job.state), "ended_at": job.finished_at or job.updated_at}
    event = event_of(
        {"sequence": 1 if row is None else row.ends, **about, **{each: getattr(job, each) for each in names}}
    )
    return event, {} if row is None or row.on_end is None else row.on_end


def _enqueue(job: Job, event: Mapping[str, Any], on_end: Mapping[str, Any]) -> bool:
    """Whether there was a task to enqueue."""
    kept = on_end.get(TASK_OF[RECEIVERS[job.state]])
    if kept is None:
        return False
    try:
        options = {name: value for name, value in kept.items() if name != NAME and value is not None}
        if "run_after" in options:
            options["run_after"] = datetime.fromisoformat(options["run_after"])
        task = import_string(kept[NAME]).using(**options)
    except Exception:  # it was renamed, or its backend is gone: the next try would fail as well
        logger.exception("task %s is not enqueued: it does not exist any more", kept[NAME], extra={"job_id": job.id})
        return False
    task.enqueue(dict(event))
    return True
