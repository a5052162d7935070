"""The retry decision: try again and when, or give up. The decision is a value; the runner acts on it."""

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
    """The job has failed. If ``resumable``, its upload is kept for a later ``retry``."""

    resumable: bool


def decide(
    error: BlobferryError,
    *,
    failures: int,
    progressed: bool,
    settings: RetrySettings,
    past_point_of_no_return: bool = False,
) -> RetryIn | GiveUp:
    """Decide what follows a run that ended in ``error``.

    Args:
        failures: runs in a row that made no progress before this one.
        progressed: this run made progress, so counting and backoff start again.
        settings: limits and backoff.
        past_point_of_no_return: readers may see the outcome already.
    """
    # Past the point of no return, a worker that lacks the storage must not fail the job: another one may finish it.
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
