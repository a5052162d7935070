"""Jobs of a batch that are given back, each for a run of its own, before anything was done for them."""

from collections.abc import Mapping
from typing import Final

from sqlalchemy import update
from sqlalchemy.orm import Session

from blobferry.contract import JobState
from blobferry.sql.clock import db_now
from blobferry.sql.tables import jobs
from models.queries.batches import lock_owned
from models.queries.conditions import UNOWNED

_RELEASE: Final = update(jobs).values(state=JobState.QUEUED, updated_at=db_now(), **UNOWNED)


def hand_back(session: Session, tokens: Mapping[int, int]) -> None:
    """Give back those of the jobs (``seq`` and token) that the run still owns. They keep their paths. Repeatable."""
    owned = lock_owned(session, tokens)
    session.execute(_RELEASE.where(jobs.c.seq.in_(list(owned))))


def release_claimed(session: Session, worker: str, but: str) -> None:
    """Give back what this process has claimed, except one job: the answer to the claim was lost. Safe to repeat.

    A process has one run at a time, so that all its leases are those of that claim.
    """
    mine = (jobs.c.worker == worker, jobs.c.lease_expires_at.is_not(None), jobs.c.id != but)
    session.execute(_RELEASE.where(*mine))
