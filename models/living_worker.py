"""LivingWorkerRow: a worker that runs jobs, and until when it counts as alive."""

from datetime import datetime

from sqlalchemy.orm import Mapped

from blobferry.sql.worker_tables import workers
from models.base import Base


class LivingWorkerRow(Base):
    """A row of ``blobferry_workers``. Its caretaker renews it; a worker for reads alone has none."""

    __table__ = workers

    worker: Mapped[str]
    name: Mapped[str]
    alive_until: Mapped[datetime | None]
