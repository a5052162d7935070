"""PathLockRow: one writer or many readers at a time for each path of a bucket."""

from sqlalchemy.orm import Mapped

from blobferry.sql.tables import path_locks
from models.base import Base


class PathLockRow(Base):
    """A row of ``blobferry_path_locks``, kept from the first claim to the end, or to a pause without an upload."""

    __table__ = path_locks

    bucket: Mapped[str]
    path: Mapped[str]
    job_id: Mapped[str]
    is_tree: Mapped[bool]
    is_shared: Mapped[bool]
