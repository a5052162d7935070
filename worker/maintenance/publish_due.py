"""Sends messages for the jobs that are due, as many as are to be in the broker."""

from collections.abc import Callable

from blobferry.messages.job_messages import Message
from models import queries
from worker.runtime import Runtime

SendMessage = Callable[[Message], bool]
"""Sends a message to the broker; False if the broker cannot be reached."""


def publish_best(runtime: Runtime, publish: SendMessage, *, limit: int, turn: int = 0) -> int:
    """Publish due jobs until ``limit`` messages are in the broker; return how many were sent. Raises UnreachableError.

    The first message that cannot be sent ends the round, since the others would wait for the same broker. Their jobs
    are marked unpublished again, so the next round tries them. ``turn`` counts the earlier picks; every fifth pick is
    the oldest job.
    """
    with runtime.database.begin() as session:
        jobs = queries.jobs_to_publish(session, limit=limit, turn=turn)
    for position, job in enumerate(jobs):
        if not publish(Message.from_row(job.as_row())):
            with runtime.database.begin() as session:
                queries.mark_unpublished(session, jobs[position:])
            return position
    return len(jobs)
