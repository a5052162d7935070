"""Turns Celery's revoke of a job into a cancel of its row.

All this runs in the parent, which has no database, so the ids go to the caretaker. A revoke reaches every worker, so a
job may be cancelled several times; only the first has an effect. Tasks that are no jobs are left to Celery.
"""

import time
from collections import deque
from typing import Any, Final

from celery import signals
from celery.worker import control
from celery.worker import state as worker_state

from blobferry.checks.arguments import MAX_JOB_ID
from blobferry.contract import ROW_HEADER
from worker.celery.task_guard import RedactedRequest

KEPT: Final = 10.0  #: seconds for which revoked ids are sent again to a restarted caretaker

#: Ids of revoked tasks, oldest first, with the time of the revoke.
_revoked: deque[tuple[float, str]] = deque(maxlen=10_000)


def ask_to_cancel(task_id: str) -> None:
    """Have the caretaker cancel the job of this id, if there is one."""
    if len(task_id) > MAX_JOB_ID:
        return  # no job has such an id, and a line of the pipe must be short to arrive in one piece
    _revoked.append((time.monotonic(), task_id))


def asked_since(moment: float) -> list[tuple[float, str]]:
    """Times and ids of revokes after ``moment`` (``time.monotonic``), of the last ``KEPT`` seconds."""
    oldest = max(moment, time.monotonic() - KEPT)
    return [asked for asked in _revoked if asked[0] > oldest]


class JobRequest(RedactedRequest):
    """The message of a job, in the parent."""

    def revoked(self) -> bool:
        """False for a message that has a row: the row decides, since a job may be retried under its revoked id."""
        return False if self.request_dict.get(ROW_HEADER) else bool(super().revoked())

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Cancel the job, which stops at its next part, instead of killing the process that runs it."""
        ask_to_cancel(self.id)


@control.Panel.register(
    name="revoke", type="control", variadic="task_id", signature="[id1 [id2 [... [idN]]]]", visible=True
)
def revoke(state: Any, task_id: Any, terminate: bool = False, signal: Any = None, **kwargs: Any) -> Any:
    """Revoke tasks by their ids, and cancel those that are jobs."""
    for one in {task_id} if isinstance(task_id, str) else set(task_id or ()):
        ask_to_cancel(str(one))
    return control.revoke(state, task_id, terminate=terminate, signal=signal, **kwargs)


@signals.task_revoked.connect(weak=False)
def _revoked_on_arrival(request: Any = None, **kwargs: Any) -> None:
    # A bare task whose message Celery refused. An earlier delivery may have made a row, which must be cancelled too.
    ask_to_cancel(request.id)
    worker_state.revoked.discard(request.id)
