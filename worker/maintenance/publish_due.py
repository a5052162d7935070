"""Sends messages for the jobs that are due, as many as are to be in the broker."""

from typing import Protocol

from blobferry.messages.job_messages import Message
from models import queries
from worker.runtime import Runtime


class SendMessages(Protocol):
    """Sends messages to the broker, together where it can; returns how many, from the first on, were sent."""

    def __call__(self, *messages: Message) -> int:
        """Send them. Never raises."""
        ...


def publish_best(runtime: Runtime, publish: SendMessages, *, limit: int, turn: int = 0) -> int:
    """Publish due jobs until ``limit`` messages are in the broker; return how many were sent. Raises UnreachableError.

    The jobs whose messages cannot be sent are marked unpublished again, so the next round tries them. ``turn`` counts
    the earlier picks; every fifth pick is the oldest job.
    """
    with runtime.database.read() as session:
        if not queries.lacks_messages(session, limit=limit):  # mostly, and then nobody waits for a lock
            return 0
    with runtime.database.begin() as session:
        jobs = queries.jobs_to_publish(session, limit=limit, turn=turn)
    if not jobs:
        return 0
    sent = publish(*(Message.from_row(job.as_row()) for job in jobs))
    if sent < len(jobs):
        with runtime.database.begin() as session:
            queries.mark_unpublished(session, jobs[sent:])
    return sent
