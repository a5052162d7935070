"""How a run ended, as a value. What follows from it is decided by whoever asked for the run."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from worker.errors import (
    BlobferryError,
)


@dataclass(frozen=True, slots=True)
class NotClaimed:
    """There was nothing to do, or the lease was lost: say nothing about the job."""


@dataclass(frozen=True, slots=True)
class Rescheduled:
    """Not the last run: the job goes on later, as its row says."""

    reason: str
    when: datetime


@dataclass(frozen=True, slots=True)
class Finished:
    """The job is final: a result, or the error that it failed with."""

    result: Mapping[str, Any] | None = None
    error: BlobferryError | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The job is final: it was cancelled in time."""


Outcome = NotClaimed | Rescheduled | Finished | Cancelled
