"""Submission: one INSERT, in the app's transaction or its own, and a message after the commit."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import ClauseElement, Connection, Engine
from sqlalchemy.orm import Session, scoped_session

from blobferry.contract import Request
from blobferry.errors import ConflictError, UnreachableError
from blobferry.jobs.announcement import Announcement, awaits_message, message_row
from blobferry.jobs.idempotency import existing_job
from blobferry.jobs.job_rows import UNSET, insert_one, new_row
from blobferry.jobs.key_reuse import gives_key, take_key
from blobferry.jobs.open_blocks import heed_open_blocks
from blobferry.jobs.session_commits import after_commit
from blobferry.sealing import Sealer
from blobferry.sql.async_transactions import refusal
from blobferry.sql.database import reachable, tables_are_there
from blobferry.sql.sqlite_connection import must_survive
from blobferry.sql.tables import jobs

#: The app's own transaction, which a submitted row may join.
Transaction = Session | scoped_session[Any] | Connection

NO_KEYS: Final = Sealer()
TRIES: Final = 3  #: attempts to insert or read a row that another transaction deletes in between


def submit(
    request: Request, transaction: Transaction | None, announcement: Announcement, sealer: Sealer = NO_KEYS
) -> Mapping[str, Any]:
    """Insert the job's row, in the caller's transaction or its own, and announce it after the commit.

    Args:
        request: the checked request.
        transaction: the caller's. A Connection does not announce its commit: there the caretaker publishes.
        announcement: of the client. It has the engine for a transaction of its own.
        sealer: seals a source URL that holds a secret.
    """
    transaction = plain_transaction(transaction)
    job_id = str(uuid4())
    is_published = request.not_before is None and publishes(transaction, announcement)
    means: dict[str, Any] = {"job_id": job_id, "sealer": sealer, "is_published": is_published}
    if transaction is None:
        engine = announcement.alone if request.reuse is None else announcement.engine  # a key moves with its new row
        row = _insert_alone(engine, request, **means)
    elif isinstance(transaction, Session):
        with tables_are_there():
            row = insert_job(transaction.connection(), request, **means)
    else:
        with tables_are_there():
            return insert_job(transaction, request, **means)
    is_new = row["id"] == job_id
    if request.not_before is None if is_new else awaits_message(row):
        message = message_row(row, is_published=is_new and is_published)
        if isinstance(transaction, Session):
            after_commit(transaction, transaction.connection(), announcement, [message])
        else:
            announcement.announce([message])
    return row


def _insert_alone(engine: Engine, request: Request, **means: Any) -> Mapping[str, Any]:
    """Insert the row in a transaction of its own, again if the connection was lost: the id makes that safe.

    ``engine``: on PostgreSQL in autocommit mode, as BEGIN and COMMIT would be two more round trips.
    """
    heed_open_blocks(engine)
    try:
        with reachable(), engine.begin() as connection:
            return insert_job(connection, request, **means)
    except UnreachableError as error:
        if not getattr(error.__cause__, "connection_invalidated", False):
            raise
    with reachable(), engine.begin() as connection:
        return insert_job(connection, request, **means)


def plain_transaction(transaction: Transaction | None) -> Session | Connection | None:
    """The transaction itself, behind a scoped session. Raises InvalidRequestError for anything else."""
    if isinstance(transaction, scoped_session):
        session: Session = transaction()
        return session
    if transaction is None or isinstance(transaction, Session | Connection):
        return transaction
    raise refusal(transaction)


def publishes(transaction: Session | Connection | None, announcement: Announcement) -> bool:
    """Whether a job would be published right after its transaction has committed, so that its row may say so.

    Nobody says when a Connection commits, nor when the outer transaction does that a session has joined.
    """
    is_told = transaction is None or (isinstance(transaction, Session) and _owns_connection(transaction))
    return is_told and announcement.is_ready


def _owns_connection(session: Session) -> bool:
    return not isinstance(session.get_bind(), Connection)


def insert_job(
    connection: Connection,
    request: Request,
    *,
    job_id: str | None = None,
    sealer: Sealer = NO_KEYS,
    is_published: bool = False,
    **columns: Any,
) -> Mapping[str, Any]:
    """Insert the job's row and return it, or the existing row with its id or idempotency key.

    Safe to repeat with the same ``job_id`` or idempotency key, also concurrently, and never a database error in the
    caller's transaction. Raises ConflictError if the key was used for another request, ConfigurationError if the
    ``sealer`` lacks the key to compare the two. ``is_published``: the caller sends the message right after the commit.
    A new row is returned without what neither a Job nor a message needs.
    """
    values = new_row(request, job_id or str(uuid4()), sealer) | columns
    computed = {name: values.pop(name) for name, value in columns.items() if isinstance(value, ClauseElement)}
    insert = insert_one(connection.dialect.name, frozenset(values), is_published=is_published)
    if computed:
        insert = insert.values(computed).returning(*(jobs.c[name] for name in computed))
    replaces = None
    for _ in range(TRIES):
        filled = connection.execute(insert, values).mappings().one_or_none()
        if filled is not None:
            must_survive(connection)
            return {**UNSET, **values, **filled, "contents": None, "replaces": replaces}
        existing = existing_job(connection, values, request, sealer)
        if existing is None:
            continue
        if existing["id"] == values["id"] or not gives_key(existing, request):
            return existing
        if take_key(connection, existing, values["id"]):
            replaces = existing["id"]
    # The row exists, but the caller's snapshot (REPEATABLE READ) is older than it.
    raise ConflictError(request.idempotency_key or "", str(values["id"]))
