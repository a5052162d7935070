"""Whoever is told of the end of a job, in a test: the deliveries of the outbox, without broker and endpoints.

The rows and what is told are those of life: ``blobferry_deliveries``, written in the transaction of the end, and
``event_of``. A receiver of another kind gets its rows in ``note_end`` and its form in ``_as_told``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Engine, insert, literal, select, update

from blobferry.contract import RECEIVERS, JobState
from blobferry.messages.callback_messages import CallbackMessage
from blobferry.messages.end_events import event_of, webhook_message
from blobferry.sql.clock import db_now
from blobferry.sql.database import reachable
from blobferry.sql.outbox_tables import AT_THE_END, UNTOLD, deliveries
from blobferry.sql.tables import jobs

_OF_JOB: Final = ("operation", "storage", "path", "labels", "root_id", "on_end")


@dataclass(frozen=True, slots=True)
class ToldWebhook:
    """A webhook that a worker would have posted."""

    job_id: str
    endpoint: str  #: its URL, without secrets
    message: Mapping[str, Any] = field(repr=False)  #: the JSON of its body: ``type``, ``timestamp``, ``data``


def note_end(connection: Connection, row: Mapping[str, Any]) -> None:
    """Write the deliveries of a job that has just ended, in this transaction. ``row``: with ``on_end``."""
    receivers = row["on_end"] or {}
    if RECEIVERS[JobState(row["state"])] in receivers:
        _insert(connection, row["id"], {"kind": "task", "state": "due"})
    if "webhook" in receivers:
        _insert(connection, row["id"], {"kind": "webhook", "state": "waiting", **receivers["webhook"]})


def _insert(connection: Connection, job_id: str, given: Mapping[str, str]) -> None:
    seen = {**AT_THE_END, **{name: literal(value) for name, value in given.items()}}
    of_job = select(*seen.values()).where(jobs.c.id == job_id)
    connection.execute(insert(deliveries).from_select(list(seen), of_job))


def take_told(engine: Engine) -> list[CallbackMessage | ToldWebhook]:
    """What all deliveries that are due would send, which count as delivered from now on."""
    due = select(deliveries, *(jobs.c[name] for name in _OF_JOB)).join(jobs, jobs.c.id == deliveries.c.job_id)
    is_due = deliveries.c.state.in_(UNTOLD)
    with reachable(), engine.begin() as connection:
        taken = [dict(row) for row in connection.execute(due.where(is_due).order_by(deliveries.c.id)).mappings()]
        ours = deliveries.c.id.in_([row["id"] for row in taken])
        arrived = {"state": "delivered", "delivered_at": db_now(), "tries": deliveries.c.tries + 1}
        connection.execute(update(deliveries).where(ours).values(arrived))
    return [_as_told(row) for row in taken]


def _as_told(row: Mapping[str, Any]) -> CallbackMessage | ToldWebhook:
    event = event_of(row)
    if row["kind"] == "webhook":
        return ToldWebhook(row["job_id"], row["endpoint"], webhook_message(event))
    return CallbackMessage(row["job_id"], row["root_id"], row["on_end"][RECEIVERS[JobState(row["job_state"])]], event)
