"""The webhooks that are to learn the end of a job: written with it, for the job's own receiver and its storage's."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from sqlalchemy import Insert, bindparam, exists, insert, literal, select
from sqlalchemy.orm import Session

from blobferry.jobs.webhook_receivers import WebhookReceiver
from blobferry.sql.outbox_tables import AT_THE_END, deliveries
from blobferry.sql.tables import jobs
from models.session import STORAGE_WEBHOOKS

OfJob = tuple[str, Mapping[str, Any] | None]
"""The storage of a job, and its ``on_end``."""


def note_webhooks(session: Session, ended: Mapping[str, OfJob]) -> None:
    """Write a delivery for each webhook of these jobs, by id. An endpoint that is gone for a job gets no more of it."""
    storages: Mapping[str, WebhookReceiver] = session.info.get(STORAGE_WEBHOOKS, {})
    told = [
        {f"to_{name}": value for name, value in receiver.items()} | {"to_job": job_id}
        for job_id, (storage, on_end) in ended.items()
        for receiver in _receivers(on_end or {}, storages.get(storage))
    ]
    if told:
        session.execute(_note(), told)


def _receivers(on_end: Mapping[str, Any], of_storage: WebhookReceiver | None) -> Iterator[WebhookReceiver]:
    own: WebhookReceiver | None = on_end.get("webhook")
    if own:
        yield own
    if of_storage and not (own and own["endpoint"] == of_storage["endpoint"]):
        yield of_storage


@cache
def _note() -> Insert:
    receiver = {
        name: bindparam(f"to_{name}", type_=deliveries.c[name].type) for name in WebhookReceiver.__annotations__
    }
    seen = {"kind": literal("webhook"), "state": literal("waiting"), **AT_THE_END, **receiver}
    job_id = bindparam("to_job", type_=jobs.c.id.type)
    gone = exists().where(
        deliveries.c.job_id == job_id, deliveries.c.endpoint == receiver["endpoint"], deliveries.c.state == "gone"
    )
    return insert(deliveries).from_select(list(seen), select(*seen.values()).where(jobs.c.id == job_id, ~gone))
