"""The checkpoint: the rows of a job's uploads and of their parts. Only the run that owns the job writes them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from blobferry.contract import UploadState
from blobferry.sql.clock import db_now
from blobferry.sql.sqlite_connection import must_survive
from models.part import PartRow
from models.queries.conditions import dialect
from models.upload import UploadRow


def newest_upload(session: Session, job_id: str) -> UploadRow | None:
    """The upload to resume: the newest one that is neither gone nor being aborted. None: begin a new one."""
    statement = (
        select(UploadRow)
        .where(UploadRow.job_id == job_id, UploadRow.state.not_in((UploadState.GONE, UploadState.ABORTING)))
        .order_by(UploadRow.id.desc())
        .limit(1)
    )
    return session.scalars(statement).one_or_none()


def parts_of(session: Session, upload: int) -> Sequence[PartRow]:
    """The checkpointed parts, in the order of their numbers."""
    return session.scalars(select(PartRow).where(PartRow.upload == upload).order_by(PartRow.part_number)).all()


def record_parts(session: Session, upload: int, rows: Iterable[Mapping[str, Any]]) -> None:
    """Checkpoint parts. Safe to repeat: a part number that has a row gets the new values."""
    rows = [{"upload": upload, **row} for row in rows]
    if not rows:
        return
    statement = dialect(session).insert(PartRow)
    newer = {name: statement.excluded[name] for name in ("offset", "size", "etag", "checksum")}
    session.execute(statement.on_conflict_do_update(index_elements=["upload", "part_number"], set_=newer), rows)


def drop_parts(session: Session, upload: int, part_numbers: Collection[int]) -> int:
    """Delete the rows of parts that the store lacks or shows differently; return the bytes of the remaining parts."""
    session.execute(delete(PartRow).where(PartRow.upload == upload, PartRow.part_number.in_(part_numbers)))
    return int(session.scalar(select(func.coalesce(func.sum(PartRow.size), 0)).where(PartRow.upload == upload)) or 0)


def update_upload(session: Session, upload: int, **values: Any) -> None:
    """Set these columns of the upload's row, and ``updated_at``."""
    if "upload_id" in values:  # an upload whose id is not known is taken for the lost one only while it has no parts
        must_survive(session)
    session.execute(update(UploadRow).where(UploadRow.id == upload).values(updated_at=db_now(), **values))


def known_upload_ids(session: Session, key: str) -> set[str]:
    """The ids of all recorded uploads at a key, of any job, in any bucket: one bucket may have several names."""
    statement = select(UploadRow.upload_id).where(UploadRow.key == key)
    return {upload_id for upload_id in session.scalars(statement) if upload_id is not None}
