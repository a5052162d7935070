"""Who was told of the ends of jobs, who is still to be told, and how to tell somebody again."""

from typing import Any, Final

from sqlalchemy import Connection, Engine, case, func, select, text, update

from blobferry.checks.arguments import check_job_id
from blobferry.errors import InvalidRequestError, JobNotFoundError
from blobferry.jobs.job_ids import JobId
from blobferry.jobs.open_blocks import refuse_own_file
from blobferry.redaction import short_repr
from blobferry.sql.clock import db_now
from blobferry.sql.database import reachable
from blobferry.sql.outbox_tables import FAILED_DELIVERY, deliveries
from blobferry.sql.tables import jobs
from blobferry.values import Delivery

MAX_ID: Final = 2**63 - 1
_AGAIN: Final[dict[str, Any]] = {
    "state": case((deliveries.c.kind == "webhook", "waiting"), else_="due"),
    "due_at": db_now(),
    "resent_at": db_now(),
    "tries": 0,
    **dict.fromkeys(("delivered_at", "tried_at", "status", "error")),
}


def find_deliveries(
    connection: Connection, *, job_id: str | None = None, failed: bool = False, limit: int | None = None
) -> list[Delivery]:
    """The newest deliveries, the newest first; ``failed``: those that were given up, or whose endpoint is gone."""
    conditions = [text(FAILED_DELIVERY)] if failed else []
    of_job = [] if job_id is None else [deliveries.c.job_id == job_id]
    return _found(connection, *conditions, *of_job, limit=limit)


def redeliver(engine: Engine, which: JobId | int) -> list[Delivery]:
    """Have the last end of a job told to all its receivers again, or one delivery by its id."""
    refuse_own_file(engine)
    with reachable(), engine.begin() as connection:
        wanted = deliveries.c.id == _delivery_id(which) if isinstance(which, int) else _last_of(connection, which)
        again = update(deliveries).where(wanted).values(_AGAIN).returning(deliveries.c.id)
        ids = connection.scalars(again).all()
        if not ids and isinstance(which, int):
            raise InvalidRequestError(f"there is no delivery {which}; to list them: blobferry deliveries")
        if not ids:
            raise InvalidRequestError(f"job {which} has no deliveries: it has not ended, or nobody is to be told")
        return _found(connection, deliveries.c.id.in_(ids))


def _delivery_id(which: int) -> int:
    if not 0 < which <= MAX_ID or isinstance(which, bool):
        raise InvalidRequestError(f"which: needs the id of a job or of a delivery, got {short_repr(which)}")
    return which


def _last_of(connection: Connection, which: JobId) -> Any:
    job_id = check_job_id(which)
    if connection.scalar(select(jobs.c.seq).where(jobs.c.id == job_id)) is None:
        raise JobNotFoundError(job_id)
    last = select(func.max(deliveries.c.sequence)).where(deliveries.c.job_id == job_id).scalar_subquery()
    return (deliveries.c.job_id == job_id) & (deliveries.c.sequence == last)


def _found(connection: Connection, *conditions: Any, limit: int | None = None) -> list[Delivery]:
    newest = select(deliveries).where(*conditions).order_by(deliveries.c.id.desc()).limit(limit).subquery()
    seen = select(newest, jobs.c.on_end).join(jobs, jobs.c.id == newest.c.job_id).order_by(newest.c.id.desc())
    return [Delivery.from_row(dict(row)) for row in connection.execute(seen).mappings()]
