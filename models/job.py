"""JobRow: one requested operation, its state, and the run that owns it."""

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Mapped

from blobferry.sql.tables import APART, JOB_COLUMNS, jobs
from models.base import Base


class JobRow(Base):
    """A row of ``blobferry_jobs``. The row is the truth; a message only makes a worker look at it."""

    __table__ = jobs
    __mapper_args__ = {"exclude_properties": list(APART)}  # noqa: RUF012

    seq: Mapped[int]
    id: Mapped[str]
    operation: Mapped[str]
    storage: Mapped[str]
    path: Mapped[str | None]
    source: Mapped[str | None]
    dest: Mapped[str | None]
    request: Mapped[dict[str, Any] | None]
    request_version: Mapped[int]
    labels: Mapped[dict[str, str] | None]
    tenant: Mapped[str | None]
    idempotency_key: Mapped[str | None]
    priority: Mapped[int]
    not_before: Mapped[datetime | None]
    deadline: Mapped[datetime | None]

    queue: Mapped[str]
    message_options: Mapped[dict[str, Any] | None]
    parent_id: Mapped[str | None]
    root_id: Mapped[str | None]
    publish_seq: Mapped[int]
    published_at: Mapped[datetime | None]

    state: Mapped[str]
    phase: Mapped[str | None]
    run_at: Mapped[datetime | None]
    waits_for: Mapped[str | None]
    cancel_requested: Mapped[bool]
    pause_requested: Mapped[bool]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    token: Mapped[int]
    worker: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]

    attempt: Mapped[int]
    failures: Mapped[int]
    max_attempts: Mapped[int | None]
    crashes: Mapped[int]
    crash_streak: Mapped[int]
    restarts: Mapped[int]
    polls: Mapped[int]

    size: Mapped[int | None]
    source_fingerprint: Mapped[dict[str, Any] | None]
    bytes_done: Mapped[int]
    bytes_sent: Mapped[int]

    base_etag: Mapped[str | None]
    etag: Mapped[str | None]
    version_id: Mapped[str | None]
    verify_until: Mapped[datetime | None]
    cutoff: Mapped[datetime | None]
    deleted_any: Mapped[bool]

    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    result: Mapped[dict[str, Any] | None]

    spooled: Mapped[str | None]
    removes_source: Mapped[bool]

    def as_row(self) -> dict[str, Any]:
        """The columns by name, in the shape of the rows that the client's Core queries return."""
        return {column.name: getattr(self, column.name) for column in JOB_COLUMNS}
