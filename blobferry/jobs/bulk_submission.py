"""Submission of many jobs at once: all of them or none, an INSERT per thousand, a few messages after the commit.

The requests are read and checked before a transaction is opened. So a generator may take its time, may use the app's
own session, and may fail, and no lock is held meanwhile.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final
from uuid import uuid4

from sqlalchemy import Connection, update
from sqlalchemy.orm import Session

from blobferry.contract import JOBS_QUEUE, OPERATIONS, check_request
from blobferry.errors import InvalidRequestError
from blobferry.jobs.announcement import Announcement, Row, message_row
from blobferry.jobs.bulk_insert import insert_chunk
from blobferry.jobs.job_ids import JobIds
from blobferry.jobs.job_rows import NewRow, new_row
from blobferry.jobs.new_job import NewJob
from blobferry.jobs.open_blocks import heed_open_blocks
from blobferry.jobs.row_spool import RowSpool
from blobferry.jobs.session_commits import after_commit
from blobferry.jobs.submission import Transaction, plain_transaction, publishes
from blobferry.redaction import redacted_arguments, short_repr
from blobferry.sealing import Sealer
from blobferry.sql.clock import db_now
from blobferry.sql.database import reachable
from blobferry.sql.tables import jobs

#: Messages that wake the workers. Every run that ends, and each caretaker, publishes what is next in SQL.
WAKING: Final = 64
#: What the database fills of a message's row.
_DEFAULTS: Final = {"queue": JOBS_QUEUE, "publish_seq": 0, "message_options": None, "parent_id": None, "root_id": None}


def submit_many(
    requests: Iterable[NewJob],
    transaction: Transaction | None,
    announcement: Announcement,
    sealer: Sealer,
    keys: str = "registry",
) -> JobIds:
    """Insert a row for each request, in the caller's transaction or one of its own; return the ids, in order.

    Args:
        requests: any number. They take no more than a few MiB of memory, then space in a temporary file.
        transaction: the caller's, which stays usable if this raises.
        announcement: of the client.
        sealer: seals source URLs that hold a secret.
        keys: as for :func:`~blobferry.contract.check_request`.

    Raises InvalidRequestError or ConflictError that names the position of a request, with nothing written.
    """
    transaction = plain_transaction(transaction)
    if transaction is None:
        heed_open_blocks(announcement.engine)
    wakes = publishes(transaction, announcement)
    with RowSpool() as spool:
        for position, request in enumerate(requests):
            spool.add(_checked_row(position, request, sealer, keys))
        with reachable(), _all_or_nothing(transaction, announcement) as connection:
            ids, first = _insert_all(connection, spool.chunks(), sealer)
            if wakes and first:  # only now, so that the time is about that of the commit
                are_first = jobs.c.id.in_([row["id"] for row in first])
                connection.execute(update(jobs).where(are_first).values(published_at=db_now()))
    messages = [message_row(row, is_published=wakes) for row in first]
    if isinstance(transaction, Session):
        after_commit(transaction, transaction.connection(), announcement, messages)
    elif transaction is None:
        announcement.announce(messages)
    return ids


def _checked_row(position: int, request: NewJob, sealer: Sealer, keys: str) -> NewRow:
    if not isinstance(request, NewJob):
        raise InvalidRequestError(f"requests[{position}]: needs a NewJob, got {short_repr(request)}")
    if request.operation not in OPERATIONS:
        known = ", ".join(OPERATIONS)
        raise InvalidRequestError(f"requests[{position}]: {short_repr(request.operation)} is not one of {known}")
    try:
        checked = check_request(request.operation, request.arguments, keys=keys)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"requests[{position}]: {error}") from error
    return new_row(checked, str(uuid4()), sealer) | {"reuse": checked.reuse, "relative": checked.relative}


@contextmanager
def _all_or_nothing(transaction: Session | Connection | None, announcement: Announcement) -> Iterator[Connection]:
    """A transaction, or a savepoint in the caller's, so that the caller may go on after an error."""
    if transaction is None:
        with announcement.engine.begin() as connection:
            yield connection
        return
    connection = transaction.connection() if isinstance(transaction, Session) else transaction
    if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
        raise InvalidRequestError("session: is in autocommit mode, where many rows cannot be all or nothing")
    begin_on_sqlite(connection)
    savepoint = connection.begin_nested()
    try:
        yield connection
    except BaseException:
        savepoint.rollback()
        raise
    savepoint.commit()


def begin_on_sqlite(connection: Connection) -> None:
    """Begin a transaction where Python's driver would do so at the first INSERT only: a savepoint outside of one is
    a transaction of its own, which its release commits.
    """
    if connection.dialect.name != "sqlite":
        return
    if not connection.in_transaction():
        connection.exec_driver_sql("SELECT 1")  # an engine of ours begins here
    if not getattr(connection.connection.driver_connection, "in_transaction", True):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _insert_all(connection: Connection, chunks: Iterable[Sequence[NewRow]], sealer: Sealer) -> tuple[JobIds, list[Row]]:
    """The ids of all jobs, and what a message needs of the first ones that are new and due."""
    ids, first = JobIds(), list[Row]()
    for chunk in chunks:
        found = insert_chunk(connection, chunk, sealer, start=len(ids))
        for row, job_id in zip(chunk, found, strict=True):
            ids.append(job_id)
            if len(first) < WAKING and row["not_before"] is None and job_id == row["id"]:
                first.append(row | _DEFAULTS | {"contents": None, "request": redacted_arguments(row["request"])})
    return ids, first
