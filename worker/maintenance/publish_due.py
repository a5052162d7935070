"""Publishes the jobs that are sent a message next, as far as the broker takes them."""

from collections.abc import Callable

from blobferry.messages.job_messages import Message
from models import queries
from worker.runtime import Runtime

Publish = Callable[[Message], bool]
"""Sends a message; False if the broker is out of reach."""


def publish_best(runtime: Runtime, publish: Publish, *, limit: int, turn: int = 0) -> int:
    """Publish jobs until ``limit`` messages are in the broker; return how many were sent. Raises UnreachableError.

    The first message that fails ends the round, since the others would wait for the same broker. The unsent ones do not
    count as published, so the next round tries them again.
    """
    with runtime.database.begin() as session:
        jobs = queries.jobs_to_publish(session, limit=limit, turn=turn)
    for position, job in enumerate(jobs):
        if not publish(Message.from_row(job.as_row())):
            with runtime.database.begin() as session:
                queries.take_back(session, jobs[position:])
            return position
    return len(jobs)
