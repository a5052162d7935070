"""PartRow: one checkpointed part. A part with a row is not sent again."""

from sqlalchemy.orm import Mapped

from blobferry.sql.tables import parts
from models.base import Base


class PartRow(Base):
    """A row of ``blobferry_parts``: the store holds bytes ``[offset, offset + size)`` of the blob."""

    __table__ = parts

    upload: Mapped[int]
    part_number: Mapped[int]
    offset: Mapped[int]
    size: Mapped[int]
    etag: Mapped[str]
    checksum: Mapped[str | None]
