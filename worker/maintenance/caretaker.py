"""The caretaker: keeps jobs moving when messages, workers or uploads are lost. It needs no Celery beat and no leader.

Each worker has one, in a process of its own (``python -m worker sweep --loop``). Any number may sweep at once, because
rows are locked with SKIP LOCKED and each step is safe to repeat.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from socket import gethostname
from typing import Final

from blobferry.contract import FINAL_STATES
from blobferry.messages.job_messages import Message
from models import MessageRow, queries
from worker.errors import BlobferryError
from worker.maintenance.abort_uploads import abort_given_up
from worker.maintenance.publish_due import publish_best
from worker.maintenance.sender import SendMessages
from worker.processes import WorkerProcesses
from worker.runtime import Runtime

logger = logging.getLogger(__name__)

#: Jobs that are changed in one transaction, by up to seven statements each: on SQLite nobody else can write meanwhile,
#: and nobody is to wait for more than 50 ms.
BATCH: Final = 8
STEP_SECONDS: Final = 1.0  #: after which a step begins no further transaction
LOOK_INTERVAL: Final = 0.5  #: seconds between two checks whether a child has died
ALIVE_FOR: Final = 30.0  #: seconds without a sweep, three intervals aside, after which a worker does not count as alive
#: Seconds between two sweeps that also look for what is only there after hours: what to prune, what others have left.
#: While there is something to prune, each sweep prunes.
RARELY: Final = 60.0
AHEAD: Final = 4  #: published jobs per slot: enough to keep it busy, few enough to lose with the broker


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep has done, in rows."""

    requeued: int = 0  #: jobs whose lease had expired
    changed: int = 0  #: jobs without a run that were cancelled, overdue or paused
    freed: int = 0  #: jobs that no longer wait for another job
    published: int = 0
    told: int = 0  #: ends of jobs, to those who have asked for that
    aborted: int = 0  #: uploads
    pruned: int = 0  #: finished jobs

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in self.__slots__)


