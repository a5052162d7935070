"""How a run ended, as a value. Its caller, the Celery task, decides what Celery is told."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from worker.errors import (
    BlobferryError,
)


@dataclass(frozen=True, slots=True)
class NotClaimed:
    """The job could not be claimed, or the lease was lost: nothing is known about the job."""


@dataclass(frozen=True, slots=True)
class Rescheduled:
    """Not the last run: the row says when the job continues."""

    reason: str
    when: datetime


@dataclass(frozen=True, slots=True)
class Finished:
    """The job is final: a result, or the error that it failed with."""

    result: Mapping[str, Any] | None = None
    error: BlobferryError | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The job is final: it was cancelled."""


Outcome = NotClaimed | Rescheduled | Finished | Cancelled
