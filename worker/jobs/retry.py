"""The retry decision: try again after a delay, or give up. It is a value, on which the runner acts."""

from dataclasses import dataclass

from celery.utils.time import get_exponential_backoff_interval

from worker.errors import BlobferryError
from worker.settings import RetrySettings
from worker.stores.retry_after import MAX_WAIT


@dataclass(frozen=True, slots=True)
class RetryIn:
    """Try again after ``delay`` seconds, of which a server may ask for more than the backoff.

    ``failures`` runs in a row, the last one included, made no progress.
    """

    delay: float
    failures: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Fail the job. If ``resumable``, keep its upload for a later ``retry``."""

    resumable: bool


def decide(
    error: BlobferryError,
    *,
    failures: int,
    progressed: bool,
    settings: RetrySettings,
    others: int = 0,
) -> RetryIn | GiveUp:
    """Decide what follows a run that ended in an error.

    Args:
        error: the error that ended the run.
        failures: runs in a row before this one that made no progress.
        progressed: whether this run made progress; then counting and backoff start anew.
        settings: limits and backoff.
        others: for an error that only this worker may meet, how many living workers have not met it; each of them
            gets a try, even if the error looks permanent from here.
    """
    if not (error.transient or others):
        return GiveUp(resumable=error.resumable)
    failures = 1 if progressed else failures + 1
    if failures >= settings.max_attempts + others:
        return GiveUp(resumable=error.transient or error.resumable)
    delay = get_exponential_backoff_interval(
        settings.base_seconds, failures - 1, settings.max_seconds, full_jitter=True
    )
    return RetryIn(max(delay, min(error.retry_after or 0.0, MAX_WAIT)), failures)
