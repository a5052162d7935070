"""When and why a run stops before its job has ended."""

import time
from enum import StrEnum
from typing import Final

from worker import drain
from worker.jobs.lease import Lease
from worker.jobs.operations.operation import JobOperation

#: Seconds of a drain after which also a part is cut off that waits for its source; its worker ends within 10.
DRAIN_GRACE: Final = 3.0
HURRY_AFTER: Final = 1.0  #: seconds between two heartbeats while a source is stalled


class StopReason(StrEnum):
    """Why a run ends before its job does. The texts are shown with Celery's RETRY."""

    CANCEL = "cancel requested"
    DEADLINE = "the deadline has passed"
    PAUSE = "pause requested"
    DRAIN = "the worker is shutting down"
    SLICE = "the slice is over"
    WITHDRAWN = "stop requested, then withdrawn"


class RunStop:
    """The :data:`~worker.transfer.stop.Stop` of one run. Any thread may call it. Raises LeaseLostError."""

    def __init__(self, lease: Lease, *, seconds: float) -> None:
        """``seconds`` are those of the slice, which begins now."""
        self.operation: JobOperation | None = None
        self._lease = lease
        self._ends_at = time.monotonic() + seconds
        self._drained_at: float | None = None
        self._hurried_at = time.monotonic()

    def __call__(self) -> bool:
        """Whether to stop before the next part or commit call."""
        self._lease.check()
        return self.reason() is not None

    def within_part(self) -> bool:
        """Whether to cut off a part that waits for its source. A pause or the end of a slice does not."""
        self._lease.check()
        if self._final_reason() is not None:
            return True
        if not drain.is_draining():
            return False
        self._drained_at = self._drained_at or time.monotonic()
        return time.monotonic() - self._drained_at > DRAIN_GRACE

    def while_stalled(self) -> bool:
        """The same, by control requests of the last second or two: a heartbeat alone may bring them in ten."""
        if time.monotonic() - self._hurried_at > HURRY_AFTER:
            self._hurried_at = time.monotonic()
            self._lease.hurry()
        return self.within_part()

    def reason(self) -> StopReason | None:
        """Why the run has to stop now; None if it may go on."""
        if found := self._final_reason():
            return found
        operation = self.operation
        if self._lease.requests.pause and not self._is_past_point_of_no_return():
            return StopReason.PAUSE
        if drain.is_draining():
            return StopReason.DRAIN
        is_late = time.monotonic() > self._ends_at
        slice_is_over = is_late and operation is not None and operation.progressed and operation.is_sliced
        return StopReason.SLICE if slice_is_over else None

    def _final_reason(self) -> StopReason | None:
        requests = self._lease.requests
        if self._is_past_point_of_no_return():
            return None
        if requests.cancel:
            return StopReason.CANCEL
        return StopReason.DEADLINE if requests.overdue else None

    def _is_past_point_of_no_return(self) -> bool:
        """Whether readers may already see the blob, so that a cancel, a deadline or a pause comes too late."""
        return self.operation is not None and self.operation.past_point_of_no_return
