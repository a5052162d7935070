"""JobView: what a browser is shown of a job."""

from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

from blobferry.contract import JobState, Phase
from blobferry.redaction import printable
from blobferry.values import Job, JsonValue
from blobferry.views.job_words import in_words, percent, progress

WINDOW: Final = 10.0  #: seconds of which the speed is the mean
SHORTEST: Final = 0.5  #: seconds that give a speed


@dataclass(frozen=True, slots=True)
class JobView(JsonValue):
    """A job as the app's own users may see it: without its source, its worker, its labels and its storage."""

    id: str
    operation: str
    path: str | None  #: of the blob; the destination of a move
    state: JobState
    words: str  #: what the job is at, such as "checking what is visible"
    is_final: bool  #: it has succeeded, failed or been cancelled
    size: int | None  #: bytes of the blob, once the worker has opened the source
    bytes_done: int
    percent: int | None  #: 0 to 100; 100 only once the job has succeeded. None if the size is unknown
    progress: str  #: bytes in words, such as "0.3 of 1.5 GiB (20%)"
    bytes_per_second: float | None  #: None unless bytes are moving
    seconds_left: float | None
    attempt: int
    run_at: datetime | None  #: not before this
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    error_code: str | None  #: of the latest failure
    error_message: str | None  #: may name hosts and directories; None unless the app shows it

    @classmethod
    def of(cls, job: Job, speed: float | None = None, *, explains: bool = False) -> Self:
        """The view of the job, with its ``speed`` if that was observed, else the mean of a first attempt."""
        if speed is None:
            speed = mean_speed(job)
        moves = is_moving(job) and bool(speed)
        return cls(
            id=job.id,
            operation=job.operation,
            path=job.path,
            state=job.state,
            words=in_words(job),
            is_final=job.is_final,
            size=job.size,
            bytes_done=job.bytes_done,
            percent=percent(job),
            progress=progress(job),
            bytes_per_second=round(speed, 1) if moves and speed else None,
            seconds_left=round((job.size - job.bytes_done) / speed, 1) if moves and speed and job.size else None,
            attempt=job.attempt,
            run_at=job.run_at,
            created_at=job.created_at,
            updated_at=job.updated_at,
            finished_at=job.finished_at,
            error_code=job.error_code,
            error_message=printable(job.error_message) if explains and job.error_message else None,
        )


def is_moving(job: Job) -> bool:
    """Whether a worker moves its bytes now."""
    return job.state == JobState.RUNNING and job.phase in (None, Phase.UPLOADING) and job.operation != "delete"


def mean_speed(job: Job) -> float | None:
    """Bytes per second since the start of a job that nothing has interrupted."""
    if job.attempt != 1 or job.started_at is None or not is_moving(job):
        return None
    seconds = (job.seen_at - job.started_at).total_seconds()
    return job.bytes_done / seconds if seconds >= SHORTEST else None


class Speed:
    """The speed of one job that is watched, in bytes per second."""

    def __init__(self) -> None:
        self._seen: deque[Job] = deque()

    def after(self, job: Job) -> float | None:
        """The mean of the last seconds, now that the job was seen; None while too little was."""
        last = self._seen[-1] if self._seen else job
        if not is_moving(job) or job.attempt != last.attempt or job.bytes_done < last.bytes_done:
            self._seen.clear()
        self._seen.append(job)
        while len(self._seen) > 2 and _seconds(self._seen[1], job) > WINDOW:
            self._seen.popleft()
        seconds = _seconds(self._seen[0], job)
        return (job.bytes_done - self._seen[0].bytes_done) / seconds if seconds >= SHORTEST else None


def _seconds(before: Job, after: Job) -> float:
    return (after.seen_at - before.seen_at).total_seconds()
