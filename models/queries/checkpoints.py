"""The checkpoint: uploads and their parts, for the run that owns the job."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from blobferry.contract import Phase, UploadState
from blobferry.sql.clock import db_now
from models.job import Job
from models.part import Part
from models.queries.claims import update_owned
from models.queries.conditions import dialect, past_return
from models.upload import Upload


def newest_upload(session: Session, job_id: str) -> Upload | None:
    """The upload that the job works on, unless it is known to be gone or is being aborted."""
    statement = (
        select(Upload)
        .where(Upload.job_id == job_id, Upload.state.not_in((UploadState.GONE, UploadState.ABORTING)))
        .order_by(Upload.id.desc())
        .limit(1)
    )
    return session.scalars(statement).one_or_none()


def parts_of(session: Session, upload: int) -> Sequence[Part]:
    """The checkpointed parts, by number."""
    return session.scalars(select(Part).where(Part.upload == upload).order_by(Part.part_number)).all()


def record_parts(session: Session, upload: int, rows: Iterable[Mapping[str, Any]]) -> None:
    """Checkpoint parts; a number that has a row already gets the new values."""
    rows = [{"upload": upload, **row} for row in rows]
    if not rows:
        return
    statement = dialect(session).insert(Part)
    newer = {name: statement.excluded[name] for name in ("offset", "size", "etag", "checksum")}
    session.execute(statement.on_conflict_do_update(index_elements=["upload", "part_number"], set_=newer), rows)


def drop_parts(session: Session, upload: int, part_numbers: Collection[int]) -> int:
    """Forget parts that the store does not have as the rows say; return how many bytes the others are."""
    session.execute(delete(Part).where(Part.upload == upload, Part.part_number.in_(part_numbers)))
    return int(session.scalar(select(func.coalesce(func.sum(Part.size), 0)).where(Part.upload == upload)) or 0)


def update_upload(session: Session, upload: int, **values: Any) -> None:
    """Change an upload's row."""
    session.execute(update(Upload).where(Upload.id == upload).values(updated_at=db_now(), **values))


def begin_completing(session: Session, job: Job, *, base_etag: str) -> bool:
    """Pass the point of no return, unless a cancel came first: then False. Raises LeaseLostError."""
    return pass_return(session, job, phase=Phase.COMPLETING, base_etag=base_etag)


def pass_return(session: Session, job: Job, **values: Any) -> bool:
    """The same, in whichever way the job passes it."""
    update_owned(session, job.id, job.token)
    in_time = (Job.id == job.id, or_(past_return(), ~Job.cancel_requested))
    return session.scalar(update(Job).where(*in_time).values(**values).returning(Job.id)) is not None


def known_upload_ids(session: Session, bucket: str, endpoint: str, key: str) -> set[str]:
    """The ids of all uploads at a key that some row speaks of, whosever job it is and through whichever storage."""
    there = (Upload.bucket == bucket, Upload.endpoint == endpoint, Upload.key == key)
    statement = select(Upload.upload_id).where(*there)
    return {upload_id for upload_id in session.scalars(statement) if upload_id is not None}
