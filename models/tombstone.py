"""TombstoneRow: the id of a pruned job, so that a replayed message does not start it again."""

from datetime import datetime

from sqlalchemy.orm import Mapped

from blobferry.sql.tables import tombstones
from models.base import Base


class TombstoneRow(Base):
    """A row of ``blobferry_tombstones``: the job existed, ended at ``finished_at``, and was pruned at ``pruned_at``."""

    __table__ = tombstones

    id: Mapped[str]
    finished_at: Mapped[datetime]
    pruned_at: Mapped[datetime]
