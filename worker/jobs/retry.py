"""What follows an error: another try, and when, or the end. A decision is a value; others act on it."""

from dataclasses import dataclass

from celery.utils.time import get_exponential_backoff_interval

from worker.errors import BlobferryError, ConfigurationError
from worker.settings import RetrySettings


@dataclass(frozen=True, slots=True)
class RetryIn:
    """Try again after ``delay`` seconds; ``failures`` runs in a row have then made no progress."""

    delay: float
    failures: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The job has failed. With ``resumable``, somebody may want to go on with its parts later."""

    resumable: bool


def decide(
    error: BlobferryError,
    *,
    failures: int,
    progressed: bool,
    settings: RetrySettings,
    past_point_of_no_return: bool = False,
) -> RetryIn | GiveUp:
    """Decide after a run that ended in ``error``. Progress starts the counting, and the backoff, anew."""
    # Past the point of no return, a worker that lacks the storage knows less than the one that was there.
    elsewhere = past_point_of_no_return and isinstance(error, ConfigurationError)
    if not (error.transient or elsewhere):
        return GiveUp(resumable=False)
    failures = 1 if progressed else failures + 1
    if failures >= settings.max_attempts:
        return GiveUp(resumable=True)
    delay = get_exponential_backoff_interval(
        settings.base_seconds, failures - 1, settings.max_seconds, full_jitter=True
    )
    return RetryIn(delay, failures)
