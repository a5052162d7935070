"""DeliveryRow: the end of a job, and one receiver that is to learn it: a task or a webhook."""

from datetime import datetime

from sqlalchemy.orm import Mapped

from blobferry.sql.outbox_tables import deliveries
from models.base import Base


class DeliveryRow(Base):
    """A row of ``blobferry_deliveries``."""

    __table__ = deliveries

    id: Mapped[int]
    job_id: Mapped[str]
    sequence: Mapped[int]
    kind: Mapped[str]
    job_state: Mapped[str]
    size: Mapped[int | None]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    ended_at: Mapped[datetime]
    state: Mapped[str]
    due_at: Mapped[datetime]
    tries: Mapped[int]
    delivered_at: Mapped[datetime | None]
    url: Mapped[str | None]
    endpoint: Mapped[str | None]
    host: Mapped[str | None]
    secret: Mapped[str | None]
    resent_at: Mapped[datetime | None]
    tried_at: Mapped[datetime | None]
    status: Mapped[int | None]
    error: Mapped[str | None]
