"""Why a job is where it is, and what comes next, in plain words: what ``blobferry status`` says."""

from dataclasses import dataclass
from typing import Final

from blobferry.cli.wording import NOTHING_MORE, clock, coming, in_bytes, past, problem, progress, share
from blobferry.contract import FINAL_STATES, PAST_POINT_OF_NO_RETURN, JobState, Phase, UploadState
from blobferry.errors import SourceChangedError
from blobferry.redaction import printable
from blobferry.values import Job, Situation, Upload

#: Seconds after which a job that could be claimed should long have been published.
OVERDUE_PUBLISH: Final = 20.0
_SLOT: Final = "waits for a slot of a worker"
_SENT: Final = "sent; it is done when Stat shows the blob"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Two sentences without a full stop; ``next`` may be empty."""

    why: str
    next: str

    def __str__(self) -> str:
        return f"{self.why}; {self.next}" if self.next else self.why


def explanation(situation: Situation) -> Explanation:
    """What the situation means. Free of control characters."""
    why, follows = _why(situation), _next(situation)
    return Explanation(printable(why), printable(follows))


def _why(situation: Situation) -> str:
    job = situation.job
    match job.state:
        case JobState.RUNNING:
            since = f", started {clock(job.started_at)}" if job.started_at else ""
            return f"on {job.worker or 'a worker'}{since}: {_at(job)}"
        case JobState.PAUSED:
            return "as was asked for"
        case JobState.FAILED:
            return problem(job)
        case JobState.CANCELLED:
            return NOTHING_MORE
        case JobState.SUCCEEDED:
            return _outcome(job)
        case _ if situation.waits_for is not None:
            return _line(situation)
        case JobState.VERIFYING:
            done = "deleted; it is done when Stat shows nothing" if job.operation == "delete" else _SENT
            return done + (f", and it has not in {_times(situation.polls, 'look')}" if situation.polls else "")
        case JobState.RETRYING:
            return _retry(situation)
        case _ if _is_due(job):
            between = "between two slices: " if job.attempt else ""
            return between + _slot(situation)
        case _:
            return f"not before {coming(job.run_at, job.seen_at)}" if job.run_at else _SLOT


def _at(job: Job) -> str:
    """What a running job is at."""
    match job.phase:
        case Phase.COMPLETING:
            return "completing the file" if job.operation == "read_stream" else "completing the upload"
        case Phase.DELETING_SOURCE:
            return f"Stat shows the copy; deleting {job.source}"
        case _:
            return progress(job) or f"deleting {job.path}"


def _line(situation: Situation) -> str:
    """Another job needs the same path, and comes first."""
    holder = situation.holder
    if holder is None or holder.is_final:
        return f"waited for job {situation.waits_for}, which has ended; {_SLOT}"
    paths = f"{holder.source} and {holder.path}" if holder.operation == "move" else str(holder.path)
    doing = f"running on {holder.worker}" if holder.state == JobState.RUNNING else str(holder.state)
    return f"waits for job {holder.id}, which holds or needs {paths} first ({holder.operation}, {doing})"


def _slot(situation: Situation) -> str:
    """It may be claimed: who is before it, and whether a message is on its way."""
    job, published = situation.job, situation.published_at
    verb = "is" if situation.ahead == 1 else "are"
    ahead = f"; {_times(situation.ahead, 'job')} {verb} before it" if situation.ahead else ""
    if published is not None:
        return f"{_SLOT}, published {past(published, job.seen_at)}{ahead}"
    waiting = (job.seen_at - max(job.updated_at, job.run_at or job.updated_at)).total_seconds()
    if waiting > OVERDUE_PUBLISH and not situation.ahead:
        return f"{_SLOT}, and no caretaker has published it since {clock(job.updated_at)}: does a worker run?"
    return f"{_SLOT}, not yet published by a caretaker{ahead}"


def _retry(situation: Situation) -> str:
    job = situation.job
    number = f"{_number(situation)} " if situation.failures and job.error_code != "worker_died" else ""
    when = f"at {coming(job.run_at, job.seen_at)}" if job.run_at and not _is_due(job) else _slot(situation)
    because = f" because {problem(job)}" if problem(job) else ""
    died = f" (worker died {_times(situation.crashes, 'time')})" if situation.crashes else ""
    return f"{number}{when}{because}{died}"


def _number(situation: Situation) -> str:
    """Which retry it is, and of how many, unless workers that are set differently have counted it. One try is none."""
    failures, most = situation.failures, situation.max_attempts
    return f"retry {failures} of {most - 1}" if most and failures < most else f"retry {failures}"


def _outcome(job: Job) -> str:
    """What a job that succeeded has left behind."""
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


# --- what comes next -----------------------------------------------------------------------------------------------


def _next(situation: Situation) -> str:
    job = situation.job
    match job.state:
        case JobState.SUCCEEDED:
            return ""
        case JobState.CANCELLED:
            return _removal(situation)
        case JobState.FAILED:
            return _after_failure(situation)
        case _ if (job.cancel_requested or job.pause_requested) and job.phase not in PAST_POINT_OF_NO_RETURN:
            return _wish(situation)
        case JobState.PAUSED:
            return f"{_kept(situation)}`blobferry resume {job.id}` lets it go on"
        case _ if job.deadline is not None and job.deadline <= job.seen_at and job.phase not in PAST_POINT_OF_NO_RETURN:
            return f"its deadline {clock(job.deadline)} is over: it fails at the next look"
        case _ if situation.lease_expires_at is not None:
            return _lease(situation)
        case JobState.VERIFYING:
            return _looks(situation)
        case _ if situation.waits_for is not None:
            return "it is taken up within seconds of that job's end"
        case JobState.QUEUED if not _is_due(job):
            return f"then it {_SLOT}"
        case _ if job.bytes_done:
            return f"then it goes on with the {progress(job)} that it has"
        case _:
            return "then it runs"


def _wish(situation: Situation) -> str:
    job = situation.job
    name = "cancel" if job.cancel_requested else "pause"
    if job.state == JobState.PAUSED and name == "pause":
        return f"{_kept(situation)}`blobferry resume {job.id}` lets it go on"
    running = situation.lease_expires_at is not None
    when = "after the part in hand" if running else "as soon as a worker or caretaker looks, within seconds"
    return f"{name} asked for; takes effect {when}"


def _lease(situation: Situation) -> str:
    job, ends = situation.job, situation.lease_expires_at
    assert ends is not None, "the caller has asked"
    owner = f"the lease of {job.worker or 'its worker'}"
    if ends <= job.seen_at:
        return f"{owner} ran out {past(ends, job.seen_at)}: the next sweep gives the job to another worker"
    too_late = "; too late to cancel" if job.phase in PAST_POINT_OF_NO_RETURN else ""
    seconds = (ends - job.seen_at).total_seconds()
    return f"{owner} runs out in {seconds:.0f} s unless it is renewed; then another worker takes over{too_late}"


def _looks(situation: Situation) -> str:
    job = situation.job
    due = None if _is_due(job) or job.run_at is None else job.run_at
    look = f"next look at {coming(due, job.seen_at)}" if due else "next look as soon as a worker has a free slot"
    return look + (f", gives up at {clock(situation.verify_until)}" if situation.verify_until else "")


def _after_failure(situation: Situation) -> str:
    job = situation.job
    if job.deadline is not None and job.deadline <= job.seen_at:
        return "its deadline is over: submit it anew"
    if job.error_code == SourceChangedError.code:
        return f"`blobferry retry {job.id}` begins it again, with the source as it is now"
    upload = _kept_upload(situation)
    if upload is None:
        return f"`blobferry retry {job.id}` begins it again"
    until = f" until {coming(upload.kept_until, job.seen_at)}" if upload.kept_until else ""
    return f"`blobferry retry {job.id}` goes on with {_stored(upload)}{until}, begins again afterwards"


def _kept(situation: Situation) -> str:
    """What a paused job keeps, as the beginning of a sentence; "" for nothing."""
    upload = _kept_upload(situation)
    if upload is None:
        return ""
    until = f" until {coming(upload.kept_until, situation.job.seen_at)}" if upload.kept_until else ""
    return f"its upload with {_stored(upload)} is kept{until}; "


def _kept_upload(situation: Situation) -> Upload | None:
    now = situation.job.seen_at
    kept = [upload for upload in situation.uploads if upload.kept_until is None or upload.kept_until > now]
    return next((upload for upload in reversed(kept) if upload.state != UploadState.ABORTING), None)


def _stored(upload: Upload) -> str:
    stored = share(upload.bytes_at_risk, upload.size, " of ") if upload.size else in_bytes(upload.bytes_at_risk)
    return f"the {stored} that are stored"


def _removal(situation: Situation) -> str:
    return "what it had sent is being removed" if situation.uploads else ""


def _is_due(job: Job) -> bool:
    return job.state not in FINAL_STATES and (job.run_at is None or job.run_at <= job.seen_at)


def _times(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
