"""Announcements that wait for the commit of an app's own session, and are dropped if that rolls back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, event
from sqlalchemy.orm import Session, SessionTransaction

from blobferry.jobs.announcement import Announcement, Row

_PENDING: Final = "blobferry_pending"
_COMMITTED: Final = "blobferry_committed"


@dataclass(frozen=True, slots=True, eq=False)
class _Pending:
    """Messages held back until the transaction, or savepoint, of their jobs commits."""

    transaction: SessionTransaction
    connection: Connection
    announcement: Announcement
    rows: Sequence[Row]

    def lineage(self) -> Iterator[SessionTransaction]:
        """The transaction and those around it; the outermost comes last."""
        transaction: SessionTransaction | None = self.transaction
        while transaction is not None:
            yield transaction
            transaction = transaction.parent


def after_commit(session: Session, connection: Connection, announcement: Announcement, rows: Sequence[Row]) -> None:
    """Announce the rows once the session's outermost transaction has committed; never if it rolls back.

    SQLAlchemy also fires ``after_commit`` when a savepoint is released, and when a session that joined an outer
    transaction of its connection commits its part. Only the connection knows whether the row is visible to others.
    """
    if _PENDING not in session.info:
        session.info[_PENDING], session.info[_COMMITTED] = [], []
        event.listen(session, "after_commit", _note_committed)
        event.listen(session, "after_soft_rollback", _drop_pending)
        event.listen(session, "after_transaction_end", _announce_committed)
    transaction = session.get_nested_transaction() or session.get_transaction()
    assert transaction is not None, "the insert began one"
    session.info[_PENDING].append(_Pending(transaction, connection, announcement, rows))


def _note_committed(session: Session) -> None:
    # Drop what an earlier transaction left: it was closed without a commit, or had joined an outer transaction.
    ours = [waiting for waiting in session.info[_PENDING] if session.get_transaction() in waiting.lineage()]
    session.info[_PENDING] = [waiting for waiting in ours if waiting.connection.in_transaction()]
    session.info[_COMMITTED] += [waiting for waiting in ours if not waiting.connection.in_transaction()]


def _announce_committed(session: Session, transaction: SessionTransaction) -> None:
    # Not right after the commit: until here the session keeps its connection, and the announcement may need one.
    if transaction.parent is not None or not session.info[_COMMITTED]:
        return
    committed, session.info[_COMMITTED] = session.info[_COMMITTED], []
    together: dict[Announcement, list[Row]] = {}
    for waiting in committed:
        together.setdefault(waiting.announcement, []).extend(waiting.rows)
    for announcement, rows in together.items():
        announcement.announce(rows)


def _drop_pending(session: Session, transaction: SessionTransaction) -> None:
    session.info[_PENDING] = [waiting for waiting in session.info[_PENDING] if transaction not in waiting.lineage()]
