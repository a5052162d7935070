"""The explanation that ``blobferry status`` prints: why a job is in its state, and what comes next."""

from dataclasses import dataclass
from typing import Final

from blobferry.cli.next_step import next_step
from blobferry.cli.wording import NOTHING_MORE, WAITS_FOR_SLOT, countdown, is_due, short_time, time_ago
from blobferry.contract import JobState, Phase
from blobferry.redaction import printable
from blobferry.values import Job, Situation
from blobferry.views.job_words import problem, progress
from blobferry.views.sizes_and_durations import in_bytes

#: Seconds within which a caretaker publishes a job that may be claimed.
OVERDUE_PUBLISH: Final = 20.0


@dataclass(frozen=True, slots=True)
class Explanation:
    """Two sentences without full stops; ``next`` may be empty."""

    why: str
    next: str

    def __str__(self) -> str:
        return f"{self.why}; {self.next}" if self.next else self.why


def explanation(situation: Situation) -> Explanation:
    """Explain the situation, without control characters."""
    why, follows = _why(situation), next_step(situation)
    return Explanation(printable(why), printable(follows))


def _why(situation: Situation) -> str:
    job = situation.job
    match job.state:
        case JobState.RUNNING:
            since = f", started {short_time(job.started_at)}" if job.started_at else ""
            return f"on {job.worker or 'a worker'}{since}: {_activity(job)}"
        case JobState.PAUSED:
            return "pause requested"
        case JobState.FAILED:
            return problem(job)
        case JobState.CANCELLED:
            return NOTHING_MORE
        case JobState.SUCCEEDED:
            return _result(job)
        case _:
            return _why_it_waits(situation)


def _why_it_waits(situation: Situation) -> str:
    """Why a queued, retrying or verifying job does not run now."""
    job = situation.job
    if situation.waits_for is not None:
        return _path_lock(situation)
    if job.state == JobState.VERIFYING:
        return _verification(situation)
    if job.state == JobState.RETRYING:
        return _retry(situation)
    if job.run_at and not is_due(job):
        return f"not before {countdown(job.run_at, job.seen_at)}"
    return ("between two slices: " if job.attempt else "") + _slot(situation)


def _activity(job: Job) -> str:
    match job.phase:
        case Phase.COMPLETING:
            return "completing the file" if job.operation == "read_stream" else "completing the upload"
        case Phase.DELETING_SOURCE:
            return f"Stat shows the copy; deleting {job.source}"
        case _:
            return progress(job) or f"deleting {job.path}"


def _result(job: Job) -> str:
    size = in_bytes(job.size or 0)
    match job.operation:
        case "delete":
            return f"nothing is left of {job.path} and what was under it"
        case "read_stream":
            return f"{size} of {job.path} are in {job.dest}"
        case "move":
            return f"moved from {job.source}; Stat shows {size} at {job.path}"
        case _:
            return f"Stat shows {size} at {job.path}"


def _path_lock(situation: Situation) -> str:
    """Another job holds, or is earlier in line for, a path that this job needs."""
    holder = situation.holder
    if holder is None or holder.is_final:
        return f"waited for job {situation.waits_for}, which has ended; {WAITS_FOR_SLOT}"
    takes_source = holder.operation == "move" or (holder.source or "").startswith("blob:")
    paths = f"{holder.source} and {holder.path}" if takes_source else str(holder.path)
    state = f"running on {holder.worker}" if holder.state == JobState.RUNNING else str(holder.state)
    return f"waits for job {holder.id}, which holds or needs {paths} first ({holder.operation}, {state})"


def _verification(situation: Situation) -> str:
    done = "deleted; succeeds once Stat shows nothing"
    if situation.job.operation != "delete":
        done = "sent; succeeds once Stat shows the blob"
    return done + (f", which it has not in {_count(situation.polls, 'poll')}" if situation.polls else "")


def _retry(situation: Situation) -> str:
    job = situation.job
    number = f"{_retry_number(situation)} " if situation.failures and job.error_code != "worker_died" else ""
    when = f"at {countdown(job.run_at, job.seen_at)}" if job.run_at and not is_due(job) else _slot(situation)
    because = f" because {problem(job)}" if problem(job) else ""
    died = f" (worker died {_count(situation.crashes, 'time')})" if situation.crashes else ""
    return f"{number}{when}{because}{died}"


def _retry_number(situation: Situation) -> str:
    """'retry 2 of 7'; without the total if workers are configured differently."""
    failures, most = situation.failures, situation.max_attempts
    return f"retry {failures} of {most - 1}" if most and failures < most else f"retry {failures}"


def _slot(situation: Situation) -> str:
    """The job may be claimed: whether it is published, and how many jobs come first."""
    job, published = situation.job, situation.published_at
    first = f"; {_count(situation.ahead, 'job')} come{'s' * (situation.ahead == 1)} first" if situation.ahead else ""
    if published is not None:
        return f"{WAITS_FOR_SLOT}, published {time_ago(published, job.seen_at)}{first}"
    waiting = (job.seen_at - max(job.updated_at, job.run_at or job.updated_at)).total_seconds()
    if waiting > OVERDUE_PUBLISH and not situation.ahead:
        return f"{WAITS_FOR_SLOT}, not published since {short_time(job.updated_at)}: check that a worker runs"
    return f"{WAITS_FOR_SLOT}, not yet published by a caretaker{first}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
