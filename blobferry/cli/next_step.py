"""The next step of a job: the second sentence of its explanation."""

from typing import Final

from blobferry.cli.wording import WAITS_FOR_SLOT, countdown, is_due, short_time, time_ago
from blobferry.contract import PAST_POINT_OF_NO_RETURN, JobState, UploadState
from blobferry.errors import SourceChangedError, SourceError, SourceNotAllowedError, SourceNotFoundError
from blobferry.values import Situation, Upload
from blobferry.views.job_words import progress
from blobferry.views.sizes_and_durations import done_of, in_bytes

_REFUSED_SOURCE: Final = frozenset({SourceError.code, SourceNotAllowedError.code, SourceNotFoundError.code})


def next_step(situation: Situation) -> str:
    """What happens to the job next, or what a user can do; "" if nothing will."""
    job = situation.job
    is_overdue = job.deadline is not None and job.deadline <= job.seen_at
    is_stoppable = job.phase not in PAST_POINT_OF_NO_RETURN
    is_paused = job.state == JobState.PAUSED
    if job.is_final:
        return _after_the_end(situation)
    if is_stoppable and (job.cancel_requested or (job.pause_requested and not is_paused)):
        when = "after the current part" if situation.lease_expires_at is not None else "within seconds"
        return f"{'cancel' if job.cancel_requested else 'pause'} requested; takes effect {when}"
    if is_paused:
        return f"{_kept(situation)}`blobferry resume {job.id}` lets it continue"
    if is_stoppable and is_overdue and job.deadline:
        return f"its deadline {short_time(job.deadline)} has passed; it fails within seconds"
    if situation.lease_expires_at is not None:
        return _lease(situation)
    return _after_the_wait(situation)


def _after_the_end(situation: Situation) -> str:
    match situation.job.state:
        case JobState.FAILED:
            return _after_failure(situation)
        case JobState.CANCELLED if situation.uploads:
            return "what it had sent is being removed"
        case _:
            return ""


def _after_failure(situation: Situation) -> str:
    job, upload = situation.job, _kept_upload(situation)
    if job.replaced_by is not None:
        return f"job {job.replaced_by} has its idempotency key and goes on instead"
    retry = f"`blobferry retry {job.id}`"
    if job.deadline is not None and job.deadline <= job.seen_at:
        return "its deadline has passed; submit it again"
    has_changed = job.error_code == SourceChangedError.code
    if upload is None:
        return f"{retry} starts it again" + (", with the source as it is now" if has_changed else "")
    if has_changed:  # another source, which a retry named, and which had other bytes
        retry = f"`blobferry retry {job.id} --source URL`, with the content that was sent,"
    elif job.error_code in _REFUSED_SOURCE:
        retry += ", with `--source URL` if its URL has expired,"
    if upload.kept_until is None:
        return f"{retry} continues after the {_stored(upload)} that are stored"
    until = countdown(upload.kept_until, job.seen_at)
    return f"{retry} continues after the {_stored(upload)} that are stored until {until}, and starts again later"


def _after_the_wait(situation: Situation) -> str:
    job = situation.job
    if job.state == JobState.VERIFYING:
        return _next_poll(situation)
    if situation.waits_for is not None:
        return "it runs within seconds after that job ends"
    if situation.workers == 0 and is_due(job):
        return "no worker is alive on this database: start `blobferry-worker run` with it as database_url"
    if job.state == JobState.QUEUED and not is_due(job):
        return f"then it {WAITS_FOR_SLOT}"
    return f"then it continues after {progress(job)}" if job.bytes_done else "then it runs"


def _lease(situation: Situation) -> str:
    job, ends = situation.job, situation.lease_expires_at
    assert ends is not None, "the caller has asked"
    owner = f"the lease of {job.worker or 'its worker'}"
    if ends <= job.seen_at:
        return f"{owner} expired {time_ago(ends, job.seen_at)}; the next sweep gives the job to another worker"
    too_late = "; too late to cancel" if job.phase in PAST_POINT_OF_NO_RETURN else ""
    seconds = (ends - job.seen_at).total_seconds()
    return f"{owner} expires in {seconds:.0f} s unless it is renewed; then another worker takes over{too_late}"


def _next_poll(situation: Situation) -> str:
    job = situation.job
    poll = "next poll as soon as a worker has a free slot"
    if job.run_at and not is_due(job):
        poll = f"next poll at {countdown(job.run_at, job.seen_at)}"
    return poll + (f", gives up at {short_time(situation.verify_until)}" if situation.verify_until else "")


def _kept(situation: Situation) -> str:
    """The upload that a paused job keeps, as the beginning of a sentence; "" without one."""
    upload = _kept_upload(situation)
    if upload is None:
        return ""
    until = f" until {countdown(upload.kept_until, situation.job.seen_at)}" if upload.kept_until else ""
    return f"its upload, with {_stored(upload)} stored, is kept{until}; "


def _kept_upload(situation: Situation) -> Upload | None:
    now = situation.job.seen_at
    kept = [upload for upload in situation.uploads if upload.kept_until is None or upload.kept_until > now]
    return next((upload for upload in reversed(kept) if upload.state != UploadState.ABORTING), None)


def _stored(upload: Upload) -> str:
    return done_of(upload.bytes_at_risk, upload.size, " of ") if upload.size else in_bytes(upload.bytes_at_risk)
