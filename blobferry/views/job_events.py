"""What server-sent events say of a job that is watched, whichever framework sends them."""

import json
from dataclasses import dataclass
from hashlib import blake2s
from typing import Final

from blobferry.values import Job
from blobferry.views.job_view import JobView, Speed

EVENT: Final = "job"  #: the name of each event
HEARTBEAT: Final = 15.0  #: seconds between two signs of life
RETRY: Final = 3000  #: milliseconds after which a browser that lost the connection comes back


def event_id(job: Job) -> str:
    """Changes whenever the job does."""
    seen = job.as_json()
    del seen["seen_at"]
    return blake2s(json.dumps(seen, sort_keys=True).encode(), digest_size=8).hexdigest()


def is_all_known(job: Job, last_event_id: str | None) -> bool:
    """Whether a browser that comes back has seen the end. The answer 204 makes it stay away."""
    return job.is_final and last_event_id == event_id(job)


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One event: its id, which a browser names when it comes back, and its data."""

    id: str
    view: JobView


class JobEvents:
    """Makes the events of one listener from the jobs of a watch with heartbeats.

    ``last_event_id`` is what the browser has seen before; ``explains`` shows the messages of errors.
    """

    def __init__(self, last_event_id: str | None = None, *, explains: bool = False) -> None:
        self._last = last_event_id
        self._explains = explains
        self._speed = Speed()

    def of(self, job: Job) -> JobEvent | None:
        """The event for the job as it is now; None if the listener knows it, so that a heartbeat is enough."""
        found = event_id(job)
        if found == self._last:
            return None
        self._last = found
        return JobEvent(found, JobView.of(job, self._speed.after(job), explains=self._explains))
