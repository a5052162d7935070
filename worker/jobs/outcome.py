"""How a run ended, as a value. The Celery task translates it into SUCCESS, FAILURE, RETRY or nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from models.queries import EndedJob
from worker.errors import BlobferryError


@dataclass(frozen=True, slots=True)
class NotClaimed:
    """The job could not be claimed, or its lease was lost. The state of the job is unknown, unless it had ended."""

    ended: EndedJob | None = field(default=None, compare=False)  #: how it had ended before, if that was seen


@dataclass(frozen=True, slots=True)
class Rescheduled:
    """The job goes on in a later run, at ``when`` or as soon as its row allows."""

    reason: str
    when: datetime


@dataclass(frozen=True, slots=True)
class LeftToOthers:
    """This worker lacks what the job needs, and another one may have it; it may be claimed from ``when`` on."""

    reason: str
    when: datetime


@dataclass(frozen=True, slots=True)
class Finished:
    """The job is final: it has succeeded with ``result``, or failed with ``error``."""

    result: Mapping[str, Any] | None = None
    error: BlobferryError | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The job is final: it was cancelled."""


Outcome = NotClaimed | Rescheduled | LeftToOthers | Finished | Cancelled
