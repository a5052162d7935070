"""Files of sources that are to be removed, and spooled uploads that no job needs."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import TextClause, and_, select, text, update
from sqlalchemy.orm import Session

from blobferry.contract import JobState
from blobferry.sql.index_conditions import REMOVING
from blobferry.sql.worker_tables import spools
from models.job import JobRow
from models.queries.conditions import dialect

NAMES_AT_ONCE: Final = 500  #: of spooled files, in one statement
_NEWEST: Final = text("SELECT pg_current_xact_id()::text")
_OLDEST_OPEN: Final = text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text")
_NO_OBJECTS: Final = {"synchronize_session": False}


@dataclass(frozen=True, slots=True)
class RemovableSource:
    """The source of a job that has succeeded, which was to be removed then."""

    seq: int
    job_id: str
    url: str
    spooled: str | None
    fingerprint: dict[str, Any]


def sources_to_remove(
    session: Session, *, after: int = 0, limit: int, job_ids: Sequence[str] | None = None
) -> list[RemovableSource]:
    """The sources of these jobs, or of all jobs after that ``seq``, which are still to be removed.

    Only of jobs that have succeeded, so that Stat has shown the blob.
    """
    columns = (JobRow.seq, JobRow.id, JobRow.source, JobRow.spooled, JobRow.source_fingerprint)
    found = select(*columns).where(text(REMOVING), JobRow.seq > after).order_by(JobRow.seq).limit(limit)
    if job_ids is not None:
        found = select(*columns).where(JobRow.id.in_(job_ids), text(REMOVING))
    return [
        RemovableSource(row.seq, row.id, row.source or "", row.spooled, row.source_fingerprint or {})
        for row in session.execute(found)
    ]


def needed_spools(session: Session, names: Collection[str], *, but: Collection[str] = ()) -> set[str]:
    """Those of the spooled files, at most ``NAMES_AT_ONCE``, that a job needs, other than the jobs of the ids ``but``.

    A failed job may be retried, so it needs its file for as long as it has a row; so does one that is not to remove it.
    """
    is_done = and_(JobRow.removes_source, JobRow.state.in_((JobState.SUCCEEDED, JobState.CANCELLED)))
    needing = select(JobRow.spooled).where(JobRow.spooled.in_(names), ~is_done)
    if but:
        needing = needing.where(JobRow.id.not_in(but))
    return {name for name in session.scalars(needing) if name is not None}


def sources_removed(session: Session, job_ids: Collection[str]) -> None:
    """Save that these jobs have nothing more to do with their sources."""
    done = update(JobRow).where(JobRow.id.in_(job_ids)).values(removes_source=False, spooled=None)
    session.execute(done, execution_options=_NO_OBJECTS)


def owns_spool(session: Session, spool_id: str) -> bool:
    """Whether the spool directory with this marker is this database's."""
    return session.scalar(select(spools.c.id).where(spools.c.id == spool_id)) is not None


def add_spool(session: Session, spool_id: str) -> None:
    """Save that the spool directory that is about to get this marker is this database's."""
    session.execute(dialect(session).insert(spools).values(id=spool_id).on_conflict_do_nothing())


def newest_transaction(session: Session) -> int:
    """A number above those of all transactions that have written until now; 0 on SQLite, where only one may write."""
    # Not the end of a snapshot: transactions that have begun to write since the last COMMIT are beyond it.
    return _number(session, _NEWEST)


def have_ended(session: Session, newest: int) -> bool:
    """Whether all transactions that had written by then have ended, so that their rows are seen from now on.

    On SQLite the session's own BEGIN IMMEDIATE has waited for them.
    """
    return _number(session, _OLDEST_OPEN) >= newest


def _number(session: Session, function: TextClause) -> int:
    if session.get_bind().dialect.name == "sqlite":
        return 0
    return int(session.scalar(function) or 0)
