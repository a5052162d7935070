"""Pruning: finished jobs are deleted after their retention and leave tombstones."""

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from blobferry.contract import FINAL_STATES, UploadState
from models.job import JobRow
from models.queries.conditions import dialect, now
from models.tombstone import TombstoneRow
from models.upload import UploadRow


def prune(session: Session, *, job_seconds: float, tombstone_seconds: float, limit: int) -> int:
    """Delete jobs that ended more than ``job_seconds`` ago and leave tombstones; return how many jobs were deleted.

    Tombstones are deleted ``tombstone_seconds`` after their job was pruned. A job whose upload may still exist in the
    store stays: its rows are the only trace of that upload.
    """
    session.execute(delete(TombstoneRow).where(TombstoneRow.pruned_at < now(-tombstone_seconds)))
    open_uploads = select(UploadRow.id).where(
        UploadRow.job_id == JobRow.id, UploadRow.state.not_in((UploadState.COMPLETED, UploadState.GONE))
    )
    old = (
        select(JobRow.id, JobRow.finished_at)
        .where(JobRow.state.in_(FINAL_STATES), JobRow.finished_at < now(-job_seconds), ~open_uploads.exists())
        .order_by(JobRow.finished_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = session.execute(old).all()
    if rows:
        stones = [{"id": row.id, "finished_at": row.finished_at} for row in rows]
        session.execute(dialect(session).insert(TombstoneRow).on_conflict_do_nothing(), stones)
        session.execute(delete(JobRow).where(JobRow.id.in_([row.id for row in rows])))
    return len(rows)
