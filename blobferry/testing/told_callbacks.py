"""Whoever is told of the end of a job, in a test: the deliveries of the outbox, without a broker.

The rows and the events are those of life: ``blobferry_deliveries``, written in the transaction of the end, and
``end_event``. A receiver of another kind than a task needs its rows from ``note_end``, and its own way out beside
``CallbackBox``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Engine, insert, select, text, update

from blobferry.contract import JobState
from blobferry.messages.callback_messages import CallbackMessage, end_event
from blobferry.sql.clock import db_now
from blobferry.sql.database import reachable
from blobferry.sql.outbox_tables import DUE_DELIVERY, deliveries
from blobferry.sql.tables import jobs

if TYPE_CHECKING:
    from celery import Celery

#: The option that names the receiver of a state.
RECEIVERS: Final = {JobState.SUCCEEDED: "on_done", JobState.FAILED: "on_failed", JobState.CANCELLED: "on_failed"}


def note_end(connection: Connection, row: Mapping[str, Any]) -> None:
    """Write the deliveries of a job that has just ended, in this transaction. ``row``: with ``on_end``."""
    if RECEIVERS[JobState(row["state"])] not in (row["on_end"] or {}):
        return
    seen = {"size": jobs.c.size, "error_code": jobs.c.error_code, "error_message": jobs.c.error_message}
    seen |= {"job_id": jobs.c.id, "sequence": jobs.c.ends, "job_state": jobs.c.state, "ended_at": jobs.c.finished_at}
    of_job = select(*seen.values()).where(jobs.c.id == row["id"])
    connection.execute(insert(deliveries).from_select(list(seen), of_job))


def take_messages(engine: Engine) -> list[CallbackMessage]:
    """The messages of all deliveries that are due, which count as delivered from now on."""
    columns = ("operation", "storage", "path", "labels", "root_id", "on_end")
    due = select(deliveries, *(jobs.c[name] for name in columns)).join(jobs, jobs.c.id == deliveries.c.job_id)
    with reachable(), engine.begin() as connection:
        rows = connection.execute(due.where(text(f"blobferry_deliveries.{DUE_DELIVERY}")).order_by(deliveries.c.id))
        taken = [dict(row) for row in rows.mappings()]
        ours = deliveries.c.id.in_([row["id"] for row in taken])
        arrived = {"state": "delivered", "delivered_at": db_now(), "tries": deliveries.c.tries + 1}
        connection.execute(update(deliveries).where(ours).values(arrived))
    return [_message(row) for row in taken]


def _message(row: Mapping[str, Any]) -> CallbackMessage:
    event = end_event(
        job_id=row["job_id"],
        sequence=row["sequence"],
        state=row["job_state"],
        ended_at=row["ended_at"],
        error_code=row["error_code"],
        error_message=row["error_message"],
        row=row,
    )
    return CallbackMessage(row["job_id"], row["root_id"], row["on_end"][RECEIVERS[JobState(row["job_state"])]], event)


@dataclass(frozen=True, slots=True)
class ToldCallback:
    """A task of the app that was told of an end, as its worker would have got it."""

    job_id: str
    task: str  #: its name
    args: tuple[Any, ...]  #: the event first, unless the signature is immutable
    kwargs: Mapping[str, Any]
    queue: str  #: that it would have been sent to
    event: Mapping[str, Any] = field(repr=False)


class CallbackBox:
    """Takes the messages of callbacks, and runs those whose app is in eager mode.

    ``app``: the app's Celery; the current one unless given.
    """

    def __init__(self, app: "Celery | None" = None) -> None:
        self._app = app
        self.told: list[ToldCallback] = []
        self._waiting: list[ToldCallback] = []

    def take(self, message: CallbackMessage) -> None:
        """Record the message; run its task if the app says ``task_always_eager``, and raise what it raises if the app
        says ``task_eager_propagates``.
        """
        from kombu.utils.json import dumps, loads  # noqa: PLC0415 - a part of Celery, for those who use callbacks

        # Through JSON, as in life: what a message cannot carry must not pass a test.
        args, kwargs = loads(dumps([message.arguments, message.signature["kwargs"]]))  # type: ignore[no-untyped-call]
        options = message.signature.get("options", {})
        where = options.get("queue") or options.get("routing_key") or "celery"
        told = ToldCallback(message.job_id, message.signature["task"], tuple(args), kwargs, where, message.event)
        self.told.append(told)
        self._waiting.append(told)
        app = self._known_app()
        if app.conf.task_always_eager and told.task in app.tasks:
            self._run(told, throws=bool(app.conf.task_eager_propagates))

    def run(self) -> list[ToldCallback]:
        """Run those that have not run yet; return them. Raises what a task raises; LookupError for an unknown one."""
        waiting = list(self._waiting)
        for told in waiting:
            self._run(told, throws=True)
        return waiting

    def _run(self, told: ToldCallback, *, throws: bool) -> None:
        app = self._known_app()
        if told.task not in app.tasks:
            raise LookupError(f"the Celery app {app.main!r} has no task {told.task!r}; give the app: celery=…")
        self._waiting.remove(told)
        app.tasks[told.task].apply(args=told.args, kwargs=dict(told.kwargs), throw=throws)

    def _known_app(self) -> Any:
        from celery import current_app  # noqa: PLC0415 - for those who use callbacks

        return self._app or current_app
