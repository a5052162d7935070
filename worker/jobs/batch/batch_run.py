"""Runs a batch: read, look at every key, pass the point of no return, put, look again, end, with requests side by side.

Three writes for all jobs together, unless some requests take long: then those that are done do not wait for them.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import Any, Final

from sqlalchemy.orm import Session

from models import queries
from models.queries import BatchedJob
from models.queries.given_rows import time_text
from worker import drain
from worker.driver import Driver
from worker.jobs.batch.batch_lease import BatchLease
from worker.jobs.batch.batch_member import Member, member_of
from worker.jobs.batch.batch_sources import read_sources
from worker.jobs.operations.operation import JobResult, result_of
from worker.runtime import Runtime
from worker.transfer.sources.source import MemorySource
from worker.transfer.stop import Interrupted

logger = logging.getLogger(__name__)

WAVE: Final = 1.0  #: seconds after which the members that are done no longer wait for the others

Ended = Callable[[Sequence[tuple[BatchedJob, JobResult]]], None]
"""Is told which jobs have succeeded, right after the COMMIT that says so."""


class BatchRun:
    """One run of a batch."""

    def __init__(
        self, runtime: Runtime, driver: Driver, jobs: Sequence[BatchedJob], lease: BatchLease, *, ended: Ended
    ) -> None:
        self.leaving: list[Member] = []  #: those that an ordinary run has to go on with
        self._runtime = runtime
        self._store = driver.store
        self._storage = jobs[0].storage
        self._lease = lease
        self._ended = ended
        self._threads = runtime.engine.threads
        self._pending: dict[Future[None], Member] = {}
        self._settled: list[Member] = []  #: whose way through the lane is over, but not yet in their rows
        pace = runtime.engine.pace_of(driver.store)
        self.members: Final = [member_of(job, driver, lease, pace, self._threads.count) for job in jobs]

    def run(self) -> None:
        """Run until every job has ended or leaves the lane. Raises LeaseLostError."""
        try:
            self._read()
            if not self._pending:
                self._advance([])
            while self._pending:
                done, _ = wait(self._pending, timeout=min(WAVE, self._lease.seconds_to_renewal()))
                self._lease.renew_if_due(member.job.seq for member in (*self._pending.values(), *self.leaving))
                self._advance([self._collect(future) for future in done])
        finally:
            wait(self._pending)  # no thread may send anything after this returns

    def _read(self) -> None:
        """Start each member once its bytes are read."""
        unread = {member.job.seq: member for member in self.members}
        for job, read in read_sources(self._runtime, [member.job for member in self.members]):
            member = unread.pop(job.seq)
            if isinstance(read, MemorySource):
                member.read = read
            else:
                member.error = read
            if member.read is not None and member.source.size <= self._runtime.engine.part_size:
                self._start(member, member.look)
            else:  # an ordinary run sends it in parts, or has the error
                self._settled.append(member)
        self._settled += unread.values()

    def _start(self, member: Member, step: Callable[[], None]) -> None:
        self._pending[self._threads.executor.submit(step)] = member

    def _collect(self, future: Future[None]) -> Member:
        member = self._pending.pop(future)
        error = future.exception()
        if error is not None and not isinstance(error, Exception):
            raise error
        member.error = error
        return member

    def _advance(self, done: Sequence[Member]) -> None:
        looked = [member for member in done if member.error is None and not member.has_passed]
        self._settled += [member for member in done if member not in looked]
        self._complete(looked)
        if self._settled:
            self._end()

    def _complete(self, members: Sequence[Member]) -> None:
        passed = set[int]()
        if members and not drain.is_draining():
            rows = [_completing(member) for member in members]
            tokens = self._lease.tokens_of(member.job.seq for member in members)

            def begin(session: Session, is_repeated: bool) -> set[int]:
                return queries.begin_completing_all(session, tokens, rows, storage=self._storage, place=self._store)

            passed = self._lease.write(begin)
        for member in members:
            if member.job.seq in passed:
                member.has_passed = True
                self._start(member, member.send)
            else:  # a cancel, a drain or another run came first
                member.error = Interrupted()
                self._settled.append(member)

    def _end(self) -> None:
        members, self._settled = self._settled, []
        shown = {member.job.seq: _succeeded(member) for member in members if member.head is not None}
        leaving = [member for member in members if member.head is None]
        tokens = self._lease.tokens_of(member.job.seq for member in members)

        def end(session: Session, is_repeated: bool) -> set[int]:
            before = queries.have_succeeded(session, tokens) if is_repeated else set()
            return before | queries.end_batch(
                session,
                tokens,
                succeeded=list(shown.values()),
                leaving=[member.progress() for member in leaving],
            )

        ended = self._lease.write(end)
        self.leaving += leaving
        self._ended([(member.job, shown[seq]["result"]) for member in members if (seq := member.job.seq) in ended])


def _completing(member: Member) -> Mapping[str, Any]:
    return {
        "seq": member.job.seq,
        "job_id": member.job.id,
        "key": member.target.key,
        "size": member.source.size,
        "fingerprint": member.source.fingerprint,
        "base_etag": member.base.etag,
        "base_mod_time": time_text(member.base.mod_time),
    }


def _succeeded(member: Member) -> Mapping[str, Any]:
    assert member.head is not None, "Stat has shown it"
    told = {"storage": member.job.storage, "on_end": member.job.on_end}
    return {**member.progress(), **told, "result": result_of(member.job.path, member.head)}
