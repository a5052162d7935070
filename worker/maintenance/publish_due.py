"""Nudges: the next-best jobs get a message each, as far as the broker takes them."""

from collections.abc import Callable

from blobferry.messages.job_messages import Message
from models import queries
from worker.runtime import Runtime

Publish = Callable[[Message], bool]
"""Sends a message; False if the broker is out of reach."""


def publish_best(runtime: Runtime, publish: Publish, *, limit: int, turn: int = 0) -> int:
    """Publish as many jobs as keep ``limit`` messages on their way; return how many. Raises UnreachableError.

    The first one that does not get through ends it: the others would each wait for the same broker. None of them
    counts as published, so that they are tried again as soon as anybody looks.
    """
    with runtime.database.begin() as session:
        jobs = queries.jobs_to_publish(session, limit=limit, turn=turn)
    for position, job in enumerate(jobs):
        if not publish(Message.from_row(job.as_row())):
            with runtime.database.begin() as session:
                queries.take_back(session, jobs[position:])
            return position
    return len(jobs)