class Caretaker:
    """Sweeps, once or in a loop. ``processes`` are those of the worker that this caretaker belongs to, if any."""

    def __init__(
        self,
        runtime: Runtime,
        publish: SendMessages,
        processes: WorkerProcesses | None = None,
        *,
        runs_jobs: bool = False,
    ) -> None:
        """``runs_jobs``: whether the worker does, so that others may leave jobs to it."""
        self._runtime = runtime
        self._runs_jobs = runs_jobs and processes is not None
        self._retention = runtime.settings.retention
        self._publish = publish
        self._processes = processes
        self._revoked: SimpleQueue[str] = SimpleQueue()
        self._turn = 0
        self._told = 0  #: ends, in the last sweep
        self._stale = queries.StaleSearch()

    def cancel(self, job_id: str) -> None:
        """Have the job of this id cancelled in the next sweep, which begins at once. Any thread may call this."""
        self._revoked.put(job_id)

    def listen(self, lines: Iterable[str]) -> None:
        """Cancel the jobs that the parent names, one JSON object per line, until it closes the pipe."""
        for line in lines:
            self.cancel(json.loads(line)["cancel"])

    def sweep(self, *, is_quick: bool = False) -> Swept:
        """Sweep once. A step that fails is logged and does not stop the others; the next sweep repeats it.

        ``is_quick``: leave out what is only there after hours.
        """
        self._step(self._report_alive)
        self._step(self._cancel_revoked)
        self._step(self._expire_dead_leases)
        return Swept(
            requeued=self._step(lambda: _in_batches(self._requeue)),
            changed=self._step(lambda: _in_batches(self._apply_requests)),
            freed=self._step(self._drop_stale_locks),
            published=self._step(self._publish_due),
            told=self._told,
            aborted=self._step(lambda: abort_given_up(self._runtime, also_elsewhere=not is_quick)),
            pruned=0 if is_quick else self._step(lambda: _in_batches(self._prune)),
        )

    def loop(self, ended: threading.Event) -> None:
        """Sweep until the event is set or the parent is gone, so that a killed worker leaves no caretaker behind."""
        parent, pruned_at = os.getppid(), -RARELY
        while not ended.is_set() and os.getppid() == parent:
            began = time.monotonic()
            swept = self.sweep(is_quick=began - pruned_at < RARELY)
            if not swept.pruned and began - pruned_at >= RARELY:
                pruned_at = began
            if swept:
                logger.info("swept", extra={name: getattr(swept, name) for name in Swept.__slots__})
            next_sweep = time.monotonic() + self._pause(time.monotonic() - began)
            while not ended.wait(max(0.0, min(LOOK_INTERVAL, next_sweep - time.monotonic()))):
                if time.monotonic() >= next_sweep or self._is_urgent():
                    break

    def _is_urgent(self) -> bool:
        """Whether a revoke or a dead child calls for a sweep now."""
        return not self._revoked.empty() or (self._processes is not None and self._processes.has_lost_one())

    def _pause(self, swept_for: float) -> float:
        """Seconds to the next sweep: the interval, or less if a job becomes due before that.

        The sweep, which began ``swept_for`` seconds ago, may have missed a job that became due meanwhile.
        """
        interval = self._runtime.settings.sweep.interval_seconds
        try:
            with self._runtime.database.read() as session:
                due = queries.seconds_to_next_run(session, since=swept_for)
        except BlobferryError:
            return interval
        return interval if due is None else min(interval, max(due, 0.05))

    def _step(self, step: Callable[[], int]) -> int:
        try:
            return step()
        except Exception as error:  # the other steps may work, and the next sweep repeats this one
            known = isinstance(error, BlobferryError)
            logger.warning("step of a sweep failed", exc_info=not known, extra={"reason": str(error)})
            return 0

    def sign_off(self) -> None:
        """Say that the worker is no longer alive. Without it, the others find out within seconds."""
        self._step(self._forget_worker)

    def _report_alive(self) -> int:
        if not self._runs_jobs or self._processes is None:
            return 0
        worker, seconds = self._processes.worker_id, ALIVE_FOR + 3 * self._runtime.settings.sweep.interval_seconds
        with self._runtime.database.begin() as session:
            queries.report_alive(session, worker, f"{worker}@{gethostname()}", seconds)
        return 1

    def _forget_worker(self) -> int:
        if not self._runs_jobs or self._processes is None:
            return 0
        with self._runtime.database.begin() as session:
            queries.report_ended(session, self._processes.worker_id)
        return 1

    def _cancel_revoked(self) -> int:
        revoked = [self._revoked.get() for _ in range(self._revoked.qsize())]
        if not revoked:
            return 0
        try:
            with self._runtime.database.begin() as session:
                return queries.request_cancel(session, revoked)
        except BaseException:
            for job_id in revoked:
                self._revoked.put(job_id)
            raise

    def _expire_dead_leases(self) -> int:
        """Expire the leases of dead children, so that their jobs need not wait for the leases to run out."""
        if self._processes is None:
            return 0
        with self._runtime.database.read() as session:
            owners = queries.owners(session)
        dead = self._processes.dead(owners)
        if not dead:
            return 0
        with self._runtime.database.begin() as session:
            return queries.expire_leases(session, dead)

    def _requeue(self) -> int:
        seconds = self._retention.failed_upload_seconds
        with self._runtime.database.begin() as session:
            expired = queries.requeue_expired(session, limit=BATCH, failed_upload_seconds=seconds)
        self._report_ended(expired)
        return len(expired)

    def _apply_requests(self) -> int:
        seconds = self._retention.paused_upload_seconds
        with self._runtime.database.begin() as session:
            changed = queries.apply_requests(session, limit=BATCH, paused_upload_seconds=seconds)
        self._report_ended(changed)
        return len(changed)

    def _drop_stale_locks(self) -> int:
        with self._runtime.database.begin() as session:
            return queries.drop_stale_locks(session, search=self._stale)

    def _report_ended(self, jobs: Sequence[MessageRow]) -> None:
        """Publish a message for each job that ended here, so that a worker stores its Celery result."""
        ended = [Message.from_row(job.as_row()) for job in jobs if job.state in FINAL_STATES]
        if ended:
            self._publish(*ended)

    def _publish_due(self) -> int:
        self._told, limit = 0, AHEAD * self._runtime.settings.concurrency
        sent = publish_best(self._runtime, self._publish, limit=limit, turn=self._turn, telling_seconds=STEP_SECONDS)
        self._turn, self._told = (self._turn + sent.jobs) % 5, sent.ends
        return sent.jobs

    def _prune(self) -> int:
        jobs, tombstones = self._retention.job_seconds, self._retention.tombstone_seconds
        with self._runtime.database.begin() as session:
            queries.forget_gone_workers(session)
            return queries.prune(session, job_seconds=jobs, tombstone_seconds=tombstones, limit=BATCH)


def _in_batches(work: Callable[[], int]) -> int:
    """Repeat the work while it finds a whole ``BATCH`` to do, for ``STEP_SECONDS``; return how much was done."""
    ends_at, done = time.monotonic() + STEP_SECONDS, 0
    while True:
        found = work()
        done += found
        if found < BATCH or time.monotonic() > ends_at:
            return done
