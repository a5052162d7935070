"""What is long finished goes, and leaves a tombstone for a while."""

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from blobferry.contract import FINAL_STATES, UploadState
from models.job import Job
from models.queries.conditions import dialect, now
from models.tombstone import Tombstone
from models.upload import Upload


def prune(session: Session, *, keep_seconds: float, tombstone_seconds: float, limit: int) -> int:
    """Delete finished jobs older than ``keep_seconds``, leaving tombstones, and old tombstones; return how many jobs.

    A job with an upload that is not yet known to be finished or gone stays: its rows are the only trace of it.
    """
    session.execute(delete(Tombstone).where(Tombstone.finished_at < now(-tombstone_seconds)))
    open_uploads = select(Upload.id).where(
        Upload.job_id == Job.id, Upload.state.not_in((UploadState.COMPLETED, UploadState.GONE))
    )
    old = (
        select(Job.id, Job.finished_at)
        .where(Job.state.in_(FINAL_STATES), Job.finished_at < now(-keep_seconds), ~open_uploads.exists())
        .order_by(Job.finished_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = session.execute(old).all()
    if rows:
        stones = [{"id": row.id, "finished_at": row.finished_at} for row in rows]
        session.execute(dialect(session).insert(Tombstone).on_conflict_do_nothing(), stones)
        session.execute(delete(Job).where(Job.id.in_([row.id for row in rows])))
    return len(rows)
