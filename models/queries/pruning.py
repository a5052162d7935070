"""Pruning: finished jobs are deleted after their retention and leave tombstones."""

from typing import Final

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from blobferry.contract import FINAL_STATES, UploadState
from blobferry.sql.outbox_tables import UNTOLD
from models.delivery import DeliveryRow
from models.job import JobRow
from models.part import PartRow
from models.queries.conditions import dialect, now
from models.tombstone import TombstoneRow
from models.upload import UploadRow

PARTS_AT_ONCE: Final = 1000  #: rows of parts that one call deletes: a job may have 10,000, and nobody waits for all
TOMBSTONES_AT_ONCE: Final = 1000

_NO_OBJECTS: Final = {"synchronize_session": False}


def prune(session: Session, *, job_seconds: float, tombstone_seconds: float, limit: int) -> int:
    """Delete jobs that ended more than ``job_seconds`` ago and leave tombstones; return how many jobs were deleted.

    Tombstones are deleted ``tombstone_seconds`` after their job was pruned. A job whose upload may still exist in the
    store stays: its rows are the only trace of that upload. So does a job of whose end somebody is still to be told.
    At most ``limit`` jobs, ``PARTS_AT_ONCE`` parts and ``TOMBSTONES_AT_ONCE`` tombstones are deleted by one call; a job
    with more parts is left to the next calls.
    """
    _drop_tombstones(session, tombstone_seconds)
    open_uploads = select(UploadRow.id).where(
        UploadRow.job_id == JobRow.id, UploadRow.state.not_in((UploadState.COMPLETED, UploadState.GONE))
    )
    untold = select(DeliveryRow.id).where(DeliveryRow.job_id == JobRow.id, DeliveryRow.state.in_(UNTOLD))
    old = (
        select(JobRow.seq, JobRow.id, JobRow.finished_at)
        .where(JobRow.state.in_(FINAL_STATES), JobRow.finished_at < now(-job_seconds), ~open_uploads.exists())
        .where(~untold.exists())
        .order_by(JobRow.finished_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = session.execute(old).all()
    if not rows or not _drop_parts(session, [row.id for row in rows]):
        return 0
    stones = [{"id": row.id, "finished_at": row.finished_at} for row in rows]
    session.execute(dialect(session).insert(TombstoneRow).on_conflict_do_nothing(), stones)
    gone = delete(JobRow).where(JobRow.seq.in_([row.seq for row in rows]))
    session.execute(gone, execution_options=_NO_OBJECTS)
    return len(rows)


def _drop_tombstones(session: Session, tombstone_seconds: float) -> None:
    over = TombstoneRow.pruned_at < now(-tombstone_seconds)
    oldest = select(TombstoneRow.id).where(over).order_by(TombstoneRow.pruned_at).limit(TOMBSTONES_AT_ONCE)
    if found := session.scalars(oldest).all():
        session.execute(delete(TombstoneRow).where(TombstoneRow.id.in_(found)), execution_options=_NO_OBJECTS)


def _drop_parts(session: Session, job_ids: list[str]) -> bool:
    """Delete the rows of parts of these jobs; False if some are left."""
    of_jobs = select(UploadRow.id).where(UploadRow.job_id.in_(job_ids))
    some = (
        select(PartRow.upload, PartRow.part_number)
        .where(PartRow.upload.in_(of_jobs))
        .order_by(PartRow.upload, PartRow.part_number)
        .limit(PARTS_AT_ONCE)
        .subquery()
    )
    last = select(some.c.upload, func.max(some.c.part_number), func.count()).group_by(some.c.upload)
    found = [(upload, last_part, int(number)) for upload, last_part, number in session.execute(last)]
    for upload, last_part, _ in found:
        first_parts = (PartRow.upload == upload, PartRow.part_number <= last_part)
        session.execute(delete(PartRow).where(*first_parts), execution_options=_NO_OBJECTS)
    return sum(number for _, _, number in found) < PARTS_AT_ONCE
