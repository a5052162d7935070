"""LackRow: something that jobs need and one worker was seen to lack."""

from datetime import datetime

from sqlalchemy.orm import Mapped

from blobferry.sql.worker_tables import lacks
from models.base import Base


class LackRow(Base):
    """A row of ``blobferry_lacks``."""

    __table__ = lacks

    worker: Mapped[str]
    need: Mapped[str]
    name: Mapped[str]
    reason: Mapped[str | None]
    times: Mapped[int]
    met_at: Mapped[datetime]
