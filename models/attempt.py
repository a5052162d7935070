"""AttemptRow: the history, one row for each attempt of a job; the slices of an attempt share it."""

from datetime import datetime

from sqlalchemy.orm import Mapped

from blobferry.sql.tables import attempts
from models.base import Base


class AttemptRow(Base):
    """A row of ``blobferry_attempts``. ``outcome`` is null until the attempt ends."""

    __table__ = attempts

    job_id: Mapped[str]
    attempt: Mapped[int]
    worker: Mapped[str | None]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    remark: Mapped[str | None]
    bytes_sent: Mapped[int]
    sent: Mapped[dict[str, int] | None]
