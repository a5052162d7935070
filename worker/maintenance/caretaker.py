"""The caretaker: keeps jobs moving when messages, workers or uploads are lost. It needs no beat and no leader.

Each worker has one, as a process of its own (``python -m worker sweep --loop``). Any number may sweep at once:
rows are taken with SKIP LOCKED, and each step is safe to repeat.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Final, TypeVar

from sqlalchemy.orm import Session

from blobferry.contract import FINAL_STATES
from blobferry.messages.job_messages import Message
from models import JobRow, queries
from worker.errors import BlobferryError
from worker.maintenance.abort_uploads import abort_given_up
from worker.maintenance.publish_due import Publish, publish_best
from worker.processes import WorkerProcesses
from worker.runtime import Runtime

logger = logging.getLogger(__name__)

BATCH: Final = 100  #: rows that one step of a sweep handles
LOOK_INTERVAL: Final = 0.5  #: seconds between two checks whether a child has died
AHEAD: Final = 4  #: published jobs per slot: enough to keep it busy, few enough to lose with the broker

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep did, in rows."""

    requeued: int = 0  #: jobs whose lease had expired
    changed: int = 0  #: jobs without a run that were cancelled, overdue or paused
    freed: int = 0  #: jobs that no longer wait for another one
    published: int = 0
    aborted: int = 0  #: uploads
    pruned: int = 0  #: finished jobs

    def __bool__(self) -> bool:
        return any((self.requeued, self.changed, self.freed, self.published, self.aborted, self.pruned))


class Caretaker:
    """Sweeps. ``publish`` sends one message; False if the broker is out of reach."""

    def __init__(self, runtime: Runtime, publish: Publish, processes: WorkerProcesses | None = None) -> None:
        """``processes`` are those of the worker that this caretaker belongs to, if any."""
        self._runtime = runtime
        self._publish = publish
        self._processes = processes
        self._revoked: SimpleQueue[str] = SimpleQueue()
        self._turn = 0

    def cancel(self, job_id: str) -> None:
        """Cancel the job of this id, if there is one, at the next check. May be called by any thread."""
        self._revoked.put(job_id)

    def listen(self, lines: Iterable[str]) -> None:
        """Cancel the jobs that the worker's parent names, one JSON object a line, until it closes the pipe."""
        for line in lines:
            self.cancel(json.loads(line)["cancel"])

    def sweep(self) -> Swept:
        """One sweep. A step that fails is logged and does not stop the others; the next sweep repeats it."""
        self._step(self._cancel_revoked)
        self._step(self._expire_dead_leases)
        return Swept(
            requeued=self._step(self._requeue),
            changed=self._step(self._apply_requests),
            freed=self._step(self._drop_stale_locks),
            published=self._step(self._publish_due),
            aborted=self._step(lambda: abort_given_up(self._runtime)),
            pruned=self._step(self._prune),
        )

    def loop(self, ended: threading.Event) -> None:
        """Sweep until the event is set, or until the parent is gone: a killed worker takes its caretaker along."""
        parent = os.getppid()
        while not ended.is_set() and os.getppid() == parent:
            swept = self.sweep()
            if swept:
                logger.info("swept", extra={name: getattr(swept, name) for name in Swept.__slots__})
            next_sweep = time.monotonic() + self._pause()
            while not ended.wait(max(0.0, min(LOOK_INTERVAL, next_sweep - time.monotonic()))):
                if time.monotonic() >= next_sweep or self._is_needed():
                    break

    def _is_needed(self) -> bool:
        """Whether a revoke or a dead child calls for a sweep now."""
        return not self._revoked.empty() or (self._processes is not None and self._processes.has_lost_one())

    def _pause(self) -> float:
        """Seconds to the next sweep: the interval, or less if a job becomes due before."""
        interval = self._runtime.settings.sweep.interval_seconds
        try:
            with self._runtime.database.begin() as session:
                due = queries.seconds_to_next_run(session)
        except BlobferryError:
            return interval
        return interval if due is None else min(interval, max(due, 0.05))

    def _step(self, step: Callable[[], int]) -> int:
        try:
            return step()
        except Exception as error:  # the other steps may work, and the next sweep repeats this one
            known = isinstance(error, BlobferryError)
            logger.warning("sweep: step failed", exc_info=not known, extra={"reason": str(error)})
            return 0

    def _cancel_revoked(self) -> int:
        asked = [self._revoked.get() for _ in range(self._revoked.qsize())]
        try:
            return self._in_transaction(lambda session: queries.ask_to_cancel(session, asked)) if asked else 0
        except BaseException:
            for job_id in asked:
                self._revoked.put(job_id)
            raise

    def _expire_dead_leases(self) -> int:
        """Expire the leases of dead children, so that their jobs need not wait for the lease to end."""
        if self._processes is None:
            return 0
        dead = self._processes.dead(self._in_transaction(queries.owners))
        return self._in_transaction(lambda session: queries.expire_leases(session, dead)) if dead else 0

    def _requeue(self) -> int:
        kept = self._runtime.settings.retention.failed_upload_seconds
        expired = self._in_transaction(
            lambda session: queries.requeue_expired(session, limit=BATCH, failed_upload_seconds=kept)
        )
        self._report_ended(expired)
        return len(expired)

    def _apply_requests(self) -> int:
        kept = self._runtime.settings.retention.paused_upload_seconds
        changed = self._in_transaction(
            lambda session: queries.apply_requests(session, limit=BATCH, paused_upload_seconds=kept)
        )
        self._report_ended(changed)
        return len(changed)

    def _drop_stale_locks(self) -> int:
        return self._in_transaction(queries.drop_stale_locks)

    def _report_ended(self, jobs: Sequence[JobRow]) -> None:
        """Publish a message for each job that ended here, so that a worker stores its Celery result."""
        for job in jobs:
            if job.state in FINAL_STATES and not self._publish(Message.from_row(job.as_row())):
                break  # the broker is away: the next messages would only delay the sweep

    def _publish_due(self) -> int:
        limit = AHEAD * self._runtime.settings.concurrency
        published = publish_best(self._runtime, self._publish, limit=limit, turn=self._turn)
        self._turn = (self._turn + published) % 5
        return published

    def _prune(self) -> int:
        retention = self._runtime.settings.retention
        return self._in_transaction(
            lambda session: queries.prune(
                session,
                keep_seconds=retention.job_seconds,
                tombstone_seconds=retention.tombstone_seconds,
                limit=BATCH,
            )
        )

    def _in_transaction(self, work: Callable[[Session], Result]) -> Result:
        with self._runtime.database.begin() as session:
            return work(session)
