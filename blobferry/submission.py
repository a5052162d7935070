"""Submitting: one INSERT in somebody's transaction, and a message after its commit."""

from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import Connection, event, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from blobferry.contract import Request
from blobferry.errors import ConflictError
from blobferry.tables import jobs

_PENDING: Final = "blobferry_pending"


def insert_job(
    connection: Connection, request: Request, *, job_id: str | None = None, **columns: Any
) -> Mapping[str, Any]:
    """Insert the job's row, or find the one that its idempotency key or id belongs to; return the row.

    Never an error inside the caller's transaction, except ConflictError: the key was used for another request.
    Safe to repeat with the same ``job_id`` or idempotency key, also concurrently.
    """
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    values = {
        "id": job_id or str(uuid4()),
        "operation": request.operation,
        "storage": request.storage,
        "path": request.path,
        "source": request.source,
        "request": dict(request.arguments),
        "labels": request.labels,
        "idempotency_key": request.idempotency_key,
        "priority": request.priority,
        "not_before": request.not_before,
        "run_at": request.not_before,
        "deadline": request.deadline,
    }
    insert = dialect.insert(jobs).values(**values | columns).on_conflict_do_nothing().returning(*jobs.c)
    row = connection.execute(insert).mappings().one_or_none()
    return dict(row) if row is not None else _existing(connection, values)


def _existing(connection: Connection, values: Mapping[str, Any]) -> Mapping[str, Any]:
    same_key = (
        (jobs.c.storage == values["storage"])
        & (jobs.c.operation == values["operation"])
        & (jobs.c.idempotency_key == values["idempotency_key"])
    )
    row = connection.execute(select(jobs).where((jobs.c.id == values["id"]) | same_key)).mappings().first()
    if row is None:  # inserted by a transaction that rolled back or was pruned in between: ours is free now
        raise ConflictError(values["idempotency_key"] or "", values["id"])
    asked = ("operation", "storage", "request", "priority", "not_before", "deadline", "labels")
    if row["id"] != values["id"] and any(row[name] != values[name] for name in asked):
        raise ConflictError(values["idempotency_key"], row["id"])
    return dict(row)


def after_commit(session: Session, publish: Callable[[], None]) -> None:
    """Call ``publish`` once the session's outermost transaction has committed; never if it rolls back.

    SQLAlchemy fires ``after_commit`` for a released savepoint as well, when the row is not yet there to be found.
    """
    if _PENDING not in session.info:
        session.info[_PENDING] = []
        event.listen(session, "after_commit", _publish_pending)
        event.listen(session, "after_soft_rollback", _drop_pending)
    session.info[_PENDING].append(publish)


def _publish_pending(session: Session) -> None:
    if session.in_nested_transaction():
        return
    pending, session.info[_PENDING] = session.info[_PENDING], []
    for publish in pending:
        publish()


def _drop_pending(session: Session, transaction: Any) -> None:
    if transaction.parent is None:
        session.info[_PENDING] = []
