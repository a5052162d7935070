"""Submission: one INSERT, in the app's transaction or its own, and a message after the commit."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import Connection, Engine, and_, event, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, SessionTransaction, scoped_session

from blobferry.contract import APART_REQUEST, PLAIN_REQUEST, SEALED_REQUEST, Request
from blobferry.errors import ConfigurationError, ConflictError, InvalidRequestError
from blobferry.jobs.put_contents import apart, digested
from blobferry.redaction import is_sealed
from blobferry.sealing import SETTING, Sealer
from blobferry.sql.database import reachable
from blobferry.sql.sqlite_connection import must_survive
from blobferry.sql.tables import JOB_COLUMNS, jobs

#: The app's own transaction, which a submitted row may join.
Transaction = Session | scoped_session[Session] | Connection
Publish = Callable[[Mapping[str, Any]], None]
"""Publishes a row that has been committed."""

_PENDING: Final = "blobferry_pending"
_NO_KEYS: Final = Sealer()
_TRIES: Final = 3  #: attempts to insert or read a row that another transaction deletes in between


def submit(
    engine: Engine, request: Request, transaction: Transaction | None, publish: Publish, sealer: Sealer = _NO_KEYS
) -> Mapping[str, Any]:
    """Insert the job's row, in the caller's transaction or its own, and call ``publish`` after the commit.

    Args:
        engine: for a transaction of its own.
        request: the checked request.
        transaction: the caller's. A Connection does not announce its commit: there the caretaker publishes.
        publish: called with the row; never if the transaction rolls back.
        sealer: seals a source URL that holds a secret.
    """
    if isinstance(transaction, scoped_session):
        transaction = transaction()
    if transaction is None:
        with reachable(), engine.begin() as connection:
            row = insert_job(connection, request, sealer=sealer)
        publish(row)
    elif isinstance(transaction, Session):
        connection = transaction.connection()
        row = insert_job(connection, request, sealer=sealer)
        after_commit(transaction, connection, lambda: publish(row))
    elif isinstance(transaction, Connection):
        row = insert_job(transaction, request, sealer=sealer)
    else:
        raise InvalidRequestError(f"session: needs a Session or a Connection, got {type(transaction).__name__}")
    return row


def insert_job(
    connection: Connection,
    request: Request,
    *,
    job_id: str | None = None,
    sealer: Sealer = _NO_KEYS,
    **columns: Any,
) -> Mapping[str, Any]:
    """Insert the job's row and return it, or the existing row with its id or idempotency key.

    Safe to repeat with the same ``job_id`` or idempotency key, also concurrently, and never a database error in the
    caller's transaction. Raises ConflictError if the key was used for another request, ConfigurationError if the
    ``sealer`` lacks the key to compare the two.
    """
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    kept, contents = apart(sealer.kept_arguments(request.arguments))
    values = {
        "id": job_id or str(uuid4()),
        "operation": request.operation,
        "storage": request.storage,
        "path": request.path,
        "source": request.source if request.source_url is None else sealer.shown(request.source_url),
        "dest": request.dest,
        "request": kept,
        "request_version": _version(kept),
        "contents": contents,
        "labels": request.labels,
        "idempotency_key": request.idempotency_key,
        "priority": request.priority,
        "not_before": request.not_before,
        "run_at": request.not_before,
        "deadline": request.deadline,
    }
    insert = dialect.insert(jobs).values(**values | columns).on_conflict_do_nothing().returning(*JOB_COLUMNS)
    for _ in range(_TRIES):
        row = connection.execute(insert).mappings().one_or_none()
        if row is not None:
            must_survive(connection)
            return dict(row)
        existing = _existing(connection, values, request, sealer)
        if existing is not None:
            return existing
    # The row exists, but the caller's snapshot (REPEATABLE READ) is older than it.
    raise ConflictError(request.idempotency_key or "", str(values["id"]))


def _version(kept: Mapping[str, Any]) -> int:
    """The first version whose workers understand the request."""
    if "contents" in kept:
        return APART_REQUEST
    return SEALED_REQUEST if is_sealed(str(kept.get("source", ""))) else PLAIN_REQUEST


def _existing(
    connection: Connection, values: Mapping[str, Any], request: Request, sealer: Sealer
) -> Mapping[str, Any] | None:
    """The row with this id or idempotency key; None if it has been deleted meanwhile."""
    same = jobs.c.id == values["id"]
    if values["idempotency_key"] is not None:
        key = ("storage", "operation", "idempotency_key")
        same |= and_(*(jobs.c[name] == values[name] for name in key))
    found = connection.execute(select(*JOB_COLUMNS).where(same)).mappings().first()
    if found is None:
        return None
    row = dict(found)
    asked = ("priority", "not_before", "deadline", "labels")
    if row["id"] != values["id"] and (
        any(row[name] != values[name] for name in asked) or not asks_the_same(row, request, sealer)
    ):
        raise ConflictError(values["idempotency_key"], row["id"])
    return row


def asks_the_same(row: Mapping[str, Any], request: Request, sealer: Sealer) -> bool:
    """True if the row was submitted with an equal request. Sealed sources are opened to compare them.

    Raises ConfigurationError if the ``sealer`` lacks the key for that.
    """
    kept, asked = digested(row["request"] or {}), digested(request.arguments)
    sources = kept.pop("source", None), asked.pop("source", None)
    if (row["operation"], row["storage"], kept) != (request.operation, request.storage, asked):
        return False
    if sources[0] == sources[1]:
        return True
    if None in sources:
        return False
    try:
        return sealer.opened(sources[0]) == sealer.opened(sources[1])
    except ConfigurationError as error:
        shown = row["source"], request.source
        if shown[0] != shown[1] and not any(is_sealed(source or "") for source in shown):
            return False
        raise ConfigurationError(
            SETTING, f"the source cannot be compared with that of job {row['id']}: {error.problem}"
        ) from None


@dataclass(frozen=True, slots=True)
class _Pending:
    """A message held back until the transaction, or savepoint, of its job commits."""

    transaction: SessionTransaction
    connection: Connection
    publish: Callable[[], None]

    def lineage(self) -> Iterator[SessionTransaction]:
        """The transaction and those around it; the outermost comes last."""
        transaction: SessionTransaction | None = self.transaction
        while transaction is not None:
            yield transaction
            transaction = transaction.parent


def after_commit(session: Session, connection: Connection, publish: Callable[[], None]) -> None:
    """Call ``publish`` once the session's outermost transaction has committed; never if it rolls back.

    SQLAlchemy also fires ``after_commit`` when a savepoint is released, and when a session that joined an outer
    transaction of its connection commits its part. Only the connection knows whether the row is visible to others.
    """
    if _PENDING not in session.info:
        session.info[_PENDING] = []
        event.listen(session, "after_commit", _publish_pending)
        event.listen(session, "after_soft_rollback", _drop_pending)
    transaction = session.get_nested_transaction() or session.get_transaction()
    assert transaction is not None, "the insert began one"
    session.info[_PENDING].append(_Pending(transaction, connection, publish))


def _publish_pending(session: Session) -> None:
    # Drop what an earlier transaction left: it was closed without a commit, or had joined an outer transaction.
    ours = [waiting for waiting in session.info[_PENDING] if session.get_transaction() in waiting.lineage()]
    session.info[_PENDING] = [waiting for waiting in ours if waiting.connection.in_transaction()]
    for waiting in ours:
        if waiting not in session.info[_PENDING]:
            waiting.publish()


def _drop_pending(session: Session, transaction: SessionTransaction) -> None:
    session.info[_PENDING] = [waiting for waiting in session.info[_PENDING] if transaction not in waiting.lineage()]
