"""The lease of a batch: one renewal for all of its jobs, by the thread that runs it. It has no heartbeat of its own."""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from sqlalchemy.orm import Session

from models import Database, queries
from models.queries import BatchedJob
from worker.errors import LeaseLostError, UnreachableError
from worker.jobs.lease import lease_clock, retry_interval
from worker.settings import LeaseSettings

logger = logging.getLogger(__name__)

Written = TypeVar("Written")


class BatchLease:
    """The leases of the jobs of a batch. Any thread may call ``check``; all else belongs to the thread of the batch."""

    def __init__(self, database: Database, jobs: Iterable[BatchedJob], settings: LeaseSettings, *, taken_at: float):
        """``taken_at`` is the lease clock right before the claim, so the leases are no older than that."""
        self.tokens: Final = {job.seq: job.token for job in jobs}
        self.renewed_at = taken_at
        self._database = database
        self._settings = settings
        self._lost = set[int]()
        self._tried_at = taken_at

    def check(self, seq: int) -> None:
        """Raise LeaseLostError if another run may own the job now, or within ``margin_seconds``."""
        if seq in self._lost:
            raise LeaseLostError("another run owns the job now")
        self._check_age()

    def seconds_to_renewal(self) -> float:
        """Seconds until :meth:`renew_if_due` has something to do."""
        interval = self._settings.heartbeat_seconds
        if self._tried_at > self.renewed_at:  # the last try has failed
            interval = retry_interval(self._settings)
        return max(0.0, self._tried_at + interval - lease_clock())

    def renew_if_due(self, seqs: Iterable[int]) -> None:
        """Renew the leases of these jobs, at the times of a heartbeat. A failure is only logged: the leases age."""
        if self.seconds_to_renewal() > 0:
            return
        self._tried_at = asked_at = lease_clock()
        tokens = self.tokens_of(seqs)
        try:
            with self._database.begin() as session:
                owned = queries.extend_leases(session, tokens, self._settings.seconds)
        except UnreachableError as error:
            logger.warning("batch not renewed", extra={"jobs": len(tokens), "reason": str(error)})
        else:
            self.renewed_at = asked_at
            self._lost |= tokens.keys() - owned

    def tokens_of(self, seqs: Iterable[int]) -> dict[int, int]:
        """The tokens of these jobs, in the order of their submission."""
        return {seq: self.tokens[seq] for seq in sorted(seqs)}

    def write(self, work: Callable[[Session, bool], Written]) -> Written:
        """Run ``work`` in a transaction; while the database is away repeat it, for as long as the leases last.

        Its second argument is whether it is repeated: the answer to an earlier COMMIT may have been lost. Raises
        LeaseLostError.
        """
        is_repeated = False
        while True:
            try:
                with self._database.begin() as session:
                    return work(session, is_repeated)
            except UnreachableError as error:
                is_repeated = True
                self._check_age()
                logger.warning("database is away, trying again", extra={"reason": str(error)})
                time.sleep(retry_interval(self._settings))
                self._check_age()

    def _check_age(self) -> None:
        age = lease_clock() - self.renewed_at
        if age > self._settings.seconds - self._settings.margin_seconds:
            raise LeaseLostError(f"the lease was renewed {age:.1f} s ago")
