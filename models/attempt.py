"""AttemptRow: the history. One row for each try of a job; slices of one try share it."""

from datetime import datetime

from sqlalchemy.orm import Mapped

from blobferry.sql.tables import attempts
from models.base import Base


class AttemptRow(Base):
    """A row of ``blobferry_attempts``. ``outcome`` is null while the attempt lasts."""

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
