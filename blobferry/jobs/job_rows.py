"""Rows of new jobs: the columns that a request fills, and the INSERTs, each built once."""

from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import ReturningInsert

from blobferry.checks.callbacks import told_version
from blobferry.contract import APART_REQUEST, PLAIN_REQUEST, SEALED_REQUEST, Request
from blobferry.jobs.put_contents import apart
from blobferry.jobs.webhook_receivers import kept_receivers
from blobferry.redaction import is_sealed
from blobferry.sealing import Sealer
from blobferry.spooling.spooled import SpooledName
from blobferry.sql.clock import db_now
from blobferry.sql.tables import jobs
from blobferry.values import Job

NewRow = dict[str, Any]
"""The columns of a new job that its request fills."""

#: What a submission hands on of a row: what a Job and its message hold.
_KNOWN: Final = {
    *(each.name for each in fields(Job)),
    *("queue", "message_options", "parent_id", "root_id", "publish_seq", "published_at"),
}
_COLUMNS: Final = [column for column in jobs.c if column.name in _KNOWN]
#: Columns that are null in a new row unless the INSERT names them.
UNSET: Final = dict.fromkeys(column.name for column in _COLUMNS if column.server_default is None)


def new_row(request: Request, job_id: str, sealer: Sealer) -> NewRow:
    """The row of a checked request; the other columns have defaults."""
    kept, contents = apart(sealer.kept_arguments(request.arguments))
    shown = request.source if request.source_url is None else sealer.shown(request.source_url)
    not_before, spooled = _in_utc(request.not_before), SpooledName.of_url(shown)
    return {
        "id": job_id,
        "operation": request.operation,
        "storage": request.storage,
        "path": request.path,
        "source": shown,
        "dest": request.dest,
        "request": kept,
        "request_version": _version(kept) if request.on_end is None else told_version(request.on_end),
        "contents": contents,
        "spooled": spooled and spooled.name,
        "removes_source": spooled is not None if request.delete_source is None else request.delete_source,
        "labels": request.labels,
        "idempotency_key": request.idempotency_key,
        "priority": request.priority,
        "not_before": not_before,
        "run_at": not_before,
        "deadline": _in_utc(request.deadline),
        "on_end": kept_receivers(request.on_end, sealer),
    }


def _version(kept: Mapping[str, Any]) -> int:
    """The first version whose workers understand the request."""
    if "contents" in kept:
        return APART_REQUEST
    return SEALED_REQUEST if is_sealed(str(kept.get("source", ""))) else PLAIN_REQUEST


def _in_utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(UTC)


@lru_cache(maxsize=64)
def insert_one(dialect: str, given: frozenset[str], *, is_published: bool) -> ReturningInsert[Any]:
    """The INSERT of one row. It returns the defaults that it sets, and no row if one with this id or key exists.

    Args:
        dialect: the name of SQLAlchemy's dialect.
        given: the names of the columns that its parameters fill.
        is_published: whether the job's message is sent right after the commit.
    """
    defaults = [column for column in _COLUMNS if column.server_default is not None and column.name not in given]
    insert = _insert(dialect).values(published_at=db_now()) if is_published else _insert(dialect)
    one_row: ReturningInsert[Any] = insert.returning(*defaults)
    return one_row


@lru_cache(maxsize=8)
def insert_several(dialect: str) -> ReturningInsert[Any]:
    """The INSERT of several rows. It returns the ids of those that were inserted, in any order."""
    several: ReturningInsert[Any] = _insert(dialect).returning(jobs.c.id)
    return several


def _insert(dialect: str) -> Any:
    module = sqlite if dialect == "sqlite" else postgresql
    return module.insert(jobs).on_conflict_do_nothing()
