"""The checkpoint: uploads and their parts, for the run that owns the job."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from blobferry.contract import Phase, UploadState
from blobferry.sql.clock import db_now
from models.job import JobRow
from models.part import PartRow
from models.queries.claims import update_owned
from models.queries.conditions import dialect, past_point_of_no_return
from models.upload import UploadRow


def newest_upload(session: Session, job_id: str) -> UploadRow | None:
    """The upload that the job works on, unless it is known to be gone or is being aborted."""
    statement = (
        select(UploadRow)
        .where(UploadRow.job_id == job_id, UploadRow.state.not_in((UploadState.GONE, UploadState.ABORTING)))
        .order_by(UploadRow.id.desc())
        .limit(1)
    )
    return session.scalars(statement).one_or_none()


def parts_of(session: Session, upload: int) -> Sequence[PartRow]:
    """The checkpointed parts, by number."""
    return session.scalars(select(PartRow).where(PartRow.upload == upload).order_by(PartRow.part_number)).all()


def record_parts(session: Session, upload: int, rows: Iterable[Mapping[str, Any]]) -> None:
    """Checkpoint parts; a number that has a row already gets the new values."""
    rows = [{"upload": upload, **row} for row in rows]
    if not rows:
        return
    statement = dialect(session).insert(PartRow)
    newer = {name: statement.excluded[name] for name in ("offset", "size", "etag", "checksum")}
    session.execute(statement.on_conflict_do_update(index_elements=["upload", "part_number"], set_=newer), rows)


def drop_parts(session: Session, upload: int, part_numbers: Collection[int]) -> int:
    """Forget parts that the store does not have as the rows say; return how many bytes the others are."""
    session.execute(delete(PartRow).where(PartRow.upload == upload, PartRow.part_number.in_(part_numbers)))
    return int(session.scalar(select(func.coalesce(func.sum(PartRow.size), 0)).where(PartRow.upload == upload)) or 0)


def update_upload(session: Session, upload: int, **values: Any) -> None:
    """Change an upload's row."""
    session.execute(update(UploadRow).where(UploadRow.id == upload).values(updated_at=db_now(), **values))


def begin_completing(session: Session, job: JobRow, *, base_etag: str) -> bool:
    """Pass the point of no return, unless a cancel came first: then False. Raises LeaseLostError."""
    return pass_point_of_no_return(session, job, phase=Phase.COMPLETING, base_etag=base_etag)


def pass_point_of_no_return(session: Session, job: JobRow, **values: Any) -> bool:
    """The same, in whichever way the job passes it."""
    update_owned(session, job.id, job.token)
    in_time = (JobRow.id == job.id, or_(past_point_of_no_return(), ~JobRow.cancel_requested))
    return session.scalar(update(JobRow).where(*in_time).values(**values).returning(JobRow.id)) is not None


def known_upload_ids(session: Session, bucket: str, endpoint: str, key: str) -> set[str]:
    """The ids of all uploads at a key that some row speaks of, whosever job it is and through whichever storage."""
    there = (UploadRow.bucket == bucket, UploadRow.endpoint == endpoint, UploadRow.key == key)
    statement = select(UploadRow.upload_id).where(*there)
    return {upload_id for upload_id in session.scalars(statement) if upload_id is not None}
