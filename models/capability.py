"""CapabilityRow: something that a store was seen to lack, so that other processes need not find it out."""

from datetime import datetime

from sqlalchemy.orm import Mapped

from blobferry.sql.worker_tables import capabilities
from models.base import Base


class CapabilityRow(Base):
    """A row of ``blobferry_capabilities``."""

    __table__ = capabilities

    store: Mapped[str]
    capability: Mapped[str]
    reason: Mapped[str | None]
    seen_at: Mapped[datetime]
