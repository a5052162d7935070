"""The checkpoint: the rows of a job's uploads and of their parts. Only the run that owns the job writes them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import BigInteger, ClauseElement, bindparam, delete, insert, select, update
from sqlalchemy.orm import Session

from blobferry.contract import UploadState
from blobferry.sql.clock import db_now
from blobferry.sql.sqlite_connection import must_survive
from blobferry.sql.tables import parts, uploads
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


def read_upload(session: Session, job_id: str) -> tuple[UploadRow | None, Sequence[PartRow]]:
    """The upload to resume, as :func:`newest_upload`, and its checkpointed parts."""
    row = newest_upload(session, job_id)
    return row, parts_of(session, row.id) if row else ()


def insert_upload(session: Session, **columns: Any) -> tuple[int, datetime]:
    """Insert an upload; its id, and the database's time."""
    row = session.execute(_INSERT, columns).one()
    return int(row[0]), row[1]


def parts_of(session: Session, upload: int) -> Sequence[PartRow]:
    """The checkpointed parts, in the order of their numbers."""
    return session.scalars(select(PartRow).where(PartRow.upload == upload).order_by(PartRow.part_number)).all()


def record_parts(session: Session, upload: int, rows: Iterable[Mapping[str, Any]]) -> None:
    """Checkpoint parts. Safe to repeat: a part number that has a row gets the new values."""
    rows = [{"upload": upload, **row} for row in rows]
    if rows:
        session.execute(_record(dialect(session)), rows)


@cache
def _record(of: Any) -> Any:
    statement = of.insert(parts)
    newer = {name: statement.excluded[name] for name in ("offset", "size", "etag", "checksum")}
    # With RETURNING, SQLAlchemy sends all rows in one statement.
    return statement.on_conflict_do_update(index_elements=["upload", "part_number"], set_=newer).returning(
        parts.c.part_number
    )


def drop_parts(session: Session, upload: int, part_numbers: Collection[int]) -> None:
    """Delete the rows of parts that the store lacks or shows differently."""
    session.execute(delete(PartRow).where(PartRow.upload == upload, PartRow.part_number.in_(part_numbers)))


def update_upload(session: Session, upload: int, **values: Any) -> None:
    """Set these columns of the upload's row, and ``updated_at``."""
    if "upload_id" in values:  # an upload whose id is not known is taken for the lost one only while it has no parts
        must_survive(session)
    evaluated = {name: value for name, value in values.items() if isinstance(value, ClauseElement)}
    plain = {name: value for name, value in values.items() if name not in evaluated}
    session.execute(_CHANGE.values(evaluated) if evaluated else _CHANGE, {"of_upload": upload, **plain})


_INSERT: Final = insert(uploads).returning(uploads.c.id, uploads.c.opened_at)
_CHANGE: Final = (
    update(uploads).where(uploads.c.id == bindparam("of_upload", type_=BigInteger)).values(updated_at=db_now())
)


def known_upload_ids(session: Session, key: str) -> set[str]:
    """The ids of all recorded uploads at a key, of any job, in any bucket: one bucket may have several names."""
    statement = select(UploadRow.upload_id).where(UploadRow.key == key)
    return {upload_id for upload_id in session.scalars(statement) if upload_id is not None}
