"""Sends messages: for the jobs that are due, as many as are to be in the broker, and of the ends of others."""

from typing import NamedTuple

from blobferry.messages.job_messages import Message
from models import queries
from worker.maintenance.deliver_ends import deliver_ends
from worker.maintenance.sender import SendMessages
from worker.runtime import Runtime


class Sent(NamedTuple):
    """How many messages were sent."""

    jobs: int = 0  #: that are due
    ends: int = 0  #: to those who have asked for that


def publish_best(
    runtime: Runtime, publish: SendMessages, *, limit: int, turn: int = 0, telling_seconds: float = 0.0
) -> Sent:
    """Publish due jobs until ``limit`` messages are in the broker, and tell of ends. Raises UnreachableError.

    What cannot be sent is marked in SQL, so the next round tries it.

    Args:
        runtime: of this process.
        publish: sends the messages.
        limit: of the messages of jobs.
        turn: counts the earlier picks; every fifth pick is the oldest job.
        telling_seconds: for how long more and more ends are told; one batch of them is in any case.
    """
    with runtime.database.read() as session:
        missing = queries.missing_messages(session, limit=limit)  # mostly none, and then nobody waits for a lock
    jobs = _publish_jobs(runtime, publish, limit=limit, turn=turn) if missing.of_jobs else 0
    ends = deliver_ends(runtime, publish, seconds=telling_seconds) if missing.of_ends else 0
    return Sent(jobs, ends)


def _publish_jobs(runtime: Runtime, publish: SendMessages, *, limit: int, turn: int) -> int:
    with runtime.database.begin() as session:
        jobs = queries.jobs_to_publish(session, limit=limit, turn=turn)
    if not jobs:
        return 0
    sent = publish(*(Message.from_row(job.as_row()) for job in jobs))
    if sent < len(jobs):
        with runtime.database.begin() as session:
            queries.mark_unpublished(session, jobs[sent:])
    return sent
