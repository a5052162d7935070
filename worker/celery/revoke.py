"""A Celery revoke of a job is a cancel of its row. All this runs in the parent, which has no database.

The caretaker has one: what is to be cancelled goes there. A revoke reaches every worker, so a row may be told many
times; each time after the first changes nothing. What is no job is left to Celery.
"""

import time
from collections import deque
from typing import Any, Final

from celery import signals
from celery.worker import control
from celery.worker import state as worker_state

from blobferry.checks.arguments import MAX_JOB_ID
from blobferry.contract import ROW_HEADER
from worker.celery.task_guard import ShownRequest

KEPT: Final = 10.0  #: seconds that an id is told again to a caretaker that was started anew

#: Ids of revoked tasks, oldest first, with the time of the revoke.
_revoked: deque[tuple[float, str]] = deque(maxlen=10_000)


def ask_to_cancel(task_id: str) -> None:
    """The job of this id, if it is one, is to be cancelled."""
    if len(task_id) > MAX_JOB_ID:
        return  # no job's; and a line of the pipe to the caretaker has to be short to arrive in one piece
    _revoked.append((time.monotonic(), task_id))


def asked_since(moment: float) -> list[tuple[float, str]]:
    """What was revoked after ``moment`` (monotonic), and is not yet forgotten."""
    oldest = max(moment, time.monotonic() - KEPT)
    return [asked for asked in _revoked if asked[0] > oldest]


class JobRequest(ShownRequest):
    """A message of a job, as the parent sees it."""

    def revoked(self) -> bool:
        """A message that has a row is for the row to refuse: a job may be retried under the id that was revoked."""
        return False if self.request_dict.get(ROW_HEADER) else bool(super().revoked())

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Cancel the job, which ends at its next part, instead of killing the process that runs it."""
        ask_to_cancel(self.id)


@control.Panel.register(
    name="revoke", type="control", variadic="task_id", signature="[id1 [id2 [... [idN]]]]", visible=True
)
def revoke(state: Any, task_id: Any, terminate: bool = False, signal: Any = None, **kwargs: Any) -> Any:
    """Revoke tasks by their ids; of those that are jobs, cancel the rows."""
    for one in {task_id} if isinstance(task_id, str) else set(task_id or ()):
        ask_to_cancel(str(one))
    return control.revoke(state, task_id, terminate=terminate, signal=signal, **kwargs)


@signals.task_revoked.connect(weak=False)
def _revoked_on_arrival(request: Any = None, **kwargs: Any) -> None:
    # A bare task whose message was refused: its row, if an earlier delivery made one, hears of it as well.
    ask_to_cancel(request.id)
    worker_state.revoked.discard(request.id)
