"""Runs the claimed jobs of a batch to their ends: most of them in the fast lane, the others one by one."""

import logging
from collections.abc import Callable, Container, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Protocol

from models import ClaimedJob, queries
from models.queries import BatchedJob
from worker.errors import LeaseLostError
from worker.jobs.batch.batch_lease import BatchLease
from worker.jobs.batch.batch_member import Member
from worker.jobs.batch.batch_run import BatchRun
from worker.jobs.lease import Lease
from worker.jobs.operations.operation import JobResult
from worker.jobs.outcome import Finished, NotClaimed, Outcome, Rescheduled
from worker.logs import job_context
from worker.maintenance.remove_sources import remove_sources
from worker.runtime import Runtime

logger = logging.getLogger(__name__)


class Reporter(Protocol):
    """Is told of the jobs of a batch whose messages are not at hand."""

    def claimed(self, jobs: Sequence[BatchedJob]) -> None:
        """They are claimed, so that all their messages until now are outdated."""
        ...

    def ended(self, outcomes: Sequence[tuple[BatchedJob, Outcome]]) -> None:
        """The runs of some of them have ended."""
        ...


class Unreported:
    """For callers that only want the rows to be right."""

    def claimed(self, jobs: Sequence[BatchedJob]) -> None:
        """Nobody is told."""

    def ended(self, outcomes: Sequence[tuple[BatchedJob, Outcome]]) -> None:
        """Nobody is told."""


GoOn = Callable[[Lease, Exception | None], Outcome]
"""An ordinary run of a job that is claimed already; the error, if any, is what it would have met by now."""

Tell = Callable[[Sequence[tuple[BatchedJob, Outcome]]], None]


def run_batch(
    runtime: Runtime, jobs: Sequence[BatchedJob], *, taken_at: float, reporter: Reporter, go_on: GoOn
) -> Outcome:
    """Run the jobs of a batch; return the outcome of the first one, and report those of the others.

    Args:
        runtime: of this process.
        jobs: as claimed; the message at hand is that of the first.
        taken_at: the lease clock right before the claim.
        reporter: is told of the other jobs.
        go_on: goes on with a job that has left the fast lane.
    """
    first, outcomes = jobs[0], dict[str, Outcome]()

    def tell(found: Sequence[tuple[BatchedJob, Outcome]]) -> None:
        outcomes.update((job.id, outcome) for job, outcome in found)
        if others := [(job, outcome) for job, outcome in found if job is not first]:
            reporter.ended(others)

    def ended(found: Sequence[tuple[BatchedJob, JobResult]]) -> None:
        remove_sources(runtime, [job.id for job, _ in found if job.removes_source])
        tell([(job, Finished(result=result)) for job, result in found])

    logger.info("batch claimed", extra={"jobs": len(jobs), "operation": first.operation, "job_id": first.id})
    reporter.claimed(jobs[1:])
    lease = BatchLease(runtime.database, jobs, runtime.settings.lease, taken_at=taken_at)
    run = BatchRun(runtime, runtime.driver(first.storage), jobs, lease, ended=ended)
    try:
        leaving = _leaving(run, outcomes)
        logger.info("batch ended", extra={"succeeded": len(outcomes), "leaving": len(leaving)})
        handed = [member for member in leaving if _is_for_others(member) and member.job is not first]
        if handed:
            _hand_back(handed, lease, tell)
        if staying := [member for member in leaving if member not in handed]:
            _go_on_with(staying, lease, runtime, tell, go_on)
    except LeaseLostError as error:
        logger.warning("lease of a batch lost", extra={"reason": str(error)})
    return outcomes.get(first.id, NotClaimed())


def _leaving(run: BatchRun, ended: Container[str]) -> Sequence[Member]:
    """Run the batch; return those that an ordinary run has to go on with. ``ended``: ids of those that have ended.

    After an error that nobody expects, such as a value of one job that the database refuses, these are all the others:
    what is written of them is what a run that has died would have left.
    """
    try:
        run.run()
    except LeaseLostError:
        raise
    except Exception:
        logger.exception("unexpected error, all jobs leave the batch")
        return [member for member in run.members if member.job.id not in ended]
    return run.leaving


def _is_for_others(member: Member) -> bool:
    """Whether its run may take long and has not begun: its file is large, or on a mount that does not answer."""
    return member.read is None and member.error is None


def _hand_back(members: Sequence[Member], lease: BatchLease, tell: Tell) -> None:
    """Release these jobs, so that they need not wait for each other. They have an attempt now, so each runs alone."""
    tokens = lease.tokens_of(member.job.seq for member in members)
    lease.write(lambda session, is_repeated: queries.hand_back(session, tokens))
    outcome = Rescheduled("its file is not one to be sent in a batch", datetime.now(UTC))
    tell([(member.job, outcome) for member in members])


def _go_on_with(members: Sequence[Member], lease: BatchLease, runtime: Runtime, tell: Tell, go_on: GoOn) -> None:
    """Run the jobs that have left the lane one by one; each has its own lease at once, since the others may last."""
    by_seq = {member.job.seq: member for member in members}
    rows = lease.write(lambda session, is_repeated: queries.owned_jobs(session, lease.tokens_of(by_seq)))
    with ExitStack() as leases:
        runs = [(row, leases.enter_context(_own_lease(row, lease, runtime))) for row in rows]
        for row, own_lease in runs:
            member = by_seq[row.seq]
            with job_context(job_id=row.id, attempt=row.attempt):
                outcome = go_on(own_lease, member.error)
                logger.info("run ended", extra={"outcome": repr(outcome)})
            tell([(member.job, outcome)])


def _own_lease(row: ClaimedJob, lease: BatchLease, runtime: Runtime) -> Lease:
    return Lease(runtime.database, row, runtime.settings.lease, taken_at=lease.renewed_at)
