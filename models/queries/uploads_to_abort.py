"""Uploads that no job needs any more: which of them to abort now, and how each abort ended."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, bindparam, func, or_, select, text, update
from sqlalchemy.orm import Session

from blobferry.contract import UNFINISHED_UPLOADS, UploadState
from blobferry.sql.clock import db_now
from blobferry.sql.index_conditions import ABORTING
from models.queries.checkpoints import update_upload
from models.queries.conditions import now
from models.upload import UploadRow

FILES: Final = "file://"  #: prefix of the endpoint of a partial file; its host follows
HOST_GONE: Final = 7 * 24 * 3600.0  #: seconds after which any host may drop the row of another host's partial file


def uploads_to_abort(session: Session, *, limit: int, files_of: str) -> Sequence[UploadRow]:
    """Uploads to abort now: those in state ``aborting``, and gone ones that are due for a second abort.

    A partial file is returned to its own host, whose endpoint is ``files_of``; after ``HOST_GONE`` to any host.
    """
    over = session.scalars(_retention_is_over(), {"most": limit}).all()
    if over:
        given_up = update(UploadRow).where(UploadRow.id.in_(over)).values(state=UploadState.ABORTING, recheck_at=None)
        session.execute(given_up, execution_options={"synchronize_session": False})
    # Two statements, since each has an index. In both the oldest come first, so that an upload that cannot be aborted,
    # and was just put off, does not crowd out the others.
    due = list(session.scalars(_given_up(), {"most": limit, "here": files_of}))
    if len(due) < limit:
        due += session.scalars(_second_aborts(), {"most": limit - len(due), "here": files_of})
    return due


@cache
def _retention_is_over() -> Select[Any]:
    is_over = (UploadRow.state.in_(UNFINISHED_UPLOADS), UploadRow.recheck_at < now())
    first = select(UploadRow.id).where(*is_over).order_by(UploadRow.recheck_at).limit(bindparam("most"))
    return first.with_for_update(skip_locked=True)


@cache
def _given_up() -> Select[Any]:
    not_put_off = or_(UploadRow.recheck_at.is_(None), UploadRow.recheck_at < now())
    given_up = select(UploadRow).where(text(ABORTING), not_put_off, _in_reach())
    return given_up.order_by(UploadRow.updated_at).limit(bindparam("most"))


@cache
def _second_aborts() -> Select[Any]:
    are_due = (UploadRow.state == UploadState.GONE, UploadRow.recheck_at < now(), _in_reach())
    return select(UploadRow).where(*are_due).order_by(UploadRow.recheck_at).limit(bindparam("most"))


def _in_reach() -> ColumnElement[bool]:
    is_blob, is_here = ~UploadRow.endpoint.startswith(FILES), UploadRow.endpoint == bindparam("here")
    return or_(is_blob, is_here, UploadRow.updated_at < now(-HOST_GONE))


def partial_files_elsewhere(session: Session, *, limit: int, files_of: str) -> Sequence[UploadRow]:
    """Partial files to remove that have another host's name in their rows; this host may see some of them.

    In random order, since those that it does not see stay, and must not hide the others.
    """
    others = (text(ABORTING), UploadRow.endpoint.startswith(FILES))
    unseen = select(UploadRow).where(*others, UploadRow.endpoint != files_of, UploadRow.updated_at >= now(-HOST_GONE))
    return session.scalars(unseen.order_by(func.random()).limit(limit)).all()


def is_being_opened(session: Session, upload: UploadRow) -> bool:
    """Whether another upload at this key is being opened: in a listing it looks like the lost one.

    In any bucket, since one bucket may have several names.
    """
    other = (UploadRow.id != upload.id, UploadRow.state == UploadState.OPENING, UploadRow.upload_id.is_(None))
    return session.scalar(select(UploadRow.id).where(UploadRow.key == upload.key, *other).limit(1)) is not None


def put_off_abort(session: Session, upload: int, seconds: float) -> None:
    """Try to abort this upload again after ``seconds``, so that it does not hold up the others."""
    update_upload(session, upload, recheck_at=db_now(seconds))


def upload_is_gone(session: Session, upload: int, *, recheck_seconds: float | None) -> None:
    """Record that the store lists no part of the upload; abort it once more after ``recheck_seconds``, if given."""
    recheck_at = None if recheck_seconds is None else db_now(recheck_seconds)
    update_upload(session, upload, state=UploadState.GONE, recheck_at=recheck_at)
